"""Metrics of a run: one JSON object per line, for one or more iterations each, and the same for TensorBoard."""

import contextlib
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from metarl.errors import UsageError
from metarl.experiment.files import remove_temporaries, write_atomically
from metarl.parsing import is_count, is_number, printable

Row = dict[str, Any]
FLUSH_INTERVAL = 1.0
"""Seconds between two times that rows are handed to the file system, which may take a millisecond."""
_QUEUED = 1000
"""TensorBoard's values that may wait for its writing thread, so that training does not wait for it."""


class Window:
    """The metrics of the iterations since the last row, as sums. A row is their mean.

    A window made from another one's `state` continues with the same iterations.

    >>> from metarl.experiment.metrics import Window
    >>> window = Window()
    >>> window.add({"loss": 1.0}, seconds=0.1)
    >>> window.add({"loss": 3.0}, seconds=0.1)
    >>> window.row(iteration=2, env_steps=0, wall_seconds=0.2)
    {'iteration': 2, 'loss': 2.0, 'wall_seconds': 0.2}
    """

    def __init__(self, state: Mapping[str, Any] | None = None):
        state = state or {}
        self._sums = {name: math.nan if value is None else value for name, value in state.get("sums", {}).items()}
        self._counts = dict(state.get("counts", {}))
        self._seconds = float(state.get("seconds", 0.0))

    def add(self, metrics: Mapping[str, int | float], seconds: float) -> None:
        """Adds an iteration, which took `seconds`."""
        sums, counts = self._sums, self._counts
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0) + value
            counts[name] = counts.get(name, 0) + 1
        self._seconds += seconds

    def row(self, iteration: int, env_steps: int, wall_seconds: float) -> Row:
        """The row after `iteration`: means of the metrics over the iterations that have them, totals, and the speed."""
        counts = self._counts
        means = {name: total if counts[name] == 1 else total / counts[name] for name, total in self._sums.items()}
        row = {"iteration": iteration, **means, "wall_seconds": wall_seconds}
        if "env_steps" in self._sums:
            row["env_steps"] = env_steps
            row["steps_per_second"] = self._sums["env_steps"] / self._seconds
        return row

    def state(self) -> dict[str, Any]:
        """The sums as plain values for JSON."""
        return {
            "sums": {name: _finite(value) for name, value in self._sums.items()},
            "counts": dict(self._counts),
            "seconds": self._seconds,
        }


@runtime_checkable
class RunLogger(Protocol):
    """Receives the rows of a run's metrics in their order. A resumed run may repeat rows after its last checkpoint.

    One of one's own is named `MODULE:NAME` and is made by `NAME(path, title, config)`, with the run folder, who is
    trained on what, and the entries of config.yaml.

    >>> class Printer:
    ...     def __init__(self, path, title, config): ...
    ...     def log(self, row): print(row["iteration"])
    ...     def close(self): ...
    >>> from metarl.experiment.metrics import RunLogger
    >>> isinstance(Printer("run", "maml on PointNavigation-v0", {}), RunLogger)
    True
    """

    def log(self, row: Row) -> None: ...

    def close(self) -> None: ...


class MetricsLog:
    """Appends to the run's metrics.jsonl and its TensorBoard events, after `iteration` iterations.

    There is one row per `every` iterations. Rows beyond `iteration` are cut off: a killed run may have written them
    after its last checkpoint.

    Rows that follow each other within `FLUSH_INTERVAL` wait in memory. A checkpoint counts on the rows of its
    iterations: call `sync` before it is saved. If the disk takes no more, `OSError` is raised, no half line stays, and
    the rows wait for the next time. TensorBoard's events are for looking at: they end with a word at their first
    failure, and continue when the run is resumed. `loggers` receive the rows too, and are closed with it.
    """

    def __init__(self, run: Path, iteration: int, every: int = 1, loggers: Sequence[RunLogger] = ()):
        # Imported here because it is slow and only training needs it.
        from torch.utils.tensorboard import SummaryWriter

        cut_metrics(run, iteration, every)
        self._loggers = loggers
        self._file = (run / "metrics.jsonl").open("ab", buffering=0)
        self._size = self._file.tell()
        self._waiting: list[bytes] = []
        self._flushing = threading.Lock()  # `sync` may be called from another thread, as a last resort
        self._flushed = -math.inf
        purged = iteration + 1 if iteration else None
        self._events: Any = None
        with self._watching_events():
            self._events = SummaryWriter(str(run), purge_step=purged, max_queue=_QUEUED)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with contextlib.suppress(OSError):  # the last save has said so
            self.flush()
        self._file.close()
        events = self._events
        if events is not None:
            with self._watching_events():
                events.close()
        for logger in self._loggers:
            logger.close()

    def write(self, row: Row) -> None:
        """Adds a row; raises `OSError` if the disk does not take it, which then waits."""
        line = json.dumps({name: _finite(value) for name, value in row.items()}, allow_nan=False) + "\n"
        self._waiting.append(line.encode())
        if self._events is not None:
            with self._watching_events():
                for name, value in row.items():
                    if name != "iteration":
                        self._events.add_scalar(name, value, global_step=row["iteration"])
        for logger in self._loggers:
            logger.log(row)
        if time.perf_counter() - self._flushed >= FLUSH_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Hands all rows to the file system; raises `OSError` if it does not take them, which then wait."""
        self._flushed = time.perf_counter()
        with self._flushing:
            count = len(self._waiting)
            data = memoryview(b"".join(self._waiting[:count]))
            try:
                written = 0
                while written < len(data):
                    written += self._file.write(data[written:])
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._size)
                raise
            self._size += len(data)
            del self._waiting[:count]

    def sync(self) -> None:
        """Waits until all rows are on the disk; raises `OSError` as `flush` does."""
        self.flush()
        os.fsync(self._file.fileno())

    @contextlib.contextmanager
    def _watching_events(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._events = None
            print(f"metarl: TensorBoard's events stop here ({error.strerror})", file=sys.stderr)


def cut_metrics(run: Path, iteration: int, every: int = 1) -> None:
    """Cuts metrics.jsonl to the first `iteration` iterations; raises `UsageError` if rows are missing."""
    path, wanted = run / "metrics.jsonl", iteration // every
    remove_temporaries(run, path.name)
    lines = _lines(path)
    if len(lines) != wanted or (lines and not lines[-1].endswith(b"\n")):
        _parse(path, lines[:wanted], wanted, every)
        write_atomically(path, b"".join(lines[:wanted]))


def read_metrics(run: Path, iteration: int | None = None, every: int = 1) -> list[Row]:
    """Reads the rows of metrics.jsonl: those of the first `iteration` iterations, or all."""
    path, wanted = run / "metrics.jsonl", None if iteration is None else iteration // every
    return _parse(path, _lines(path)[:wanted], wanted or 0, every)


def read_any_metrics(run: Path) -> list[Row]:
    """Reads the rows of a run; the first row determines the number of iterations per row."""
    path = run / "metrics.jsonl"
    lines = [line for line in _lines(path) if line.endswith(b"\n")]  # training may be writing the last
    first = _parse(path, lines[:1], 0, every=None)
    return _parse(path, lines, 0, every=first[0]["iteration"]) if first else []


def metric_values(rows: Sequence[Row], name: str) -> list[float]:
    """The values of a metric in all rows; NaN if a row has none."""
    return [math.nan if row.get(name) is None else float(row[name]) for row in rows]


def _lines(path: Path) -> list[bytes]:
    """The lines with their ends."""
    if not path.is_file():
        return []
    try:
        return path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _parse(path: Path, lines: list[bytes], wanted: int, every: int | None) -> list[Row]:
    if len(lines) < wanted:
        raise UsageError(f"{path} is damaged: it has {len(lines)} of {wanted} rows")
    try:
        rows = [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is damaged: not every line is a JSON object") from None
    if any(not isinstance(row, Mapping) or not is_count(row.get("iteration") or None) for row in rows):
        raise UsageError(f"{path} is damaged: a line names no iteration")
    if every is not None and any(row["iteration"] != i * every for i, row in enumerate(rows, start=1)):
        raise UsageError(f"{path} is damaged: its lines are not iterations {every}, {2 * every}, …")
    for row in rows:
        for name, value in row.items():
            if value is not None and not is_number(value):
                raise UsageError(f"{path} is damaged: {printable(name)!r} of iteration {row['iteration']} is no number")
    return rows


def _finite(value: Any) -> Any:
    """`value` for JSON: NaN and infinity become null."""
    if isinstance(value, int):
        return int(value)
    return float(value) if math.isfinite(value) else None
