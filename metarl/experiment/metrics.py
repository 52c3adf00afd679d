"""Metrics of a run: one JSON object per line and iteration (or so many of them), and the same for TensorBoard."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from metarl.errors import UsageError
from metarl.experiment.files import write_atomically

Row = dict[str, Any]


class MetricsLog:
    """Appends to the run's metrics.jsonl and its TensorBoard events, after `iteration` iterations.

    There is a row for each iteration, or for each `every` of them. Rows beyond `iteration`, which a killed run may have
    written after its last checkpoint, are cut off.
    """

    def __init__(self, run: Path, iteration: int, every: int = 1):
        # Imported here because it is slow and only training needs it.
        from torch.utils.tensorboard import SummaryWriter

        cut_metrics(run, iteration, every)
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


def cut_metrics(run: Path, iteration: int, every: int = 1) -> None:
    """Leaves the rows of the first iterations; raises `UsageError` where they are not all there."""
    path, wanted = run / "metrics.jsonl", iteration // every
    lines = _lines(path)
    if len(lines) != wanted or (lines and not lines[-1].endswith("\n")):
        _parse(path, lines[:wanted], wanted, every)
        write_atomically(path, "".join(lines[:wanted]))


def read_metrics(run: Path, iteration: int | None = None, every: int = 1) -> list[Row]:
    """The rows of metrics.jsonl, those of the first `iteration` iterations or all."""
    path, wanted = run / "metrics.jsonl", None if iteration is None else iteration // every
    return _parse(path, _lines(path)[:wanted], wanted or 0, every)


def read_any_metrics(run: Path) -> list[Row]:
    """The rows of a run whose first row alone tells how many iterations there are to a row."""
    path = run / "metrics.jsonl"
    lines = [line for line in _lines(path) if line.endswith("\n")]  # training may be writing the last
    first = _parse(path, lines[:1], 0, every=None)
    return _parse(path, lines, 0, every=first[0]["iteration"]) if first else []


def metric_values(rows: Sequence[Row], name: str) -> list[float]:
    """A metric along the rows, NaN where a row has none."""
    return [math.nan if row.get(name) is None else float(row[name]) for row in rows]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True) if path.exists() else []


def _parse(path: Path, lines: list[str], wanted: int, every: int | None) -> list[Row]:
    if len(lines) < wanted:
        raise UsageError(f"{path} is damaged: it has {len(lines)} of {wanted} rows")
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError:
        raise UsageError(f"{path} is damaged: not every line is a JSON object") from None
    if any(not isinstance(row, Mapping) or not isinstance(row.get("iteration"), int) for row in rows):
        raise UsageError(f"{path} is damaged: a line names no iteration")
    if every is not None and any(row["iteration"] != i * every for i, row in enumerate(rows, start=1)):
        raise UsageError(f"{path} is damaged: its lines are not iterations {every}, {2 * every}, …")
    return rows


def _finite(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinity become null."""
    if isinstance(value, int):
        return int(value)
    return float(value) if math.isfinite(value) else None
