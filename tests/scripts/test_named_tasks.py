"""The commands on a family whose tasks have names and separate splits."""

import sys
from pathlib import Path

import pytest

import metarl
from metarl.scripts.cli import main

FAMILY = """
from metarl.envs.gymnasium_env import GymnasiumDistribution

GRAVITY = {"moon": 1.6, "earth": 9.8, "mars": 3.7}

def set_planet(env, task):
    env.unwrapped.g = GRAVITY[task["planet"]]

def planets():
    splits = {"train": ["moon", "earth"], "test": ["mars"]}
    return GymnasiumDistribution(
        "Planets-v0", "Pendulum-v1", parameters={"planet": splits}, apply=set_planet, vectorization="sync", horizon=5
    )
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    (tmp_path / "my_planets.py").write_text(FAMILY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_planets", None)
    assert main(["train", "random", "--env", "my_planets:planets", "--iterations", "1"]) == 0
    return capsys.readouterr().out.strip()


def test_a_task_is_named_on_the_command_line(run: str, capsys: pytest.CaptureFixture):
    assert main(["adapt", run, "--task", '{"planet": "mars"}', "--episodes", "2"]) == 0
    assert '{"planet": "mars"}' in capsys.readouterr().out
    assert main(["adapt", run, "--task", '{"planet": "pluto"}']) == 2
    assert "task parameter 'planet': want one of 'moon', 'earth', 'mars', got 'pluto'" in capsys.readouterr().err


def test_evaluation_uses_the_test_tasks(run: str, tmp_path: Path):
    assert main(["evaluate", run, "--tasks", "2", "--json", str(tmp_path / "result.json")]) == 0
    tasks = metarl.Evaluation.from_json((tmp_path / "result.json").read_text()).tasks
    assert metarl.load_run(run).distribution.task_values(tasks) == [{"planet": "mars"}] * 2
