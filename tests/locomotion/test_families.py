"""Rewards, tasks and episodes of the locomotion families."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

import metarl
from metarl import UsageError

FAMILIES = [
    "HalfCheetahDir-v0",
    "HalfCheetahVel-v0",
    "AntDir-v0",
    "AntVel-v0",
    "AntGoal-v0",
    "HumanoidDir-v0",
    "Walker2dRandParams-v0",
    "HopperRandParams-v0",
]


def made(id, tasks, envs_per_task=1, **options):
    family = metarl.make(id, **options)
    env = family.make_env(len(tasks), envs_per_task, seed=0)
    env.set_tasks(tasks)
    env.reset(seed=0)
    return family, env


def random_actions(family, count, seed=0):
    low, high = torch.as_tensor(family.action_space.low), torch.as_tensor(family.action_space.high)
    return low + (high - low) * torch.rand(count, len(low), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("id", FAMILIES)
def test_tasks_are_drawn_within_their_space_and_reproducibly(id):
    family = metarl.make(id)
    tasks = family.sample(50, split="train", seed=3)
    family.validate(tasks)
    assert tasks == metarl.make(id).sample(50, split="train", seed=3)
    if len(family.task_space) != 1 or "direction" not in family.task_space:
        assert tasks != family.sample(50, split="test", seed=3)


@pytest.mark.parametrize("id", FAMILIES)
def test_an_environment_does_not_know_its_neighbours(id):
    """The third of five environments behaves as the same one alone, resets included."""
    family = metarl.make(id, horizon=7)
    tasks = family.sample(5, seed=0)
    many, one = family.make_env(5, backend="mujoco"), family.make_env(1, backend="mujoco")
    many.set_tasks(tasks)
    one.set_tasks(tasks[2])
    seen_many, _ = many.reset(seed=10)
    seen_one, _ = one.reset(seed=12)
    assert torch.equal(seen_many[2], seen_one[0])
    for number in range(16):
        actions = random_actions(family, 5, number)
        many_step, one_step = many.step(actions), one.step(actions[2:3])
        for left, right in zip(many_step[:4], one_step[:4], strict=True):
            assert torch.equal(left[2], right[0])


@pytest.mark.parametrize("id", FAMILIES)
def test_state_restores_the_future(id):
    family = metarl.make(id, horizon=9)
    tasks = family.sample(3, seed=0)
    futures = []
    env = family.make_env(3, backend="mujoco")
    env.set_tasks(tasks)
    env.reset(seed=0)
    for number in range(5):
        env.step(random_actions(family, 3, number))
    state = env.get_state()
    other = family.make_env(3, backend="mujoco", seed=99)
    other.set_tasks(tasks)
    for each in (env, other):
        each.set_state(state)
        futures.append([each.step(random_actions(family, 3, number))[:4] for number in range(5, 15)])
    for left, right in zip(*futures, strict=True):
        for a, b in zip(left, right, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("id", ["HalfCheetahDir-v0", "AntGoal-v0"])
def test_the_horizon_truncates_and_the_last_observation_is_kept(id):
    family, env = made(id, metarl.make(id).sample(3, seed=0), horizon=4)
    for number in range(9):
        observation, _, terminated, truncated, info = env.step(random_actions(family, 3, number))
        last = (number + 1) % 4 == 0
        assert not terminated.any()
        assert (truncated == last).all()
        assert (info["_final_obs"] == last).all()
        assert ((observation != info["final_obs"]).any(1) == last).all()


def test_velocity_is_rewarded_as_the_docstrings_say():
    """Rewards recomputed from positions alone, by hand."""
    velocity = torch.tensor([0.0, 1.5])
    family, env = made("HalfCheetahVel-v0", metarl.Tasks({"velocity": velocity}))
    for number in range(5):
        before = env.get_state()["qpos"][:, 0]
        action = random_actions(family, 2, number)
        _, reward, *_ = env.step(action)
        speed = (env.get_state()["qpos"][:, 0] - before) / 0.05
        expected = -(speed - velocity).abs() - 0.05 * action.square().sum(1)
        torch.testing.assert_close(reward.double(), expected, atol=1e-5, rtol=0)


def test_directions_are_rewarded_as_mirror_images():
    action = torch.zeros(2, 6)
    _, env = made("HalfCheetahDir-v0", metarl.make("HalfCheetahDir-v0").all_tasks("test"))
    state = env.get_state()
    state["qpos"], state["qvel"] = (state[name][:1].repeat(2, 1) for name in ("qpos", "qvel"))
    state["qvel"][:, 0] = 2.0
    env.set_state(state)
    _, reward, *_ = env.step(action)
    assert reward[0] > 0.5
    torch.testing.assert_close(reward[0], -reward[1])


def test_an_ant_is_rewarded_along_its_angle():
    family = metarl.make("AntDir-v0", circle=True)
    assert set(family.task_space) == {"angle"}
    angles = torch.tensor([0.0, math.pi / 2, math.pi / 3])
    env = family.make_env(3)
    env.set_tasks(metarl.Tasks({"angle": angles}))
    env.reset(seed=0)
    state = env.get_state()
    for name in ("qpos", "qvel", "evaluation_offset"):
        state[name] = state[name][:1].repeat(3, 1)
    env.set_state(state)
    _, reward, *_ = env.step(torch.zeros(3, 8))
    x, y = reward[0] - 1, reward[1] - 1  # no contact yet: 1 is for being healthy
    torch.testing.assert_close(reward[2] - 1, math.cos(math.pi / 3) * x + math.sin(math.pi / 3) * y, atol=1e-5, rtol=0)
    assert x.abs() > 1e-3


def test_an_ant_at_its_goal_is_rewarded_most():
    family, env = made("AntGoal-v0", metarl.Tasks({"goal": torch.tensor([[0.0, 0.0], [1.0, -2.0]])}))
    state = env.get_state()
    for name in ("qpos", "qvel", "evaluation_offset"):
        state[name] = state[name][:1].repeat(2, 1)
    env.set_state(state)
    observation, reward, *_ = env.step(torch.zeros(2, 8))
    x, y = observation[1, 0], observation[1, 1]
    torch.testing.assert_close(
        reward[0] - reward[1], (x - 1).abs() + (y + 2).abs() - x.abs() - y.abs(), atol=1e-3, rtol=0
    )
    assert family.terminates is False


def test_random_parameters_change_the_dynamics_and_derived_constants():
    family = metarl.make("Walker2dRandParams-v0")
    ones = {name: torch.ones(2, *space.shape) for name, space in family.task_space.items()}
    ones["body_mass"][1] = 2.0
    env = family.make_env(2)
    env.set_tasks(metarl.Tasks(ones))
    fields = ("body_mass", "body_inertia", "body_subtreemass", "dof_invweight0", "body_invweight0")
    values = {field: env.physics._batch.expand(field) for field in fields}
    np.testing.assert_allclose(values["body_mass"][1], 2 * values["body_mass"][0])
    np.testing.assert_allclose(values["body_subtreemass"][1], 2 * values["body_subtreemass"][0])
    assert (values["dof_invweight0"][1] < values["dof_invweight0"][0]).all()
    for field, value in values.items():
        np.testing.assert_allclose(value[0], getattr(family.robot.scene.model, field), rtol=1e-12)


@pytest.mark.parametrize("backend", ["mujoco", pytest.param("warp", marks=pytest.mark.slow)])
def test_a_broken_simulation_is_reset_and_counted(backend):
    family = metarl.make("HalfCheetahDir-v0")
    tasks = family.sample(4, seed=0)
    broken, healthy = (family.make_env(4, backend=backend) for _ in range(2))
    for env in (broken, healthy):
        env.set_tasks(tasks)
        env.reset(seed=0)
    state = broken.get_state()
    state["qvel"][1] = 1e14
    broken.set_state(state)
    others = [0, 2, 3]
    for number in range(4):
        action = random_actions(family, 4, number)
        step, expected = broken.step(action), healthy.step(action)
        assert step[4]["fault"].tolist() == [False, number == 0, False, False]
        assert step[3].tolist() == [False, number == 0, False, False]
        for left, right in zip(step[:4], expected[:4], strict=True):
            assert left.isfinite().all()
            assert torch.equal(left[others], right[others])
        assert step[4]["final_obs"].isfinite().all()
    assert (broken.fault_count, healthy.fault_count) == (1, 0)


def test_faults_reach_the_trajectories():
    family = metarl.make("HalfCheetahDir-v0", horizon=10)
    env = family.make_env(2, 2)
    env.set_tasks(family.sample(2, seed=0))
    steps = iter(range(10))

    def act(observations):
        if next(steps) == 3:
            state = env.get_state()
            state["qvel"][1] = 1e14
            env.set_state(state)
        return random_actions(family, 4)

    trajectories = metarl.collect(env, act, 10, seed=0)
    assert trajectories.fault.nonzero().tolist() == [[3, 0, 1]]
    assert trajectories.truncated[3, 0, 1]
    assert env.fault_count == 1
    assert "step 4 of an episode of environment 1 of task 0 (direction=" in env.fault_report


MEMORY = """
import metarl, torch

def resident():
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * 4

for id in ("HalfCheetahDir-v0", "HopperRandParams-v0"):
    family = metarl.make(id, horizon=50)
    env = family.make_env(2)
    env.set_tasks(family.sample(2, seed=0))
    env.reset(seed=0)
    action = 0.5 * torch.ones(2, *family.action_space.shape)
    sizes = []
    for _ in range(4):
        for _ in range(1500):
            env.step(action)
        sizes.append(resident())
    print(min(after - before for before, after in zip(sizes, sizes[1:])))
"""


def test_no_memory_is_lost():
    """Thousands of steps with resets, two kinds of robot; in a process of its own, whose memory no other test frees.

    What leaks grows in every stretch of steps; what is allocated late grows in one.
    """
    answer = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    growth = [int(kilobytes) for kilobytes in answer.stdout.split()]
    assert len(growth) == 2
    assert max(growth) < 512, "more than 0.5 MiB in 1,500 steps"


def test_auto_means_threads_on_the_cpu_and_warp_on_a_gpu():
    family = metarl.make("AntVel-v0")
    assert family.resolve_backend("auto", "cpu") == "mujoco"
    assert family._preferred_backend(torch.device("cuda")) == "warp"


@pytest.mark.parametrize(
    ("id", "options", "words"),
    [
        ("HalfCheetahVel-v0", {"max_velocity": 0}, "max_velocity"),
        ("HalfCheetahVel-v0", {"max_velocity": float("nan")}, "max_velocity"),
        ("Walker2dRandParams-v0", {"log_scale_limit": -1.0}, "log_scale_limit"),
        ("AntDir-v0", {"horizon": 0}, "horizon"),
        ("AntDir-v0", {"circles": True}, "circles"),
    ],
)
def test_mistakes_are_named(id, options, words):
    with pytest.raises(UsageError, match=words):
        metarl.make(id, **options)
