"""What the command line shows of an exception in the user's code: their frames, and a line with the place."""

import sys
from pathlib import Path

import pytest
import torch

import metarl
import metarl.scripts.envs
from metarl.own_frames import RemoteTraceback, own_traceback
from metarl.scripts.cli import main

OWN = """
import gymnasium as gym
import numpy as np
import torch

import metarl
from metarl.envs.native.base import NativeDistribution


def turn(joint):
    try:
        return {"shoulder": 0}[joint]
    except KeyError as error:
        raise LookupError(f"no joint {joint}") from error


class Arm(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    load, time = 0.0, 0

    def __init__(self, where):
        self.where = where
        if where == "init":
            turn("in init")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        if self.where == "reset":
            turn("in reset")
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.time += 1
        if self.where == "step" and self.load > 0.5 and self.time == 3:
            turn("in step")
        return np.zeros(2, np.float32), 0.0, False, False, {}


class Heavy(gym.Wrapper):
    def __init__(self, env):
        super().__init__(env)
        turn("in wrapper")


def apply(env, task):
    if env.unwrapped.where == "apply":
        turn("in apply")
    env.unwrapped.load = task["load"]


def arms(where, vectorization):
    return metarl.GymnasiumDistribution(
        "Arms-v0",
        Arm,
        parameters={"load": {"train": [0.6, 0.75], "test": [0.9]}},
        env_kwargs={"where": where},
        wrappers=[Heavy] if where == "wrapper" else [],
        apply=apply,
        horizon=5,
        spaces=(Arm.observation_space, Arm.action_space),
        workers=2,
        vectorization=vectorization,
    )


class Cart(NativeDistribution):
    def __init__(self, where="transition"):
        self.id, self.horizon, self.where = "Cart-v0", 5, where
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.task_space = {"wind": gym.spaces.Box(-0.5, 0.5, (), np.float32)}

    def _sample(self, num_tasks, split, generator):
        if self.where == "sample":
            turn("in sample")
        return {"wind": torch.rand(num_tasks, generator=generator) - 0.5}

    def initial_state(self, streams, task):
        return {"place": streams.uniform(1)}

    def transition(self, state, action, streams, task):
        if self.where == "transition":
            turn("in transition")
        place = state["place"] + action
        return {"place": place}, -place[:, 0], torch.zeros(len(place), dtype=torch.bool)

    def observe(self, state):
        return state["place"]
"""
PLACES = {
    "init": "raised as environment 0 of Arms-v0 was made",
    "reset": r"raised by Arm.reset (environment 0, task 0 of Arms-v0: {'load': 0.6})",
    "step": r"of Arms-v0: {'load': 0.6}), in step 3 of an episode",
    "apply": r"raised by the function apply= of Arms-v0 (environment 0, task 0: {'load': 0.6})",
    "wrapper": "Arms-v0: the wrapper Heavy raised LookupError: no joint in wrapper",
}
SMALL = ("--iterations", "1", "--num-tasks", "4", "--envs-per-task", "1", "--output", "run")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_arms.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_arms", raising=False)


def assert_own(shown: str, where: str, place: str) -> None:
    """Whether `shown` is of the user's frames and one line."""
    *frames, last = shown.rstrip().split("\n")
    assert last.startswith("metarl: error: ")
    assert place in last
    files = {line.split('"')[1] for line in frames if line.startswith("  File ")}
    assert {Path(file).name for file in files if "jaxtyping" not in file} == {"own_arms.py"}  # which tests alone have
    assert f'    turn("in {where}")' in frames
    assert f"LookupError: no joint in {where}" in frames
    assert f"KeyError: 'in {where}'" in frames, "its cause"


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("where", PLACES)
def test_an_error_in_an_environment_shows_its_own_frames_and_its_place(where: str, vectorization: str, capfd):
    options = [f"where={where}", f"vectorization={vectorization}"]
    code = main(["train", "random", "--env", "own_arms:arms", "--env-options", *options, *SMALL])
    shown = "\n".join(line for line in capfd.readouterr().err.split("\n") if not line.startswith("stopped "))
    assert_own(shown, where, PLACES[where])
    assert code == (2 if where == "wrapper" else 1)
    assert ("METARL_TRACEBACK=1" in shown) == (code == 1)


@pytest.mark.parametrize(
    ("where", "place"),
    [
        (
            "transition",
            "raised by NativeEnv.step (4 environments of Cart-v0, 4 tasks, together), 1 steps after a reset",
        ),
        ("sample", "raised by code of yours"),
    ],
)
def test_so_does_one_in_a_family_of_ones_own(where: str, place: str, capsys):
    assert main(["train", "random", "--env", "own_arms:Cart", "--env-options", f"where={where}", *SMALL]) == 1
    shown = "\n".join(line for line in capsys.readouterr().err.split("\n") if not line.startswith("stopped "))
    assert_own(shown, where, place)


def test_a_check_shows_the_frames_of_what_crashed(capsys):
    assert main(["check", "own_arms:Cart"]) == 1
    shown = capsys.readouterr().err
    assert '    turn("in transition")' in shown
    assert "metarl/" not in shown
    assert "run: expected no crash, found LookupError: no joint in transition (raised by NativeEnv.step" in shown


@pytest.mark.parametrize("text", ["import no_such_package", "def family(:", "1 / 0"])
def test_a_module_that_cannot_be_imported_shows_where(text: str, tmp_path: Path, capsys):
    (tmp_path / "own_broken.py").write_text(f"# mine\n{text}\n")
    assert main(["check", "own_broken:family"]) == 1
    shown = capsys.readouterr().err
    assert 'own_broken.py", line 2' in shown
    assert "metarl/" not in shown
    assert "importlib" not in shown
    assert shown.rstrip().split("\n")[-1].startswith("metarl: error: raised by code of yours")


def test_all_frames_are_there_on_request(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METARL_TRACEBACK", "1")
    with pytest.raises(LookupError):
        main(["train", "random", "--env", "own_arms:Cart", "--env-options", "where=sample", *SMALL])


def test_in_python_an_error_of_a_worker_keeps_its_traceback():
    sys.path.append(str(Path.cwd()))
    family = metarl.make("own_arms:arms", where="step", vectorization="async")
    env = family.make_env(2)
    env.set_tasks(family.task(load=0.75).repeat_interleave(2))
    env.reset(seed=0)
    with pytest.raises(LookupError, match="no joint in step") as caught:
        for _ in range(3):
            env.step(torch.zeros(2, dtype=torch.int64))
    cause = caught.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert "KeyError: 'in step'" in str(cause)
    assert "gymnasium_worker.py" in str(cause)
    assert own_traceback(caught.value) == cause.own


def test_an_error_of_ours_is_shown_whole(monkeypatch: pytest.MonkeyPatch):
    """Its frames are for us."""
    monkeypatch.setattr(metarl.scripts.envs, "list_distributions", None)
    with pytest.raises(TypeError, match="not callable"):
        main(["envs"])
