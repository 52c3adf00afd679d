"""Mistakes get exactly one line on stderr and exit code 2, and leave nothing behind."""

import sys
from pathlib import Path

import pytest

from metarl.scripts.cli import main

POINT = ("train", "random", "--env", "PointNavigation-v0")
MAML = ("train", "maml", "--env", "PointNavigation-v0")
MISTAKES = {
    "a command": (("trian",), "did you mean train"),
    "a command of few-shot learning": (("predict", "RUN"), "did you mean fewshot predict"),
    "an environment": (("train", "random", "--env", "PointNavgation-v0"), "did you mean PointNavigation-v0"),
    "no environment": (("train", "random"), "missing: --env"),
    "an agent": (("train", "mmal", "--env", "PointNavigation-v0"), "did you mean maml"),
    "no agent": (("train", "--env", "PointNavigation-v0"), "name the agent first"),
    "a flag": ((*POINT, "--itrations", "3"), "unknown option --itrations; did you mean --iterations"),
    "a part of a flag": ((*MAML, "--fraction", "3"), "did you mean --curvature-fraction"),
    "a flag of another agent": ((*POINT, "--inner-lr", "0.1"), "unknown option --inner-lr"),
    "a word too many": ((*POINT, "now"), "now"),
    "a flag without value": (("train", "random", "--env"), "--env"),
    "no number": ((*POINT, "--iterations", "three"), "--iterations cannot be 'three': want a whole number"),
    "a number of steps in powers of ten": ((*POINT, "--steps", "1e5"), "--steps cannot be '1e5': want a whole number"),
    "no whole number": ((*POINT, "--checkpoint-every", "2.5"), "--checkpoint-every cannot be '2.5': want a whole"),
    "no real number": ((*POINT, "--max-hours", "long"), "--max-hours cannot be 'long': want a number"),
    "an option of the family": ((*POINT, "--horizon", "30"), "is given by --env-options horizon=..."),
    "no float": ((*MAML, "--inner-lr", "fast"), "fast"),
    "a choice": ((*MAML, "--outer", "sac"), "'trpo'"),
    "zero iterations": ((*POINT, "--iterations", "0"), "iterations must be"),
    "negative steps": ((*POINT, "--steps", "-4"), "steps must be"),
    "zero tasks": ((*POINT, "--num-tasks", "0"), "num_tasks must be"),
    "a device": ((*POINT, "--device", "cuda:77"), "is not there"),
    "a backend": ((*POINT, "--backend", "warp"), "no backend 'warp'"),
    "an option of the environment": ((*POINT, "--env-options", "horizn=3"), "horizn"),
    "no KEY=VALUE": ((*POINT, "--env-options", "horizon"), "KEY=VALUE"),
    "no run": (("evaluate", "nowhere"), "there is no run folder"),
    "no run to resume": (("resume", "nowhere"), "there is no run folder"),
    "no argument": (("resume",), "missing: RUN"),
    "no module": (("check", "no_such_module:Thing"), "there is no module"),
    "no name": (("check", "json:JSONDecodr"), "JSONDecoder"),
    "a benchmark": (("benchmark", "nothing"), "unknown benchmark 'nothing'; there are before, copy"),
    "nearly a benchmark": (("benchmark", "rolout"), "unknown benchmark 'rolout'; did you mean rollout?"),
    "no distribution": (("check", "json:JSONDecoder"), "is no TaskDistribution"),
    "no colon": (("check", "json"), "MODULE:NAME"),
    "no module of an environment": (("train", "random", "--env", "no_such_module:A"), "there is no module"),
    "no name of an environment": (("train", "random", "--env", "json:JSONDecodr"), "did you mean JSONDecoder"),
    "a name that is no environment": (("train", "random", "--env", "json:JSONDecoder"), "is no TaskDistribution"),
    "no module of an agent": (("train", "no_such_module:A", "--env", "Bandit-v0"), "there is no module"),
    "a name that is no agent": (("train", "json:JSONDecoder", "--env", "Bandit-v0"), "is no agent: want a subclass"),
    "half a name": (("train", "json:", "--env", "Bandit-v0"), "not of the form MODULE:NAME"),
}


def assert_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("metarl: error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_gets_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert_one_line(list(arguments), message, capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_its_module_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "cars").mkdir()
    (tmp_path / "cars" / "fast.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    assert_one_line(["check", "cars/fast.py:family"], "cars/fast.py is a file, its module is cars.fast", capsys)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on `point` and one on `bandit`."""
    folder = tmp_path_factory.mktemp("runs")
    for env, name in (("PointNavigation-v0", "point"), ("Bandit-v0", "bandit")):
        arguments = ["--iterations", "1", "--num-tasks", "2", "--envs-per-task", "2", "--output", str(folder / name)]
        assert main(["train", "random", "--env", env, *arguments]) == 0
    return folder


RUN_MISTAKES = {
    "no JSON": (("adapt", "point", "--task", "{goal: 3}"), "neither a file nor the JSON"),
    "a parameter twice": (("adapt", "point", "--task", '{"goal": [0, 0], "goal": [0.1, 0]}'), "names 'goal' twice"),
    "JSON that is no task": (("adapt", "point", "--task", "[0.1, 0.2]"), "neither a file nor the JSON"),
    "no such file": (("adapt", "point", "--task", "task.json"), "neither a file nor the JSON"),
    "a wrong name": (("adapt", "point", "--task", '{"gaol": [0.1, 0.2]}'), "no task parameter 'gaol'"),
    "a missing name": (("adapt", "point", "--task", "{}"), "'goal' is missing"),
    "a wrong shape": (("adapt", "point", "--task", '{"goal": [0.1]}'), "shape (2,)"),
    "a wrong type": (("adapt", "point", "--task", '{"goal": "left"}'), "shape (2,)"),
    "NaN": (("adapt", "point", "--task", '{"goal": [NaN, 0]}'), "out of range"),
    "out of range": (("adapt", "point", "--task", '{"goal": [0.1, 7]}'), "out of range"),
    "zero episodes": (("adapt", "point", "--task", '{"goal": [0, 0]}', "--episodes", "0"), "number of episodes"),
    "no film format": (("adapt", "point", "--task", '{"goal": [0, 0]}', "--video", "a.gif"), ".mp4"),
    "no folder for the film": (("adapt", "point", "--task", '{"goal": [0, 0]}', "--video", "x/a.mp4"), "no folder"),
    "a family without pictures": (
        ("adapt", "bandit", "--task", '{"probabilities": [0, 0, 0, 0, 1]}', "--video", "a.mp4"),
        "cannot be rendered",
    ),
    "an option given twice": (
        ("evaluate", "point", "--env-options", "horizon=5", "--env-options", "horizon=6"),
        "--env-options is given twice: give all its values at once",
    ),
    "a value given twice": (("evaluate", "point", "--env-options", "horizon=5", "horizon=6"), "horizon is given twice"),
    "a number given twice": (("evaluate", "point", "--tasks", "3", "--tasks=4"), "--tasks is given twice"),
    "zero test tasks": (("evaluate", "point", "--tasks", "0"), "number of tasks"),
    "a split": (("evaluate", "point", "--split", "validation"), "'test'"),
    "a protocol": (("evaluate", "point", "--protocol", "metaworld"), "has no protocol 'metaworld'"),
    "other spaces": (("evaluate", "point", "--env", "Bandit-v0"), "the agent was trained for"),
    "no folder for the result": (("evaluate", "point", "--json", "nowhere/a.json"), "no folder"),
    "a device": (("evaluate", "point", "--device", "cuda:77"), "is not there"),
    "a folder of runs": (("report", "."), ". is no run folder: it has no config.yaml, but holds one: bandit"),
    "a taken output": ((*POINT, "--output", "point"), "already holds a run"),
}


@pytest.mark.parametrize(("arguments", "message"), RUN_MISTAKES.values(), ids=RUN_MISTAKES.keys())
def test_a_mistake_about_a_run_gets_one_line(
    arguments: tuple[str, ...], message: str, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(runs)
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    assert_one_line(list(arguments), message, capsys)
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before
