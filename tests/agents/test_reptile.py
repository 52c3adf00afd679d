"""Reptile: its update against hand-made inner steps, learning, and an exact resume."""

import pytest
import torch
from practice import assert_goes_on_exactly, train

import metarl
from metarl.adaptation import adapt, stack
from metarl.agents.reptile import Reptile, ReptileConfig


def make_agent(family, seed=0, **options):
    config = ReptileConfig(**({"num_tasks": 4, "envs_per_task": 5, "hidden": (16,)} | options))
    return Reptile(config, metarl.EnvSpec.of(family), seed=seed)


def test_an_iteration_moves_that_share_of_the_way_to_the_mean_of_the_adapted_parameters(monkeypatch):
    family = metarl.make("PointNavigation-v0", horizon=10)
    agent = make_agent(family, outer="sgd", outer_lr=0.3, inner_steps=2, later_inner_lr=0.05)
    before = {name: value.clone() for name, value in agent._initial().items()}
    batches, collect = [], agent._collect

    def recording(*args):
        batches.append(collect(*args))
        return batches[-1]

    monkeypatch.setattr(agent, "_collect", recording)
    (metrics,) = train(agent, family, 1)
    gradients = [agent._gradient(agent.network, batch) for batch, _ in batches]
    with torch.no_grad():
        adapted = adapt(stack(before, 4), gradients, [0.1, 0.05])
    change = {name: adapted[name].mean(0) - value for name, value in before.items()}
    for name, value in before.items():
        torch.testing.assert_close(agent.parameters[name].detach(), value + 0.3 * change[name])
    length = torch.cat([value.flatten() for value in change.values()]).norm()
    assert metrics["mean_change"] == pytest.approx(float(length), rel=1e-5)
    assert metrics["env_steps"] == 2 * 4 * 5 * 10


def test_it_learns_to_adapt_to_unseen_goals():
    family = metarl.make("PointNavigation-v0")
    agent = make_agent(family, num_tasks=10, envs_per_task=10, hidden=(32, 32))
    train(agent, family, 25)
    zero_shot, *_, three_steps = metarl.evaluate(agent, family, num_tasks=20, seed=1).returns.mean(0).tolist()
    assert three_steps > zero_shot + 5
    assert three_steps > -8


@pytest.mark.parametrize("outer", ["adam", "sgd"])
def test_going_on_from_a_saved_state_is_exact(outer):
    family = metarl.make("PointNavigation-v0", horizon=10)
    assert_goes_on_exactly(lambda seed: make_agent(family, seed, outer=outer), family, before=2, after=2)


@pytest.mark.parametrize("options", [{"outer_lr": 0.0}, {"outer": "sgd", "outer_lr": 1.5}, {"inner_steps": 0}], ids=str)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(metarl.UsageError, match=list(options)[-1]):
        ReptileConfig(**options)
