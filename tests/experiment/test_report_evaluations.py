"""What a report says of runs that were evaluated, or counted, otherwise than one would think."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from run_helpers import config

import metarl
from metarl.experiment.report import RunRecord, kinds_by_place
from metarl.experiment.report_sections import Section, section
from metarl.scripts.cli import main


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs of one kind, evaluated alike."""
    found = [metarl.train(config(tmp_path / f"seed{seed}", seed=seed, iterations=4), progress=False) for seed in (1, 2)]
    for run in found:
        assert main(["evaluate", str(run), "--tasks", "6"]) == 0
    return found


def summary(run: Path) -> list[dict]:
    return json.loads((run / "evaluation.json").read_text())["summary"]


def only_section(runs: list[Path]) -> Section:
    ((place, kinds),) = kinds_by_place([RunRecord.open(run) for run in runs]).items()
    return section(place, kinds)


def test_returns_over_other_horizons_have_no_mean(runs: list[Path]):
    assert main(["evaluate", str(runs[1]), "--tasks", "6", "--env-options", "horizon=20"]) == 0
    part = only_section(runs)
    figures = part.results.rows[0][-1]
    short, long = (summary(run)[0]["return_mean"] for run in runs)
    assert f"return after 0 episodes {short:.4g} (" in figures
    assert f"return after 0 episodes {long:.4g} (" in figures
    assert "[horizon 20 instead of 10]" in figures
    assert f"{np.mean([short, long]):.4g}" not in figures
    assert f"{runs[1]} was evaluated unlike its training: horizon 20 instead of 10" in part.remarks
    (chart,) = part.charts[2:]
    assert [line.mean[0] for line in chart.lines] == [short, long]
    assert {label for heat_map in part.heat_maps for label in heat_map.rows} >= {
        "hill-climber, after 0",
        "hill-climber [horizon 20 instead of 10], after 0",
    }


def test_runs_evaluated_on_a_family_with_success_stand_beside_others(runs: list[Path]):
    assert main(["evaluate", str(runs[1]), "--tasks", "6", "--env", "SparsePointNavigation-v0"]) == 0
    part = only_section(runs)
    assert "SparsePointNavigation-v0 instead of PointNavigation-v0" in part.results.rows[0][-1]
    assert [chart.title.split(" on ")[0] for chart in part.charts[2:]] == ["Adaptation: return", "Adaptation: success"]


def test_figures_after_other_numbers_of_episodes_have_no_mean(runs: list[Path]):
    assert main(["evaluate", str(runs[1]), "--tasks", "6", "--episodes", "3"]) == 0
    figures = only_section(runs).results.rows[0][-1]
    for run in runs:
        last = summary(run)[-1]
        assert f"after {last['episodes_used']} episode" in figures
        assert f"{last['return_mean']:.4g} (" in figures


def test_an_evaluation_from_before_more_training_is_named(runs: list[Path], capsys: pytest.CaptureFixture):
    metarl.resume(runs[0], iterations=6, progress=False)
    remark = f"{runs[0]} was evaluated after iteration 4 of 6: metarl evaluate {runs[0]}"
    assert remark in only_section(runs).remarks
    assert main(["compare", f"a={runs[0]}", f"b={runs[1]}"]) == 0
    assert remark in " ".join(capsys.readouterr().out.split())
    assert main(["evaluate", str(runs[0]), "--tasks", "6"]) == 0
    assert remark not in only_section(runs).remarks


def test_a_copy_of_a_run_is_no_independent_run(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    remark = "have the same seed 1, so they are not independent runs"
    assert any(remark in one for one in only_section([*runs, copy]).remarks)
    assert not any("independent" in one for one in only_section(runs).remarks)
    assert main(["compare", f"a={runs[0]}", f"a={copy}", f"b={runs[1]}"]) == 0
    assert remark in " ".join(capsys.readouterr().out.split())
    for name in ("x", "y"):
        (tmp_path / f"{name}.json").write_bytes((runs[0] / "evaluation.json").read_bytes())
    files = [f"a={tmp_path / name}.json" for name in ("x", "y")]
    assert main(["compare", *files, f"b={runs[1]}"]) == 0
    assert "hold the same scores to the last digit" in " ".join(capsys.readouterr().out.split())


def test_options_of_the_agent_and_the_family_may_have_the_same_name(tmp_path: Path):
    """Runs that differ in the family's `num_tasks` are two kinds, although the agent has an option of that name."""
    runs = []
    for count in (4, 5):
        family = {"arms": count, "pulls": 5}
        run = metarl.train(
            metarl.TrainConfig("random", "Bandit-v0", family, iterations=1, output=tmp_path / f"{count}"),
            progress=False,
        )
        text = (run / "config.yaml").read_text().replace("arms:", "num_tasks:")
        (run / "config.yaml").write_text(text)
        runs.append(run)
    (kinds,) = kinds_by_place([RunRecord.open(run) for run in runs]).values()
    assert [kind.label for kind in kinds] == [f"random, env-options num-tasks {count}" for count in (4, 5)]


def test_a_family_that_changed_behind_its_name_is_named(runs: list[Path], capsys: pytest.CaptureFixture):
    """The code of MODULE:NAME may have changed between two trainings, which would be one kind."""
    entries = yaml.safe_load((runs[1] / "config.yaml").read_text())
    entries["fingerprint"]["action_bounds"] = "[-0.2, 0.2]"
    (runs[1] / "config.yaml").write_text(yaml.safe_dump(entries))
    words = "action bounds [-0.2, 0.2] instead of [-0.1, 0.1]"
    assert f"{runs[1]} was trained on another PointNavigation-v0 than {runs[0]}: {words}" in only_section(runs).remarks
    assert main(["compare", f"a={runs[0]}", f"b={runs[1]}"]) == 0
    assert words in " ".join(capsys.readouterr().out.split())


def test_a_folder_that_is_named_in_two_ways_counts_once(runs: list[Path], tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(runs[0]), runs[0].name, "--output", "out"]) == 0
    assert "| hill-climber | 1 |" in (tmp_path / "out" / "report.md").read_text()
