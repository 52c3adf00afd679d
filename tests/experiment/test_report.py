"""Reports over real runs: what belongs together is put together, and the figures are those of the runs."""

import json
import shutil
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import yaml
from run_helpers import config

import metarl
import metarl.fewshot
from metarl.experiment.metrics import read_metrics
from metarl.experiment.report import RunRecord, kinds_by_place
from metarl.scripts.cli import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    found = {f"seed{seed}": metarl.train(config(folder / f"seed{seed}", seed=seed), progress=False) for seed in (1, 2)}
    found["long"] = metarl.train(config(folder / "long", iterations=20, env_options={"horizon": 7}), progress=False)
    for name in ("seed1", "seed2"):
        assert main(["evaluate", str(found[name]), "--tasks", "4"]) == 0
    options = {"iterations": 6, "hidden": (4,), "num_tasks": 2}
    for seed in (0, 1):
        few = metarl.fewshot.FewShotConfig(
            "maml", "sinusoid", learner_options=options, episodes=3, seed=seed, output=folder / f"maml{seed}"
        )
        found[f"maml{seed}"] = metarl.fewshot.train(few, progress=False)
    return found


def test_runs_that_differ_in_their_seeds_are_one_kind(runs: dict[str, Path]):
    places = kinds_by_place([RunRecord.open(path) for path in runs.values()])
    assert list(places) == ["PointNavigation-v0", "sinusoid"]
    labels = {kind.label: [run.path.name for run in kind.runs] for kind in places["PointNavigation-v0"]}
    assert labels == {
        "hill-climber, horizon 10, iterations 12": ["seed1", "seed2"],
        "hill-climber, horizon 7, iterations 20": ["long"],
    }
    (few,) = places["sinusoid"]
    assert (few.label, len(few.runs)) == ("maml", 2)


def test_how_a_run_was_carried_out_is_no_setting(runs: dict[str, Path], tmp_path: Path):
    """Run folders of 0.2 have neither `max_faults` nor `threads`."""
    paths = [runs["seed1"]]
    for name, change in (("old", None), ("other", {"max_faults": 5, "threads": 2})):
        paths.append(shutil.copytree(runs["seed1"], tmp_path / name))
        entries = yaml.safe_load((paths[-1] / "config.yaml").read_text())
        kept = {key: value for key, value in entries.items() if key not in ("max_faults", "threads")}
        (paths[-1] / "config.yaml").write_text(yaml.safe_dump(kept | (change or {})))
    ((kind,),) = kinds_by_place([RunRecord.open(path) for path in paths]).values()
    assert len(kind.runs) == 3


def test_a_row_says_what_the_runs_say(runs: dict[str, Path]):
    both = [RunRecord.open(runs[name]) for name in ("seed1", "seed2")]
    ((kind,),) = kinds_by_place(both).values()
    label, count, steps, minutes, standing, evaluated = kind.row()
    last = [row["return_mean"] for row in (read_metrics(run.path)[-1] for run in both)]
    assert (label, count, steps) == ("hill-climber", "2", f"{both[0].rows[-1]['env_steps']:,}")
    assert float(minutes) >= 0
    assert standing == f"{np.mean(last):.4g} ({min(last):.4g} … {max(last):.4g})"
    first = [json.loads((run.path / "evaluation.json").read_text())["summary"][0]["return_mean"] for run in both]
    assert f"return after 0 episodes {np.mean(first):.4g} ({min(first):.4g} … {max(first):.4g})" in evaluated


def test_curves_are_compared_where_all_runs_have_been(runs: dict[str, Path]):
    ((kind,),) = kinds_by_place([RunRecord.open(runs[name]) for name in ("seed1", "seed2")]).values()
    grid, curves = kind.curve()
    assert curves.shape == (2, len(grid))
    for curve, run in zip(curves, kind.runs, strict=True):
        assert grid[[0, -1]].tolist() == [run.rows[0]["env_steps"], run.rows[-1]["env_steps"]]
        assert curve[[0, -1]].tolist() == pytest.approx([run.rows[0]["return_mean"], run.rows[-1]["return_mean"]])


def test_the_command_writes_tables_and_curves(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    assert main(["report", *map(str, runs.values()), "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "hill-climber, horizon 7" in shown
    assert shown.endswith(f"{tmp_path / 'out' / 'report.md'}\n")
    text = (tmp_path / "out" / "report.md").read_text()
    for name in ("PointNavigation-v0", "sinusoid"):
        assert f"![{name}]({name}.png)" in text
        assert imageio.imread(tmp_path / "out" / f"{name}.png").std() > 0
    assert "| maml | 2 | 6 |" in text


def test_mistakes_are_one_line(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture):
    broken, begun = tmp_path / "broken", tmp_path / "begun"
    shutil.copytree(runs["seed1"], broken)
    (broken / "evaluation.json").write_text("{")
    shutil.copytree(runs["seed1"], begun)
    (begun / "metrics.jsonl").write_text("")
    for arguments, message in (
        ([], "name the run folders"),
        ([tmp_path / "none"], "there is no run folder"),
        ([broken], "evaluation.json is damaged"),
        ([begun], "nothing to report yet"),
        ([runs["seed1"], "--output", runs["seed1"] / "config.yaml"], "config.yaml"),
    ):
        assert main(["report", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
