"""`metarl sweep`: twelve trials of which one is killed and one diverges."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metarl.scripts.cli import main

KILLED = "rl2-PointNavigation-v0-lr=0.003-seed0"
DIVERGING = "rl2-PointNavigation-v0-lr=1e+30-seed0"
RATES = [*(n / 1000 for n in range(1, 12)), 1e30]
SWEEP = {
    "agents": {"rl2": {"lr": RATES, "num_tasks": 4, "hidden": 8}},
    "families": {"PointNavigation-v0": {"horizon": 5}},
    "iterations": 40,
    "checkpoint_every": 5,
    "evaluate": {"tasks": 3, "episodes": 1},
}


def start(folder: Path, runner: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "metarl.scripts.cli", "sweep", "sweep.yaml", "--output", "out", "--runner", runner]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill_after_a_checkpoint(folder: Path, name: str) -> None:
    """Kills the process of a trial in the middle of it; the deadline is for one that does not go on at all."""
    status, metrics = folder / "status" / f"{name}.json", folder / "runs" / name / "metrics.jsonl"
    deadline = time.monotonic() + 400
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 6:
        assert time.monotonic() < deadline, "the trial has not begun"
        time.sleep(0.02)
    os.kill(json.loads(status.read_text())["process"], signal.SIGKILL)


def test_another_evaluation_is_made_of_trials_that_are_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = {"agents": {"random": {"num_tasks": 2}}, "families": {"PointNavigation-v0": {"horizon": 5}}, "iterations": 1}
    command = ["sweep", "sweep.yaml", "--output", "out", "--runner", "sequence"]
    for tasks in (3, 4):
        Path("sweep.yaml").write_text(json.dumps(base | {"evaluate": {"tasks": tasks}}))
        assert main(command) == 0
        evaluation = json.loads(Path("out/runs/random-PointNavigation-v0-seed0/evaluation.json").read_text())
        assert len(evaluation["returns"]) == tasks


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["ray", "sequence"])
def test_all_trials_finish_but_the_one_that_diverges(runner, tmp_path):
    if runner == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    (tmp_path / "sweep.yaml").write_text(json.dumps(SWEEP))  # JSON is YAML
    sweep = start(tmp_path, runner)
    kill_after_a_checkpoint(tmp_path / "out", KILLED)
    said, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 1, said
    assert f"trial {DIVERGING} failed: a loss or gradient of PPO: not finite" in said
    rows = {row["trial"]: row for row in json.loads((tmp_path / "out" / "summary.json").read_text())}
    assert len(rows) == 12
    for name, row in rows.items():
        expected = ("failed", 1) if name == DIVERGING else ("done", 2 if name == KILLED else 1)
        assert (row["state"], row["attempts"]) == expected, row
    lines = (tmp_path / "out" / "runs" / KILLED / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == list(range(1, 41))
    page = (tmp_path / "out" / "report" / "report.md").read_text()
    assert page.count("| done |") == 11
    assert f"| {DIVERGING} | failed | 1 |" in page
    assert "return after 0 episodes" in page, "the trials were evaluated"

    again = start(tmp_path, runner)
    said, _ = again.communicate(timeout=200)
    assert "12 trials, 0 to run" in said
