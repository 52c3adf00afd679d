"""What a command shows of warnings, in a process of its own: pytest keeps those of this one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

OWN = """
import warnings

import gymnasium as gym
import numpy as np

import metarl


class Arm(gym.Env):
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        gym.logger.warn("the arm starts %s", "cold")
        return np.zeros(2, np.float32), {}

    def step(self, action):
        warnings.warn("the arm is\\nnear its limit")
        return np.zeros(2, np.float32), 0.0, False, False, {"success": False}


def arms(vectorization="async"):
    return metarl.GymnasiumDistribution(
        "Arms-v0",
        Arm,
        parameters={"load": (0.0, 1.0)},
        apply=lambda env, task: setattr(env.unwrapped, "load", task["load"]),
        horizon=5,
        workers=2,
        vectorization=vectorization,
    )
"""
LINES = [
    "metarl: warning: the arm starts cold",
    "metarl: warning: the arm is near its limit",
    "metarl: warning: Arms-v0: info tells success under 'success' or 'is_success', which is not read: "
    "say has_success=True",
]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    (folder / "arms.py").write_text(OWN)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def train(vectorization: str) -> list[str]:
    options = ["--iterations", "1", "--num-tasks", "2", "--envs-per-task", "2"]
    return ["train", "random", "--env", "arms:arms", "--env-options", f"vectorization={vectorization}", *options]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_warning_is_one_plain_line_wherever_it_comes_from(vectorization: str, tmp_path: Path):
    done = run(tmp_path, str(Path(sys.executable).with_name("metarl")), *train(vectorization))
    assert done.returncode == 0, done.stderr
    shown = [line for line in done.stderr.splitlines() if "iteration" not in line]
    assert sorted(shown) == sorted(LINES)


def test_in_python_warnings_stay_as_they_are(tmp_path: Path):
    code = "import arms, metarl; metarl.train(metarl.TrainConfig('random', arms.arms, iterations=1), progress=False)"
    done = run(tmp_path, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "arms.py:20: UserWarning: the arm is\nnear its limit\n" in done.stderr
    assert "metarl: warning" not in done.stderr
