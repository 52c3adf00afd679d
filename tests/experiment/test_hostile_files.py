"""Files that others have changed: every answer is one line of the project's own, and nothing is run or written."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hostile_files import ATTACKS, LONGEST_LINE
from run_helpers import config

import metarl
from metarl.evaluation import Evaluation
from metarl.experiment.config_file import read_entries
from metarl.experiment.evaluation_file import check_agent_evaluation, check_learner_evaluation
from metarl.experiment.metrics import read_any_metrics
from metarl.experiment.run_folder import experiment_of
from metarl.parsing import parse_json, parse_yaml
from metarl.scripts.cli import main
from metarl.tasks import Tasks

MANY = int(os.environ.get("METARL_FUZZ", "100000"))
"""Inputs for each reader in the slow test."""
FEW = {"config": 60, "report": 60}
CORPUS = Path(__file__).with_name("corpus")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = {"num_tasks": 2, "envs_per_task": 2, "hidden": (4,)}
    made = config(tmp_path_factory.mktemp("runs") / "run", agent="maml", agent_options=options, iterations=6)
    return metarl.train(made, progress=False)


def attack(run: Path, folder: Path, first_seed: int, counts: Mapping[str, int]) -> str:
    """What went wrong. It runs in a process of its own, as users run it: without the type checks of the tests."""
    program = str(Path(__file__).with_name("hostile_files.py"))
    families = [f"{name}={count}" for name, count in counts.items()]
    command = [sys.executable, program, str(run), str(first_seed), *families]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_changed_files_are_answered_in_one_line(trained: Path, tmp_path: Path):
    counts = {name: FEW.get(name, 200) for name in ATTACKS}
    assert attack(trained, tmp_path, 0, counts) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_very_many_changed_files_are_answered_in_one_line(name: str, trained: Path, tmp_path: Path):
    assert attack(trained, tmp_path, 10**6, {name: MANY}) == ""


BOMBS = {
    "aliases": "a: &a [x, x]\n" + "".join(f"{c}: &{c} [*{b}, *{b}, *{b}, *{b}]\n" for b, c in pairwise("abcdefghijk")),
    "itself": "a: &a [*a]",
    "deep": "[" * 3000,
    "deep blocks": "".join(" " * i + "a:\n" for i in range(500)),
    "a date that is none": "a: 2001-99-99\nb: 0b2\nc: !!timestamp 2001-99-99",
    "an object": "!!python/object/apply:os.system ['touch owned']",
    "bytes": "a: !!binary aGk=",
    "a set": "a: !!set {b}",
    "a key that is a list": "? [1]\n: 2",
    "a number as a key": "1: 2",
    "too long": "#" * 5_000_000,
    "a huge number": "a: " + "9" * 10_000,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS.keys())
def test_bombs_of_yaml_are_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(metarl.UsageError, match=r"config\.yaml is damaged") as caught:
        parse_yaml(text, "config.yaml")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_plain_yaml_is_what_it_always_was():
    text = "a: [1, 2.5, x, null, true, .nan]\nb: &b {c: 'y'}\nd: *b\ne: 2020-01-01"
    value = parse_yaml(text, "")
    assert value["a"][:5] == [1, 2.5, "x", None, True]
    assert (value["d"], value["e"]) == ({"c": "y"}, "2020-01-01")


def test_deep_json_is_refused():
    for text in ("[" * 5000 + "]" * 5000, "[" * 200 + "]" * 200, "9" * 5000, b"\xff\xfe{"):
        with pytest.raises(metarl.UsageError, match="file is damaged"):
            parse_json(text, "file")


@pytest.mark.parametrize("text", ['{"a": 1, "b": {"c": 1, "c": 2}}', '{"b": 1, "c": 2, "c": 2}'])
def test_an_entry_that_is_there_twice_is_refused(text: str):
    """The parsers would keep the last without a word."""
    for parse in (parse_yaml, parse_json):
        with pytest.raises(metarl.UsageError, match="file names 'c' twice"):
            parse(text, "file")


def read(path: Path, folder: Path) -> None:
    """Reads a file of the corpus as the file that its name begins with."""
    kind = path.name.partition("-")[0]
    if kind == "tasks":
        metarl.make("PointNavigation-v0").validate(Tasks.from_json(path.read_text()))
    elif kind == "evaluation":
        Evaluation.from_json(path.read_text())
    elif kind == "metrics":
        shutil.copy(path, folder / "metrics.jsonl")
        read_any_metrics(folder)
    elif kind == "config":
        shutil.copy(path, folder / "config.yaml")
        experiment_of(folder, read_entries(folder), None, {})
    else:
        parse = check_agent_evaluation if kind == "agent" else check_learner_evaluation
        parse(json.loads(path.read_text()), path.name)


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.stem)
def test_what_was_once_mistaken_is_refused(path: Path, tmp_path: Path):
    """Files for which a reader has let a foreign exception out, or done what they said."""
    with pytest.raises(metarl.UsageError) as caught:
        read(path, tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < LONGEST_LINE


def test_paths_nested_without_end_are_refused_by_the_report(trained: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "paths.json").write_text("[" * 100_000)
    assert main(["report", "run"]) == 2
    assert "paths.json is damaged" in capsys.readouterr().err


def test_a_name_from_a_file_is_escaped_in_the_report(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):

    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(trained, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    hostile = json.dumps("<script>alert(1)</script>|[x](y)\x1b[2J$\\frac$[/red]../..")
    (run / "config.yaml").write_text(text.replace("env: PointNavigation-v0", f"env: {hostile}"))
    assert main(["report", "run"]) == 0
    page = (tmp_path / "report" / "report.md").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "[x](y)" not in page
    assert "<script>alert" not in (tmp_path / "report" / "report.html").read_text()
    assert "\x1b" not in page + capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "run"]
