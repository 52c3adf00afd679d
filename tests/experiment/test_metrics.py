"""metrics.jsonl: rows at regular iterations, cut where a killed run wrote too far."""

import json
import math
from pathlib import Path

import pytest

from metarl.errors import UsageError
from metarl.experiment.metrics import MetricsLog, Window, read_metrics


def write(path: Path, iterations: list[int], end: str = "") -> None:
    path.mkdir(exist_ok=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps({"iteration": i}) + "\n" for i in iterations) + end)


@pytest.mark.parametrize(("every", "kept", "written"), [(1, 5, [*range(1, 9)]), (4, 10, [4, 8, 12, 16])])
def test_rows_after_the_checkpoint_are_cut_off(tmp_path: Path, every: int, kept: int, written: list[int]):
    write(tmp_path, written, end='{"iterat')
    rows = [{"iteration": i} for i in written if i <= kept]
    assert read_metrics(tmp_path, kept, every) == rows
    following = rows[-1]["iteration"] + every
    with MetricsLog(tmp_path, kept, every) as log:
        log.write({"iteration": following, "loss": float("nan")})
    assert read_metrics(tmp_path, every=every) == [*rows, {"iteration": following, "loss": None}]


def test_a_row_is_the_mean_over_its_iterations_wherever_they_were_interrupted():
    iterations = [{"loss": 0.1, "env_steps": 10, "faults": 2}, {"loss": 0.2, "env_steps": 30, "kl": 0.5, "faults": 1}]
    window = Window()
    for metrics in iterations:
        window = Window(json.loads(json.dumps(window.state(), allow_nan=False)))  # as a checkpoint keeps it
        window.add(metrics, seconds=0.5)
    assert window.row(8, 70, 4.0) == {
        "iteration": 8,
        "loss": (0.1 + 0.2) / 2,
        "env_steps": 70,
        "faults": 1.5,
        "kl": 0.5,
        "wall_seconds": 4.0,
        "steps_per_second": 40.0,
    }
    window.add({"loss": float("nan")}, seconds=0.5)
    again = Window(json.loads(json.dumps(window.state(), allow_nan=False)))
    assert math.isnan(again.row(9, 70, 4.0)["loss"])


@pytest.mark.parametrize(
    ("written", "end", "message"),
    [([4], "", "it has 1 of 2 rows"), ([4, 7], "", "not iterations 4, 8"), ([4], "what\n", "not every line is a JSON")],
)
def test_damage_is_one_line(tmp_path: Path, written: list[int], end: str, message: str):
    write(tmp_path, written, end)
    with pytest.raises(UsageError, match=message):
        read_metrics(tmp_path, 9, 4)
