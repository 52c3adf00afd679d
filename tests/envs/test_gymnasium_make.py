"""Ids, specifications, factories and wrappers: whatever `gymnasium.make` makes, a family is made of, in workers too."""

import subprocess
import sys

import gymnasium as gym
import pytest
import torch
from drift import Drift, set_drift
from gymnasium.envs.registration import WrapperSpec
from gymnasium.spaces import Box
from plain import Doubled, Plain, Refusing

from metarl import UsageError
from metarl.envs.gymnasium_env import GymnasiumDistribution

SYNC = {"vectorization": "sync"}
WORKERS = {"workers": 2}


@pytest.fixture
def register():
    """Registers for one test."""
    before = dict(gym.registry)
    yield gym.register
    gym.registry.clear()
    gym.registry.update(before)


def family(env, **options):
    options = {"parameters": {"drift": (0.0, 4.0)}, "apply": set_drift} | options
    return GymnasiumDistribution("Drifts-v0", env, **options)


def first_step(distribution, drifts=(1.0, 2.0)):
    env = distribution.make_env(len(drifts))
    env.set_tasks(distribution.task(drift=drifts[0]).repeat_interleave(len(drifts)))
    env.reset(seed=0)
    step = env.step(torch.zeros(len(drifts), dtype=torch.int64))
    env.close()
    return step


@pytest.mark.parametrize("entry", [Plain, Refusing, lambda: Plain()], ids=["class", "refuses None", "function"])
def test_a_registered_class_works_without_render_mode(register, entry):
    register("Drift-v0", entry_point=entry, max_episode_steps=10)
    distribution = family("Drift-v0", **SYNC)
    assert distribution.horizon == 10
    assert first_step(distribution)[0].tolist() == [[1.0], [1.0]]


def test_workers_know_what_was_registered_here(register):
    """By id, with a namespace and wrappers, and inside of factories."""
    wrapper = WrapperSpec("Doubled", "plain:Doubled", {"factor": 3})
    register("mine/Drift-v3", entry_point=Plain, max_episode_steps=10, additional_wrappers=(wrapper,))
    distribution = family("mine/Drift-v3", **WORKERS)
    assert distribution.horizon == 10
    assert first_step(distribution)[0].tolist() == [[3.0], [3.0]]
    inside = family(
        lambda: gym.wrappers.TransformReward(gym.make("mine/Drift-v3"), lambda reward: 7 * reward), **WORKERS
    )
    observations, rewards, *_ = first_step(inside)
    assert (observations.tolist(), rewards.tolist()) == ([[3.0], [3.0]], [7.0, 7.0])


def test_a_script_registers_its_own_classes(tmp_path):
    """The entry point, a wrapper and a class named by a string live in `__main__`, which a worker does not have."""
    script = tmp_path / "script.py"
    script.write_text(
        "import gymnasium as gym, numpy as np, torch\n"
        "from gymnasium.envs.registration import WrapperSpec\n"
        "from metarl.envs.gymnasium_env import GymnasiumDistribution\n"
        "class Own(gym.Env):\n"
        "    observation_space = gym.spaces.Box(-9, 9, (1,)); action_space = gym.spaces.Discrete(2); drift = 0.0\n"
        "    def reset(self, *, seed=None, options=None): return np.zeros(1, np.float32), {}\n"
        "    def step(self, action): return np.full(1, self.drift, np.float32), 0.0, False, False, {}\n"
        "class Twice(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):\n"
        "    def __init__(self, env):\n"
        "        gym.utils.RecordConstructorArgs.__init__(self)\n"
        "        gym.ObservationWrapper.__init__(self, env)\n"
        "    def observation(self, observation): return 2 * observation\n"
        "twice = (WrapperSpec('Twice', '__main__:Twice', {}),)\n"
        "gym.register('Class-v0', entry_point=Own, max_episode_steps=5)\n"
        "gym.register('String-v0', entry_point='__main__:Own', max_episode_steps=5, additional_wrappers=twice)\n"
        "def apply(env, task):\n"
        "    assert isinstance(env.unwrapped, Own)\n"
        "    env.unwrapped.drift = task['drift']\n"
        "for id in ('Class-v0', 'String-v0'):\n"
        "    d = GymnasiumDistribution('Own', id, parameters={'drift': (0, 4)}, apply=apply, workers=1)\n"
        "    env = d.make_env(1)\n"
        "    env.set_tasks(d.task(drift=2))\n"
        "    env.reset()\n"
        "    print(env.step(torch.zeros(1, dtype=torch.int64))[0].tolist())\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=900)
    assert (done.stdout.split("\n"), done.stderr) == (["[[2.0]]", "[[4.0]]", ""], "")


@pytest.mark.parametrize(
    ("id", "horizon"),
    [("gymnasium.envs.classic_control:Pendulum-v1", 200), ("CartPole", 500), (gym.spec("CartPole-v1"), 500)],
    ids=["module:Id", "latest version", "specification"],
)
def test_everything_that_make_accepts(id, horizon):
    assert family(id, **SYNC).horizon == horizon


def test_the_time_limit_is_the_familys(register):
    register("Drift-v0", entry_point=Plain, max_episode_steps=4, kwargs={"limit": 6})
    for horizon, expected in ((None, 4), (5, 5), (9, 6)):  # the last by the environment's own limit
        distribution = family("Drift-v0", horizon=horizon, **SYNC)
        env = distribution.make_env(1)
        env.set_tasks(distribution.task(drift=1))
        env.reset()
        ends = [bool(env.step(torch.zeros(1, dtype=torch.int64))[3]) for _ in range(6)]
        assert ends.index(True) + 1 == expected


def test_a_wrapper_may_hold_the_limit():
    assert family(lambda: gym.wrappers.TimeLimit(Plain(), 17), **SYNC).horizon == 17
    assert family(Plain, wrappers=[lambda env: gym.wrappers.TimeLimit(env, 18)], **SYNC).horizon == 18
    assert family("CartPole-v1", env_kwargs={"max_episode_steps": 19}, **SYNC).horizon == 19


@pytest.mark.parametrize("env", ["Blackjack-v1", Plain])
def test_without_a_known_limit_it_is_a_thousand_steps_with_a_warning(env):
    with pytest.warns(UserWarning, match=r"Drifts-v0: no time limit .* 1000 steps: pass horizon=") as caught:
        assert family(env, **SYNC).horizon == 1000
    assert len(caught) == 1


def test_wrappers_are_applied_in_their_order():
    doubled = family(Plain, wrappers=[Doubled, lambda env: Doubled(env, 5)], horizon=3, **SYNC)
    assert first_step(doubled)[0].tolist() == [[10.0], [10.0]]


def test_wrappers_leave_out_what_no_network_reads():
    class Talking(Plain):
        observation_space = gym.spaces.Dict(place=Box(-9, 9, (1,)), words=gym.spaces.Text(5))

        def reset(self, *, seed=None, options=None):
            return {"place": super().reset(seed=seed)[0], "words": "go"}, {}

        def step(self, action):
            place, *rest = super().step(action)
            return {"place": place, "words": "on"}, *rest

    with pytest.raises(UsageError, match="FilterObservation") as caught:
        family(Talking, horizon=3)
    advice = str(caught.value).split("wrappers=")[1]
    wrappers = eval(advice, {"gymnasium": gym})
    for vectorization in (SYNC, WORKERS):
        silent = family(Talking, horizon=3, wrappers=wrappers, **vectorization)
        assert first_step(silent)[0].tolist() == [[1.0], [1.0]]


def test_an_environment_that_needs_arguments_gets_them():
    class Needy(Plain):
        def __init__(self, size):
            super().__init__()

    with pytest.raises(UsageError, match=r"Needy: missing a required argument: 'size': pass .* env_kwargs"):
        family(Needy, horizon=3)
    assert family(Needy, horizon=3, env_kwargs={"size": 3}, **SYNC).horizon == 3


def test_a_vector_environment_alone_cannot_be_made(register):
    register("Many-v0", vector_entry_point=lambda **kwargs: None)
    with pytest.raises(UsageError, match="entry_point is not specified"):
        family("Many-v0")


def test_a_missing_package_is_named_in_a_line(register):
    def needs_a_package():
        raise gym.error.DependencyNotInstalled("box2d is missing,\nrun `pip install gymnasium[box2d]`")

    register("Box-v0", entry_point=needs_a_package)
    for env in ("Box-v0", needs_a_package):
        with pytest.raises(UsageError, match=r"Drifts-v0: box2d is missing, run `pip install gymnasium\[box2d\]`"):
            family(env)


def test_a_constructors_own_error_is_its_own():
    class Broken(Plain):
        def __init__(self):
            raise ZeroDivisionError("in the constructor")

    with pytest.raises(ZeroDivisionError, match="in the constructor"):
        family(Broken)


def test_workers_see_the_environment_variables_of_now(monkeypatch):
    import os

    def make():
        env = Plain()
        env.observation_space = Box(-9, 9, (1,))
        env.drift = float(os.environ.get("DRIFT_OF_TODAY", 0))
        return env

    monkeypatch.setenv("DRIFT_OF_TODAY", "3")
    distribution = family(make, horizon=3, apply=lambda env, task: None, workers=1)
    assert first_step(distribution)[0].tolist() == [[3.0], [3.0]]


def test_rendering_is_refused_in_a_line(register):
    register("Drift-v0", entry_point=Plain, max_episode_steps=10)
    for env in ("Drift-v0", Plain):
        with pytest.raises(
            UsageError, match=r"Drifts-v0: this environment cannot be rendered: .* takes no render_mode"
        ):
            family(env, horizon=3, **SYNC).make_env(1, render_mode="rgb_array")


@pytest.mark.parametrize("vectorization", [SYNC, WORKERS], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("render", "message"),
    [
        (gym.error.DependencyNotInstalled("pygame is not installed,\nrun `pip install gymnasium`"), "pygame is not"),
        (OSError("no display"), "Dark.render failed: no display"),
        (None, "Dark.render returned NoneType"),
    ],
    ids=["package", "display", "nothing"],
)
def test_a_renderer_that_fails_says_so_in_a_line(render, message, vectorization):
    class Dark(Drift):
        def render(self):
            if render is not None:
                raise render

    distribution = family(Dark, horizon=3, **vectorization)
    env = distribution.make_env(1, render_mode="rgb_array")
    env.set_tasks(distribution.task(drift=1))
    env.reset()
    with pytest.raises(UsageError, match=message) as caught:
        env.render()
    assert "\n" not in str(caught.value)
    env.close()
