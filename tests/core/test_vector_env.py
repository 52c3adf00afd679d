"""The environment contract's own part: tasks that are set, actions that are refused, state that is restored."""

import pytest
import torch
from gymnasium.vector import AutoresetMode

import metarl
from metarl import Tasks, UsageError


@pytest.fixture
def family():
    return metarl.make("PointNavigation-v0", horizon=5)


@pytest.fixture
def env(family):
    env = family.make_env(2, 3, seed=0)
    env.set_tasks(family.sample(2, seed=0))
    return env


def test_attributes(env, family):
    assert (env.num_envs, env.num_tasks, env.envs_per_task, env.backend) == (6, 2, 3, "torch")
    assert env.device == torch.device("cpu")
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert env.observation_space.shape == (6, 2)
    assert env.action_space.shape == (6, 2)
    assert env.single_action_space == family.action_space


def test_nothing_goes_without_tasks_or_before_reset(family):
    env = family.make_env(2, 3)
    with pytest.raises(UsageError, match="call set_tasks first"):
        env.reset()
    with pytest.raises(UsageError, match="call set_tasks first"):
        _ = env.tasks
    env.set_tasks(family.sample(2, seed=0))
    with pytest.raises(UsageError, match="call reset before step"):
        env.step(torch.zeros(6, 2))


@pytest.mark.parametrize(
    "tasks",
    [
        Tasks({"goal": torch.zeros(3, 2)}),
        Tasks({"target": torch.zeros(2, 2)}),
        Tasks({"goal": torch.zeros(2, 3)}),
        Tasks({"goal": torch.full((2, 2), 0.51)}),
        Tasks({"goal": torch.full((2, 2), torch.nan)}),
    ],
)
def test_wrong_tasks_are_refused_and_the_old_ones_stay(env, tasks):
    before = env.tasks
    with pytest.raises(UsageError):
        env.set_tasks(tasks)
    assert env.tasks == before


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (torch.zeros(5, 2), r"shape \[6, 2\], got \[5, 2\]"),
        (torch.zeros(6), r"shape \[6, 2\]"),
        (torch.zeros(2, 3, 2), r"shape \[6, 2\]"),
        (torch.zeros(6, 2, dtype=torch.int64), "floating-point"),
        (torch.full((6, 2), torch.nan), "NaN"),
        (torch.full((6, 2), torch.inf), "NaN or infinity"),
    ],
)
def test_wrong_continuous_actions_are_refused(env, actions, message):
    env.reset()
    with pytest.raises(UsageError, match=message):
        env.step(actions)
    env.step(torch.zeros(6, 2))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (torch.zeros(2, 1, dtype=torch.int64), r"shape \[2\]"),
        (torch.zeros(2), "integers"),
        (torch.zeros(2, dtype=torch.bool), "integers"),
        (torch.zeros(2, dtype=torch.complex64), "integers"),
        (torch.tensor([0, 5]), r"\[0, 4\], got 5"),
        (torch.tensor([-1, 0]), r"\[0, 4\], got -1"),
    ],
)
def test_wrong_discrete_actions_are_refused(actions, message):
    family = metarl.make("Bandit-v0")
    env = family.make_env(2)
    env.set_tasks(family.sample(2, seed=0))
    env.reset()
    with pytest.raises(UsageError, match=message):
        env.step(actions)
    env.step(torch.tensor([4, 0], dtype=torch.int32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_tasks": 0}, "number of tasks must be"),
        ({"num_tasks": 1, "envs_per_task": -1}, "environments per task must be"),
        (
            {"num_tasks": 1, "backend": "mujoco"},
            "PointNavigation-v0 has no backend 'mujoco': choose from torch or auto",
        ),
        ({"num_tasks": 1, "device": "gpu"}, "unknown device 'gpu'"),
        ({"num_tasks": 1, "device": "meta"}, "'meta' is not supported"),
        ({"num_tasks": 1, "device": "cuda:99"}, "'cuda:99' is not there"),
    ],
)
def test_make_env_refuses_what_is_not_there(family, arguments, message):
    with pytest.raises(UsageError, match=message):
        family.make_env(**arguments)


def test_a_restored_state_gives_the_same_steps(env):
    env.reset(seed=1)
    env.step(torch.full((6, 2), 0.05))
    state = env.get_state()
    assert {value.shape[0] for value in state.values()} == {6}
    # Over the end of the episode, so that the elapsed steps matter, too.
    first = [env.step(torch.full((6, 2), 0.01 * t)) for t in range(6)]
    env.set_state(state)
    again = [env.step(torch.full((6, 2), 0.01 * t)) for t in range(6)]
    for one, other in zip(first, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))
    assert first[3][3].all()


def test_a_state_moves_to_another_environment(env, family):
    env.reset()
    env.step(torch.full((6, 2), 0.05))
    other = family.make_env(2, 3)
    other.set_tasks(env.tasks)
    other.set_state(env.get_state())
    assert torch.equal(other.step(torch.zeros(6, 2))[1], env.step(torch.zeros(6, 2))[1])


def test_new_tasks_take_effect_in_the_episode_under_way(env, family):
    env.reset()
    env.set_tasks(family.task(goal=[0.5, 0.0])[[0, 0]])
    torch.testing.assert_close(env.step(torch.zeros(6, 2))[1], torch.full((6,), -0.25))


def test_what_cannot_be_rendered_says_so(env):
    with pytest.raises(UsageError, match="cannot be rendered"):
        env.render()
