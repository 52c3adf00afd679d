"""Any Gymnasium environment as a family: spaces, workers, failures, state."""

import ctypes.util
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from drift import Drift, Hanging, Stubborn, Vicious, set_drift
from gymnasium.spaces import Box, Discrete, Text

from metarl import Tasks, UsageError
from metarl.contract import check_distribution
from metarl.envs.gymnasium_env import GymnasiumDistribution
from metarl.errors import EnvironmentFault, RenderingUnavailable

B = 5


def family(env=Drift, **options):
    options = {"parameters": {"drift": (0.0, 4.0)}, "apply": set_drift, "horizon": 7, "has_success": True} | options
    return GymnasiumDistribution("Drift-v0", env, **options)


def opened(distribution, drifts=(0.5, 0.5, 1.5, 1.5, 2.5), **options):
    env = distribution.make_env(len(drifts), **options)
    env.set_tasks(Tasks({"drift": torch.tensor(drifts, dtype=torch.float64)}))
    return env


def run(env, steps=12, seed=3):
    generator = torch.Generator().manual_seed(0)
    obs, _ = env.reset(seed=seed)
    record = [obs]
    for _ in range(steps):
        obs, reward, terminated, truncated, info = env.step(6 * torch.rand(env.num_envs, 2, generator=generator) - 3)
        record += [obs, reward[:, None], terminated[:, None], truncated[:, None], info["final_obs"]]
        record += [info["_final_obs"][:, None], info["success"][:, None]]
    env.close()
    return torch.cat([value.double() for value in record], dim=1)


@pytest.fixture(scope="module")
def reference():
    """Each environment alone, stepped by hand with clipped actions."""
    generator = torch.Generator().manual_seed(0)
    actions = [6 * torch.rand(B, 2, generator=generator) - 3 for _ in range(12)]
    rows = []
    for i, drift in enumerate((0.5, 0.5, 1.5, 1.5, 2.5)):
        env = gym.wrappers.FlattenObservation(Drift())
        env.unwrapped.drift = drift
        obs, _ = env.reset(seed=3 + i)
        row = [*obs]
        for action in actions:
            clipped = np.clip(action[i].numpy(), [-1, 0], [1, 3]).astype(np.float32)
            final, reward, terminated, truncated, info = env.step(clipped)
            obs = env.reset()[0] if terminated else final
            row += [*obs, reward, terminated, truncated, *final, terminated, info["success"]]
        rows.append(torch.tensor(np.array(row, np.float32).astype(np.float64)))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "options",
    [{"vectorization": "sync"}, {"workers": 1}, {"workers": 2}, {"workers": 4}, {"workers": 64}],
    ids=["sync", "1", "2", "4", "64"],
)
def test_many_environments_are_those_stepped_alone_whatever_the_workers(options, reference):
    assert torch.equal(run(opened(family(**options))), reference)


def test_a_worker_runs_many_environments():
    env = opened(family(workers=2))
    assert len(env._pool.processes) == 2
    env.close()


def test_the_horizon_truncates_and_the_clock_starts_anew():
    env = opened(family(horizon=3, vectorization="sync", env_kwargs={"length": 100}))
    env.reset(seed=0)
    for t in range(1, 8):
        _, _, terminated, truncated, info = env.step(torch.zeros(B, 2))
        assert not terminated.any()
        assert bool(truncated.all()) == (t % 3 == 0)
        assert torch.equal(info["_final_obs"], truncated)


def test_the_seed_of_make_env_is_that_of_the_first_reset():
    one, other = (opened(family(vectorization="sync"), seed=11) for _ in range(2))
    first, second = one.reset()[0], one.reset()[0]
    assert torch.equal(first, other.reset(seed=11)[0])
    assert torch.equal(second, other.reset()[0])
    assert not torch.equal(first, second)


def test_a_new_task_acts_at_once_and_lets_the_episode_go_on():
    distribution = family(vectorization="sync")
    one, other = opened(distribution), opened(distribution)
    for env in (one, other):
        env.reset(seed=0)
        env.step(torch.zeros(B, 2))
    other.set_tasks(distribution.task(drift=4.0).repeat_interleave(B))
    difference = other.step(torch.zeros(B, 2))[0] - one.step(torch.zeros(B, 2))[0]
    drift = 4 - torch.tensor([0.5, 0.5, 1.5, 1.5, 2.5])
    torch.testing.assert_close(difference[:, -2:], drift[:, None].expand(B, 2))


@pytest.mark.parametrize("options", [{"vectorization": "sync"}, {"workers": 2}], ids=["sync", "async"])
def test_the_contract_holds(options):
    check_distribution(family(env_kwargs={"length": 30}, horizon=8, **options))


def test_discrete_actions_keep_their_first_number():
    class Counting(Drift):
        observation_space = Box(-10, 10, (1,), np.float32)
        action_space = Discrete(3, start=-1)

        def step(self, action):
            assert action in self.action_space
            return np.float32([action]), 0.0, False, False, {}

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

    env = opened(family(Counting, workers=2, has_success=False))
    env.reset(seed=0)
    actions = torch.tensor([-1, 0, 1, 0, -1])
    assert torch.equal(env.step(actions)[0][:, 0], actions.float())
    assert "success" not in env.step(actions)[-1]
    with pytest.raises(UsageError, match=r"whole numbers in \[-1, 1\], got 2"):
        env.step(actions + 1)
    env.close()


def test_integer_and_array_parameters_are_uniform_and_reach_the_environment():
    bounds = {"count": Box(-1, 2, (), np.int64), "wind": Box(np.float32([0, 5]), np.float32([1, 9]))}
    seen = []
    distribution = family(parameters=bounds, apply=lambda env, task: seen.append(task), vectorization="sync")
    tasks = distribution.sample(400, seed=0)
    assert sorted(set(tasks.parameters["count"].tolist())) == [-1, 0, 1, 2]
    torch.testing.assert_close(tasks.parameters["wind"].mean(0), torch.tensor([0.5, 7.0]), atol=0.15, rtol=0)
    distribution.make_env(2, 2).set_tasks(tasks[:2])
    assert [task["count"] for task in seen] == tasks.parameters["count"][:2].repeat_interleave(2).tolist()
    assert [task["wind"].tolist() for task in seen] == tasks.parameters["wind"][:2].repeat_interleave(2, 0).tolist()


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        ("NoSuchThing-v9", {}, "NoSuchThing"),
        (Drift, {"horizon": 0}, "horizon must be a whole number"),
        (Drift, {"workers": 0}, "number of workers"),
        (Drift, {"vectorization": "threads"}, "choose from async, sync"),
        (Drift, {"parameters": {"drift": (1.0, 0.0)}}, "low <= high"),
        (Drift, {"parameters": {"drift": (0.0, np.inf)}}, "finite"),
        (Drift, {"wrappers": [lambda env: None]}, "wrappers= returned None"),
        (Drift, {"env_kwargs": {"colour": 1}}, "unexpected keyword argument 'colour'"),
        (lambda: 3, {}, "made a int, which is no gymnasium.Env"),
        ("no_such_module:Drift-v0", {}, "No module named 'no_such_module'"),
        ("CartPole-v1", {"env_kwargs": {"colour": 1}}, "unexpected keyword argument 'colour'"),
        (type("Said", (Drift,), {"action_space": Text(3)}), {}, "want boxes, discrete spaces"),
        (type("None", (Drift,), {"action_space": gym.spaces.Tuple(())}), {}, "is empty"),
    ],
)
def test_what_cannot_work_is_one_clear_line(env, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        family(env, **options)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_sent_to_workers_is_a_usage_error():
    lock = threading.Lock()
    with pytest.raises(UsageError, match="cannot be sent to workers"):
        family(apply=lambda env, task: lock).make_env(1)


def test_render_gives_one_picture_an_environment():
    frames = (env := opened(family(workers=2), render_mode="rgb_array")).render()
    assert [int(frame[0, 0, 0]) for frame in frames] == [50, 50, 150, 150, 250]
    env.close()
    with pytest.raises(UsageError, match="cannot be rendered"):
        opened(family(vectorization="sync")).render()
    with pytest.raises(UsageError, match="takes no render_mode"):
        family(lambda: Drift(), vectorization="sync").make_env(1, render_mode="rgb_array")


# Failures -----------------------------------------------------------------------------------------------------------


def step_until_it_breaks(env):
    env.reset(seed=0)
    for _ in range(3):
        env.step(torch.zeros(env.num_envs, 2))


@pytest.mark.parametrize(
    ("drift", "error", "message"),
    [(1.0, KeyError, "no such joint"), (2.0, RuntimeError, "Stubborn: hard luck"), (3.0, RuntimeError, r"\[7\]")],
    ids=["raises", "raises what cannot be pickled", "dies"],
)
def test_a_failing_worker_ends_the_call_and_all_workers(drift, error, message):
    env = opened(family(Vicious, workers=2, env_kwargs={"length": 100}), (0.0, 0.0, drift))
    processes = list(env._pool.processes)
    with pytest.raises(error, match=message):
        step_until_it_breaks(env)
    assert not any(process.is_alive() for process in processes)
    env.close()
    env.close()
    with pytest.raises(UsageError, match="closed"):
        env.step(torch.zeros(3, 2))


def test_a_worker_that_hangs_is_named_and_ended():
    hanging = family(Hanging, workers=2, patience=0.5, env_kwargs={"length": 100})
    env = opened(hanging, (0.0, 0.0, 1.0))
    processes = list(env._pool.processes)
    with pytest.raises(
        EnvironmentFault, match=r"worker of environments 2 to 2 \(tasks 2 to 2\) gave no answer for 0.5 s"
    ):
        step_until_it_breaks(env)
    assert not any(process.is_alive() for process in processes)
    with pytest.raises(UsageError, match="patience must be a number of seconds above 0"):
        family(patience=0.0)


def test_closing_after_a_worker_was_killed_is_harmless():
    env = opened(family(workers=2))
    processes = list(env._pool.processes)
    processes[0].kill()
    processes[0].join()
    env.close()
    env.close()
    assert not any(process.is_alive() for process in processes)


def test_a_failure_here_is_the_exception_itself():
    env = opened(family(Vicious, vectorization="sync", env_kwargs={"length": 100}), (2.0,))
    with pytest.raises(Stubborn, match="hard luck"):
        step_until_it_breaks(env)
    env.close()


def test_a_failure_while_building_or_setting_tasks_comes_out():
    def no_robot():
        raise OSError("no robot here")

    distribution = family(spaces=(Box(-1, 1, (3,)), Drift.action_space), env=no_robot, workers=2)
    with pytest.raises(OSError, match="no robot here"):
        distribution.make_env(2)
    with pytest.raises(AttributeError, match="no_such_thing") as caught:
        opened(family(apply=lambda env, task: env.no_such_thing, workers=2))
    assert "raised by the function apply= of Drift-v0 (environment 0, task 0: {'drift': 0.5})" in caught.value.__notes__


def test_ctrl_c_leaves_workers_alone_and_stops_the_call():
    parent = os.getpid()

    class Interrupting(Drift):
        def step(self, action):
            if self.time == 2 and self.drift == 1:
                os.kill(parent, signal.SIGINT)
                time.sleep(3600)
            return super().step(action)

    env = opened(family(Interrupting, workers=2, env_kwargs={"length": 100}), (0.0, 1.0))
    processes = list(env._pool.processes)
    for process in processes:
        os.kill(process.pid, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        step_until_it_breaks(env)
    env.close()
    assert not any(process.is_alive() for process in processes)


def test_a_script_needs_no_main_guard_and_sees_its_traceback(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import gymnasium as gym, torch, traceback\n"
        "from metarl.envs.gymnasium_env import GymnasiumDistribution\n"
        "print('started')\n"
        "class Trouble(Exception): pass\n"
        "def apply(env, task):\n"
        "    if task['g'] < 0: raise Trouble('negative')\n"
        "d = GymnasiumDistribution('G', 'CartPole-v1', parameters={'g': (-1, 10)}, apply=apply, workers=2)\n"
        "env = d.make_env(2)\n"
        "env.set_tasks(d.task(g=3).repeat_interleave(2))\n"
        "print(tuple(env.reset(seed=0)[0].shape))\n"
        "try: env.set_tasks(d.task(g=-1).repeat_interleave(2))\n"
        "except Trouble as error: print('caught', error), traceback.print_exc()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=900)
    assert done.stdout.split("\n") == ["started", "(2, 4)", "caught negative", ""]
    assert "in apply" in done.stderr  # the worker's traceback
    assert "Trouble: negative" in done.stderr
    assert done.returncode == 0


# State --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "id", ["Ant-v5", "Hopper-v5", "Humanoid-v5", "CartPole-v1", "Acrobot-v1", "MountainCarContinuous-v0"]
)
def test_a_restored_state_repeats_its_steps_exactly(id):
    distribution = GymnasiumDistribution(
        id, id, parameters={"none": (0, 1)}, apply=lambda env, task: None, vectorization="sync", horizon=12
    )
    generator = torch.Generator().manual_seed(0)
    one, other = (distribution.make_env(3, seed=seed) for seed in (0, 1))
    tasks = distribution.sample(3, seed=0)
    for env in (one, other):
        env.set_tasks(tasks)
    space = distribution.action_space

    def act():
        if isinstance(space, Discrete):
            return torch.randint(0, int(space.n), (3,), generator=generator)
        return 2 * torch.rand(3, *space.shape, generator=generator) - 1

    one.reset(seed=5)
    for _ in range(8):
        one.step(act())
    state = one.get_state()
    actions = [act() for _ in range(10)]  # beyond the end of the episode at 12 steps, and so through a reset
    expected = [one.step(action) for action in actions]
    for env in (other, one):  # one that has never been reset, and the one itself
        env.set_state(state)
        for action, (obs, reward, terminated, truncated, info) in zip(actions, expected, strict=True):
            found = env.step(action)
            assert torch.equal(found[0], obs)
            assert torch.equal(found[1], reward)
            assert torch.equal(found[2], terminated)
            assert torch.equal(found[3], truncated)
            assert torch.equal(found[4]["final_obs"], info["final_obs"])
    assert any(step[3].any() for step in expected)


def test_a_family_of_ones_own_can_open_its_state():
    def write(env, state):
        env.unwrapped.place, env.unwrapped.time = state["place"], int(state["time"])

    access = (lambda env: {"place": env.unwrapped.place, "time": env.unwrapped.time}, write)
    env = opened(family(state=access, workers=2))
    env.reset(seed=0)
    env.step(torch.zeros(B, 2))
    state = env.get_state()
    assert state["place"].shape == (B, 1, 2)
    steps = [env.step(torch.ones(B, 2))[0] for _ in range(6)]
    env.set_state(state)
    for expected in steps:
        assert torch.equal(env.step(torch.ones(B, 2))[0], expected)
    with pytest.raises(UsageError, match="not the state of 5"):
        env.set_state({name: value[:2] for name, value in state.items()})
    env.close()


def test_a_hidden_state_is_a_usage_error():
    env = opened(family(vectorization="sync"))
    env.reset(seed=0)
    with pytest.raises(UsageError, match="does not offer its state"):
        env.get_state()
    with pytest.raises(UsageError, match="does not offer its state"):
        env.set_state({})


@pytest.mark.skipif(
    not any(map(ctypes.util.find_library, ("EGL", "OSMesa"))), reason="neither libEGL nor libOSMesa is installed"
)
def test_mujoco_draws_without_a_screen(monkeypatch):
    for name in ("MUJOCO_GL", "DISPLAY", "PYOPENGL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    options = {"parameters": {"x": (0.0, 1.0)}, "apply": lambda env, task: None, "horizon": 3}
    env = GymnasiumDistribution("Hopper-v0", "Hopper-v5", **options).make_env(1, render_mode="rgb_array")
    env.set_tasks(env.distribution.sample(1, seed=0))
    env.reset(seed=0)
    (picture,) = env.render()
    assert picture.std() > 5
    env.close()


def test_a_missing_renderer_is_a_line_with_the_package():
    if importlib.util.find_spec("pygame") is not None:
        pytest.skip("pygame is installed")
    options = {"parameters": {"x": (0.0, 1.0)}, "apply": lambda env, task: None, "vectorization": "sync"}
    env = GymnasiumDistribution("Cart-v0", "CartPole-v1", **options).make_env(1, render_mode="rgb_array")
    env.set_tasks(env.distribution.sample(1, seed=0))
    env.reset(seed=0)
    with pytest.raises(RenderingUnavailable, match=r"CartPoleEnv.render failed: pygame .*pip install"):
        env.render()
