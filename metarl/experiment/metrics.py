"""Metrics of a run: one JSON object per line and iteration, and the same for TensorBoard."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from metarl.errors import UsageError
from metarl.experiment.files import write_atomically

Row = dict[str, Any]


class MetricsLog:
    """Appends to the run's metrics.jsonl and its TensorBoard events, after the first `iteration` rows.

    Rows beyond `iteration`, which a killed run may have written after its last checkpoint, are cut off.
    """

    def __init__(self, run: Path, iteration: int):
        # Imported here because it is slow and only training needs it.
        from torch.utils.tensorboard import SummaryWriter

        cut_metrics(run, iteration)
        self._file = (run / "metrics.jsonl").open("a")
        self._events = SummaryWriter(str(run), purge_step=iteration + 1 if iteration else None)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._file.close()
        self._events.close()

    def write(self, row: Row) -> None:
        self._file.write(json.dumps({name: _finite(value) for name, value in row.items()}, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "iteration":
                self._events.add_scalar(name, value, global_step=row["iteration"])


def cut_metrics(run: Path, iteration: int) -> None:
    """Leaves the first `iteration` rows of metrics.jsonl; raises `UsageError` where they are not all there."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    if len(lines) != iteration or (lines and not lines[-1].endswith("\n")):
        _parse(path, lines[:iteration], iteration)
        write_atomically(path, "".join(lines[:iteration]))


def read_metrics(run: Path, iteration: int | None = None) -> list[Row]:
    """The rows of metrics.jsonl, the first `iteration` of them or all."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return _parse(path, lines[:iteration], iteration or 0)


def _parse(path: Path, lines: list[str], expected: int) -> list[Row]:
    if len(lines) < expected:
        raise UsageError(f"{path} is damaged: it has {len(lines)} of {expected} iterations")
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError:
        raise UsageError(f"{path} is damaged: not every line is a JSON object") from None
    if any(not isinstance(row, Mapping) or row.get("iteration") != i for i, row in enumerate(rows, start=1)):
        raise UsageError(f"{path} is damaged: its lines are not iterations 1, 2, …")
    return rows


def _finite(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinity become null."""
    if isinstance(value, int):
        return int(value)
    return float(value) if math.isfinite(value) else None
