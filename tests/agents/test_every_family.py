"""Agents on a native, a Gymnasium, a locomotion and a Meta-World family: train, resume exactly, evaluate, adapt."""

import pytest
import torch
from practice import assert_goes_on_exactly

import metarl
from metarl.registry import agent_class

FAMILIES = ("PointNavigation-v0", "CartPoleParams-v0", "HalfCheetahVel-v0", "ML1-reach-v3")
OPTIONS = {
    "maml": {"hidden": (8,), "learn_inner_lr": True},
    "reptile": {"hidden": (8,), "inner_steps": 2},
    "multitask": {"hidden": (8,), "epochs": 1, "minibatches": 2},
    "oracle": {"hidden": (8,), "epochs": 1, "minibatches": 2},
    **{id: {} for id in ("gittins", "ucb1", "thompson", "greedy", "psrl")},
}
PAIRS = [
    *((agent, id) for agent in ("maml", "reptile", "multitask", "oracle") for id in FAMILIES),
    *((agent, "Bandit-v0") for agent in ("gittins", "ucb1", "thompson", "greedy")),
    ("psrl", "TabularMDP-v0"),
]


@pytest.mark.parametrize(("agent", "id"), PAIRS)
def test_an_agent_trains_goes_on_exactly_evaluates_and_adapts(agent, id):
    family = metarl.make(id) if id == "Bandit-v0" else metarl.make(id, horizon=6)
    cls = agent_class(agent)

    def make(seed):
        config = cls.config_class(num_tasks=2, envs_per_task=2, **OPTIONS[agent])
        return cls(config, metarl.EnvSpec.of(family), seed=seed)

    assert_goes_on_exactly(make, family, before=1)
    learner = make(0)
    evaluation = metarl.evaluate(learner, family, num_tasks=2, episodes=2, seed=1)
    assert evaluation.returns.isfinite().all()
    again = metarl.evaluate(learner, family, num_tasks=2, episodes=2, seed=1)
    assert torch.equal(evaluation.returns, again.returns)
