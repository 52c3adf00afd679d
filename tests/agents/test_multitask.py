"""The multi-task policy and the oracle: what they are told, what they learn, and whose tasks the oracle refuses."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from practice import assert_goes_on_exactly, train

import metarl
from metarl.agents.actor_critic import VALUES
from metarl.agents.multitask import MemorylessPolicy, Multitask, MultitaskConfig, Oracle, task_features
from metarl.agents.task_features import check_parameters
from metarl.task_spaces import Choice

AGENTS = {"multitask": Multitask, "oracle": Oracle}


def make_agent(id, family, seed=0, **options):
    config = MultitaskConfig(
        **({"num_tasks": 4, "envs_per_task": 2, "hidden": (16,), "epochs": 2, "minibatches": 2} | options)
    )
    return AGENTS[id](config, metarl.EnvSpec.of(family), seed=seed)


@pytest.mark.slow
def test_the_oracle_learns_what_the_multitask_policy_cannot():
    family, returns = metarl.make("PointNavigation-v0", horizon=20), {}
    for id in AGENTS:
        agent = make_agent(
            id, family, num_tasks=100, envs_per_task=1, hidden=(32, 32), lr=3e-3, epochs=5, minibatches=8
        )
        train(agent, family, 25)
        evaluation = metarl.evaluate(agent, family, num_tasks=50, seed=1)
        assert evaluation.episodes_used == [0]
        returns[id] = float(evaluation.returns.mean())
    assert returns["multitask"] > -4.5  # to stay at the start is worth −20 · E|g|² = −3.3
    assert returns["oracle"] > -1.8


def test_features_are_numbers_and_one_hot_codes():
    spaces = {
        "mass": gym.spaces.Box(0, 1, (2,)),
        "kind": gym.spaces.Discrete(3, start=5),
        "place": Choice(["moon", "earth"]),
        "task_index": gym.spaces.Box(0, 2, (), "int64"),
        "level": Choice([0.5, 2.0]),
    }
    tasks = metarl.Tasks(
        {
            "mass": torch.tensor([[0.1, 0.2]]),
            "kind": torch.tensor([6]),
            "place": torch.tensor([1]),
            "task_index": torch.tensor([2]),
            "level": torch.tensor([2.0], dtype=torch.float64),
        }
    )
    expected = [0.1, 0.2, *(0, 1, 0), *(0, 1), *(0, 0, 1), 2.0]
    assert task_features(spaces, tasks)[0].tolist() == pytest.approx(expected)


def test_advantages_and_targets_by_hand():
    """With γ = λ = 1, a target is the sum of rewards to the end of the episode, and at a truncation the value there."""
    family = metarl.make("CartPoleParams-v0", horizon=25)
    agent = make_agent("oracle", family, num_tasks=2, envs_per_task=3, discount=1.0, gae_lambda=1.0)
    env = family.make_env(2, 3)
    env.set_tasks(family.sample(2, seed=0))
    extra = agent._extra(env)
    policy = MemorylessPolicy(agent.network, torch.Generator().manual_seed(0), extra)
    trajectories = metarl.collect(env, policy, 60, seed=0)
    columns = agent._columns(trajectories, extra)
    final, ended = trajectories.final_observations, trajectories.ended
    assert trajectories.terminated.any()
    assert trajectories.truncated.any()
    norm, targets = agent.network.return_norm, columns.targets.reshape(ended.shape)
    for m in range(2):
        for n in range(3):
            for t in range(60):
                end = next((k for k in range(t, 60) if ended[k, m, n]), 59)
                total = float(trajectories.rewards[t : end + 1, m, n].sum())
                if not trajectories.terminated[end, m, n]:
                    total += float(_value_before_update(trajectories, agent, final[end, m, n], extra[m]))
                assert float(targets[t, m, n]) == pytest.approx((total - float(norm.mean)) / float(norm.std), abs=1e-4)
    env.close()


def _value_before_update(trajectories, agent, observation, told):
    """PopArt keeps denormalised values the same when the statistics change."""
    assert VALUES in trajectories.extras
    with torch.no_grad():
        return agent.network.denormalize(agent.network(agent.network.inputs(observation, told))[1])


def test_the_oracle_refuses_tasks_with_other_parameters():
    agent = make_agent("oracle", metarl.make("PointNavigation-v0", horizon=5))

    class Walls(type(metarl.make("PointNavigation-v0"))):
        def __init__(self):
            super().__init__(5)
            self.task_space = self.task_space | {"wall": gym.spaces.Box(0, 1, (3,))}

        def _sample(self, num_tasks, split, generator):
            return super()._sample(num_tasks, split, generator) | {"wall": torch.zeros(num_tasks, 3)}

    message = r"has tasks with goal \[2\], wall \[3\], the oracle was trained on tasks with goal \[2\]"
    with pytest.raises(metarl.UsageError, match=message):
        metarl.evaluate(agent, Walls(), num_tasks=2)


def test_the_oracle_refuses_values_that_count_from_another_number():
    class Kinds(type(metarl.make("PointNavigation-v0"))):
        def __init__(self, start):
            super().__init__(5)
            self.task_space = {"kind": gym.spaces.Discrete(3, start=start)}

    trained = metarl.EnvSpec.of(Kinds(0)).task_space
    check_parameters(trained, Kinds(0))
    with pytest.raises(metarl.UsageError, match=r"has tasks with kind \[3, from 5 on\].* tasks with kind \[3\]"):
        check_parameters(trained, Kinds(5))


UNREADABLE = {
    "tiny": (metarl.LogUniform(1e-9, 1e-8), "values of task parameter 'x' from 1e-09 to 1e-08 apart"),
    "huge": (gym.spaces.Box(0, 1e30, ()), r"from 0 to 1.00000002e\+30 apart, .* up to 1e\+18"),
    "huge in float64": (gym.spaces.Box(0, 1e300, (), "float64"), r"from 0 to 1e\+300 apart"),
    "days since long ago": (gym.spaces.Box(20_000_000, 20_000_010, (), "int64"), "from 20000000 to 20000010 apart"),
    "listed": (Choice([1e8, 1e8 + 1]), "from 100000000 to 100000001 apart"),
    "one of several": (
        gym.spaces.Box(np.array([0, 1], "f"), np.array([1, 1 + 2e-6], "f")),
        "from 1 to 1.00000203 apart",
    ),
    "seeds": (gym.spaces.Discrete(2**40), "a number for each value of task parameter 'x', which has 1099511627776"),
}


@pytest.mark.parametrize(("space", "message"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_the_oracle_refuses_parameters_that_it_would_read_as_all_the_same(space, message):
    point = metarl.EnvSpec.of(metarl.make("PointNavigation-v0"))
    with pytest.raises(metarl.UsageError, match=message):
        Oracle(MultitaskConfig(), dataclasses.replace(point, task_space={"x": space}))


def test_the_oracle_reads_constant_parameters_and_wide_ranges():
    point = metarl.EnvSpec.of(metarl.make("PointNavigation-v0"))
    spaces = {
        "same": gym.spaces.Box(3, 3, (2,)),
        "wide": gym.spaces.Box(0, 2**40, (), "int64"),
        "open": gym.spaces.Box(-np.inf, np.inf, ()),
    }
    Oracle(MultitaskConfig(), dataclasses.replace(point, task_space=spaces))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_numbers_of_open_ranges_are_checked_as_they_come(value):
    tasks = metarl.Tasks({"x": torch.tensor([1.0, value])})
    with pytest.raises(metarl.UsageError, match=r"the oracle cannot read .* of task parameter 'x'"):
        task_features({"x": gym.spaces.Box(-np.inf, np.inf, ())}, tasks)


def test_the_oracle_needs_to_know_which_parameters_tasks_have():
    family = metarl.make("PointNavigation-v0")
    spec = metarl.EnvSpec(family.observation_space, family.action_space, family.horizon)
    with pytest.raises(metarl.UsageError, match=r"EnvSpec\.of"):
        Oracle(MultitaskConfig(), spec)
    Multitask(MultitaskConfig(), spec)


@pytest.mark.parametrize("id", AGENTS)
def test_going_on_from_a_saved_state_is_exact(id):
    family = metarl.make("PointNavigation-v0", horizon=10)
    assert_goes_on_exactly(lambda seed: make_agent(id, family, seed), family, before=2, after=2)


@pytest.mark.parametrize("id", AGENTS)
def test_an_adapted_policy_does_not_change_when_training_goes_on(id):
    family = metarl.make("PointNavigation-v0", horizon=10)
    agent = make_agent(id, family)
    env = family.make_env(2, 5)
    env.set_tasks(family.sample(2, seed=0))
    policy = agent.adapt(env, 0, seed=1)
    before = metarl.collect(env, policy.fork(), 10, seed=2).actions
    train(agent, family, 2)
    assert torch.equal(metarl.collect(env, policy.fork(), 10, seed=2).actions, before)
