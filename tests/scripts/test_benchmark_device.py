"""`metarl benchmark device`: lines that end as they should, files that stay valid, and a rehearsal of the whole."""

import itertools
import json
import runpy
import sys
from pathlib import Path

import pytest

from metarl.scripts import benchmark_device, device_worker
from metarl.scripts.cli import main
from metarl.scripts.device_lines import FAMILIES, Line, figures_of, full_lines, rehearsal_lines, told
from metarl.scripts.device_worker import NotAvailable

ROOT = Path(__file__).parents[2]


def test_lines_have_names_of_their_own_and_measures_that_exist():
    for lines in (full_lines(None), rehearsal_lines(None)):
        assert len({line.name for line in lines}) == len(lines)
        assert {line.kind for line in lines} <= set(device_worker.MEASURES)
    counted = {line.name for line in rehearsal_lines(None) if line.counted}
    assert counted < {line.name for line in full_lines(None)}, "a rehearsal rehearses"


def test_all_families_that_warp_steps_are_precompiled_by_default():
    def envs(options):
        for value in options.values():
            yield from envs(value) if isinstance(value, dict) else [value]

    named = {value for line in full_lines(None) for value in envs(line.options) if isinstance(value, str)}
    assert set(FAMILIES) == {name for name in named if name.endswith(("-v0", "-v3"))} - {"PointNavigation-v0"}


def test_a_training_answers_each_iteration_and_the_whole():
    options = {"num_tasks": 2, "envs_per_task": 2}
    rows = list(device_worker.learning("cpu", "maml", "PointNavigation-v0", 2, agent_options=options))
    assert [row.get("iteration") for row in rows] == [1, 2, None]
    assert rows[-1]["whole"] == rows[-2]
    assert rows[1]["env_steps"] == 2 * 2 * 2 * 2 * 100  # iterations, collections, tasks, environments, steps
    assert figures_of("learning", rows)["iteration"] == 2
    assert "seconds_to_goal" not in figures_of("learning", rows)


def test_a_training_ends_at_its_goal(monkeypatch: pytest.MonkeyPatch):
    from metarl.experiment.agent_training import AgentTraining

    iterate = AgentTraining.iterate

    def improving(training: AgentTraining, iteration: int) -> dict:
        return {**iterate(training, iteration), "success_mean": iteration / 4}

    monkeypatch.setattr(AgentTraining, "iterate", improving)
    options = {"num_tasks": 1, "envs_per_task": 1}
    *rows, whole = device_worker.learning("cpu", "random", "PointNavigation-v0", 9, agent_options=options, until=0.75)
    assert len(rows) == 3
    assert whole["reached"]
    assert figures_of("learning", [*rows, whole])["seconds_to_goal"] == rows[-1]["seconds"]


def test_what_is_not_installed_is_said_in_words():
    with pytest.raises(NotAvailable, match="mtcworldmjx is not installed"):
        next(device_worker.peer("cpu", sys.executable, ["reach-v3"], 8, 5, 0.1))


def test_figures_are_those_of_the_best_size_and_of_both_ways():
    rows = [
        {"steps_per_second": 10.0, "num_envs": 8, "graph": "default"},
        {"steps_per_second": 30.0, "num_envs": 16, "graph": "default"},
        {"steps_per_second": 20.0, "num_envs": 16, "graph": "off"},
        {"num_envs": 32, "error": "out of memory"},
        {"quantity": "rewards", "max_error": 0.5},
    ]
    assert figures_of("family", rows) == {
        "steps_per_second": 30.0,
        "steps_per_second_worlds": 16,
        "steps_per_second_without_graph": 20.0,
        "steps_per_second_without_graph_worlds": 16,
        "max_error_rewards": 0.5,
    }
    assert told({"steps_per_second": 12345.6, "solved": 0.96}) == "steps per second 12,346, solved 0.96"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "famly"], "there is no such line; did you mean"),
        (["--minutes", "0"], "minutes must be"),
        (["--json", "."], "exists: name a folder"),
        (["--json", "new", "--device", "tpu"], "'cuda'"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = flags if "--json" in flags else [*flags, "--json", "new"]
    assert main(["benchmark", "device", *([] if "--device" in flags else ["--device", "cpu"]), *flags]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_line_without_time_is_recorded():
    result = benchmark_device._measure(Line("late", "speed", {}, 60.0), "cpu", limit=0.0)
    assert (result["status"], result["reason"], result["rows"]) == ("out of time", "no time was left", [])


@pytest.mark.slow
def test_a_line_that_fails_or_takes_too_long_does_not_end_the_campaign(tmp_path, monkeypatch):
    lines = (
        Line("fails", "learning", {"agent": "no such agent", "env": "PointNavigation-v0", "iterations": 1}, 600.0),
        Line("lasts", "learning", {"agent": "random", "env": "PointNavigation-v0", "iterations": 10**9}, 30.0),
        Line("works", "learning", {"agent": "random", "env": "PointNavigation-v0", "iterations": 1}, 600.0),
    )
    monkeypatch.setattr(benchmark_device, "rehearsal_lines", lambda _: lines)
    folder = tmp_path / "results"
    assert main(["benchmark", "device", "--device", "cpu", "--minutes", "30", "--json", str(folder)]) == 0
    index = json.loads((folder / "campaign.json").read_text())["lines"]
    assert {name: line["status"] for name, line in index.items()} == {
        "fails": "failed",
        "lasts": "out of time",
        "works": "done",
    }
    failed, lasting = (json.loads((folder / index[name]["file"]).read_text()) for name in ("fails", "lasts"))
    assert any("unknown agent 'no such agent'" in line for line in failed["output"])
    assert all("iteration" in row for row in lasting["rows"])


@pytest.mark.slow
def test_the_rehearsal_fills_every_line(tmp_path: Path):
    """Three minutes are enough on a machine with nothing else to do; more are given, for this one may have."""
    folder = tmp_path / "results"
    assert main(["benchmark", "device", "--device", "cpu", "--minutes", "12", "--json", str(folder)]) == 0
    index = json.loads((folder / "campaign.json").read_text())
    assert list(index["lines"]) == [line.name for line in rehearsal_lines(None)]
    for name, line in index["lines"].items():
        assert line["status"] == ("not available" if name == "peer mtcworldmjx" else "done"), line
        rows = json.loads((folder / line["file"]).read_text())["rows"]
        assert rows
    families = [line for name, line in index["lines"].items() if name.startswith("family")]
    for line in families:
        assert line["figures"]["steps_per_second"] > 0
        assert line["figures"]["max_error_observations"] < 1e-2


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.syspath_prepend(ROOT / "docs" / "tables")
    return runpy.run_path(str(ROOT / "docs" / "tables" / "speed_tables.py"))


def test_the_table_says_what_was_not_measured(tables):
    for campaigns in ([], [campaign({})]):
        assert table(tables, campaigns).count("not measured") == len(tables["DEVICE_FIGURES"])


def test_the_table_has_every_figure_of_a_campaign(tables):
    figures = {name: {"figures": {}} for name, _, _ in tables["DEVICE_FIGURES"].values()}
    for number, (line, name, _) in zip(itertools.count(1), tables["DEVICE_FIGURES"].values(), strict=False):
        figures[line]["figures"][name] = 1000.0 * number
    shown = table(tables, [campaign(figures)])
    assert "not measured" not in shown
    assert "| `HalfCheetahVel-v0`, steps/s | 1,000 |" in shown
    assert {line for line, _, _ in tables["DEVICE_FIGURES"].values()} <= {line.name for line in full_lines(None)}


def test_a_rehearsal_gets_into_no_table(tables):
    with pytest.raises(AssertionError, match="a rehearsal measures nothing"):
        table(tables, [campaign({}) | {"rehearsal": True}])


def campaign(lines: dict) -> dict:
    return {"rehearsal": False, "device": {"name": "A GPU"}, "lines": lines}


def table(tables: dict, campaigns: list[dict]) -> str:
    names = tables["device"].__globals__
    load = names["load"]
    names["load"] = lambda pattern: campaigns if pattern == "benchmarks/device-*.json" else load(pattern)
    return tables["device"]()
