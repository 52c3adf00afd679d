"""MAML on wide observations that are mostly constant: as on dense ones, at a fraction of the cost."""

import pytest
import torch
from sparse_toy import SparseToy
from torch.utils._python_dispatch import TorchDispatchMode

import metarl
from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.trpo import TrustRegion
from metarl.nn import wide

TASKS, ENVS = 4, 10


def train(family, iterations=2, **options):
    # Few iterations: rounding grows with each, as they go on dividing by what is left.
    options = {"num_tasks": TASKS, "envs_per_task": ENVS, "trust_region": TrustRegion(cg_iterations=2)} | options
    agent = MAML(MAMLConfig(hidden=(16,), **options), metarl.EnvSpec.of(family))
    env = family.make_env(TASKS, ENVS)
    for i in range(iterations):
        env.set_tasks(family.sample(TASKS, seed=i))
        metrics = agent.improve(env, seed=i)
    return agent, metrics


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"inner_steps": 2, "curvature_fraction": 0.5},
        {"first_order": True},
        {"outer": "ppo", "outer_lr": 0.01},
        {"outer": "promp", "outer_lr": 0.01, "exploration": True},
    ],
    ids=str,
)
def test_learning_is_the_same_as_with_all_columns(options, monkeypatch):
    family = SparseToy(size=3.0)  # large enough to be scaled down in the second iteration
    short, metrics = train(family, **options)
    monkeypatch.setattr(wide, "MANY_COLUMNS", 10**9)
    whole, expected = train(family, **options)
    assert metrics == pytest.approx(expected, rel=1e-2, abs=1e-4)
    for name, value in whole.parameters.items():
        torch.testing.assert_close(short.parameters[name], value, rtol=1e-3, atol=2e-5)
    for name, value in whole.network.scale.state_dict().items():
        torch.testing.assert_close(short.network.scale.state_dict()[name], value)


def test_an_adapted_policy_is_the_same_as_with_all_columns(monkeypatch):
    family, adapted = SparseToy(), []
    for columns in (wide.MANY_COLUMNS, 10**9):
        monkeypatch.setattr(wide, "MANY_COLUMNS", columns)
        agent, _ = train(family, iterations=1)
        env = family.make_env(2, ENVS)
        env.set_tasks(family.sample(2, split="test", seed=0))
        adapted.append(agent.adapt(env, 2 * ENVS, seed=1).parameters)
    for name, value in adapted[1].items():
        torch.testing.assert_close(adapted[0][name], value, rtol=1e-3, atol=2e-5)


def test_weights_of_columns_that_are_always_zero_stay_as_they_were():
    family = SparseToy()
    agent, _ = train(family)
    untrained = MAML(agent.config, metarl.EnvSpec.of(family))
    never = family.background == 0
    never[family.columns] = False
    moved = (agent.parameters["weight0"] != untrained.parameters["weight0"]).any(0)
    assert not moved[never].any()
    assert moved[~never].all()


class LargeTensors(TorchDispatchMode):
    """Counts the tensors of at least `size` numbers that are made, apart from views."""

    def __init__(self, size):
        super().__init__()
        self.size, self.made = size, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() >= self.size:
            given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
            if result.untyped_storage().data_ptr() not in given:
                self.made.append(str(function))
        return result


def test_an_iteration_makes_nothing_as_large_as_all_observations_but_these():
    family = SparseToy()
    agent, _ = train(family, iterations=1)
    env = family.make_env(TASKS, ENVS)
    env.set_tasks(family.sample(TASKS, seed=5))
    with LargeTensors(family.horizon * TASKS * ENVS * family.width) as large:
        agent.improve(env, seed=5)
    assert len(large.made) == 2, f"before and after adaptation, once each: {large.made}"
