"""The training engine: one loop for agents and few-shot learners.

Each iteration has its own seed, and a checkpoint holds everything that iterations change, including the unfinished row
of metrics. A run resumed from a checkpoint therefore continues exactly.

What the disk refuses waits for the next time, up to a bound; no checkpoint is saved before the rows that it counts on.
"""

import abc
import math
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from metarl.errors import NumericalFault
from metarl.experiment.buffers import BufferFiles
from metarl.experiment.checkpoints import Checkpoint, begin_from, oldest_buffers, save_checkpoint
from metarl.experiment.config_file import read_entries
from metarl.experiment.formats import installed_versions
from metarl.experiment.interrupts import Interrupts, say_how_to_go_on
from metarl.experiment.metrics import MetricsLog, Row, RunLogger, Window, read_metrics
from metarl.experiment.progress import Progress
from metarl.experiment.watch import DiskWatch, DivergenceWatch
from metarl.faults import USUAL_CAUSES, all_finite
from metarl.replay import ReplayBuffer
from metarl.threads import torch_threads


class Training(abc.ABC):
    """The interface of what the engine trains."""

    unit: ClassVar[str] = "iteration"
    """The word for an iteration in messages."""
    brief: ClassVar[bool] = False
    """Whether an iteration takes milliseconds. If so, a signal waits for the end of the iteration, and an error returns
    to the last checkpoint. If not, the state is copied after each iteration, and an interruption costs only one."""
    title: str
    """Who is trained on what, for people."""
    checkpoint_every: int
    """Iterations between checkpoints."""
    threads: int | None = None
    """Threads that torch computes with; None: one, and more where they pay."""
    row_every: int = 1
    """Iterations that one row of metrics averages."""
    alarms: Mapping[str, float] = MappingProxyType({})
    """Metrics by which an iteration diverges, with their bounds (`DivergenceWatch`). Not for what is `brief`."""
    max_divergent: int | None = None
    """Iterations in a row that may diverge; None: `MAX_DIVERGENT`."""

    @abc.abstractmethod
    def iterate(self, iteration: int) -> Mapping[str, int | float]:
        """Runs iteration number `iteration`, counted from 1; returns its metrics.

        Its random numbers must depend on the configured seed and `iteration` only. If it steps environments, the metric
        `env_steps` is the number of steps.
        """

    @abc.abstractmethod
    def share(self, iteration: int, env_steps: int) -> float:
        """The share of the training that is done after these iterations and environment steps; 1 or more is the end."""

    @abc.abstractmethod
    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Everything that `iterate` changes, except the buffers: tensors, and values for JSON. A small copy."""

    def score(self, metrics: Mapping[str, int | float]) -> float | None:
        """How good an iteration was, for the choice of the best checkpoint; None if that is not known."""
        return None

    def buffers(self) -> Mapping[str, ReplayBuffer]:
        """The replay buffers by name. New rows are appended to files."""
        return {}

    def open_loggers(self, path: Path) -> list[RunLogger]:
        """Opens what receives the metrics of the run folder `path` besides its own files."""
        return []

    def notes(self) -> list[str]:
        """What people should see before the training, in lines."""
        return []

    @abc.abstractmethod
    def describe(self, row: Row) -> tuple[str, str]:
        """A row of metrics as text for people: one line, and details for a second line."""

    @abc.abstractmethod
    def conclude(self, path: Path, rows: list[Row], show: bool) -> None:
        """Writes the final results into the run folder; `rows` are all metrics of the run."""


def run_training(
    path: Path, training: Training, start: Checkpoint | None, show: bool, max_hours: float | None = None
) -> None:
    """Trains from `start`, or from the beginning, to the end and concludes the run folder `path`.

    Any interruption, including Ctrl-C, leaves a checkpoint and a line on stderr with the command to resume; so does the
    end of `max_hours`, before which the last iteration has ended. The state and the buffers in `training` must be those
    of `start`; metrics and buffer files of the folder are cut to it. `show` displays the progress.

    The caller holds the lock of the folder. Raises `StorageFault` if it cannot be written.
    """
    try:
        loop = _Loop(path, training, start or Checkpoint(0, 0, 0.0, *training.state()))
        if start is None:
            loop.save_start()
    except OSError as error:
        raise DiskWatch(path).fault(error) from error
    for note in training.notes() if show and start is None else ():
        print(note, file=sys.stderr)
    with torch_threads(training.threads):
        if not loop.run(show, math.inf if max_hours is None else 3600 * max_hours):
            return
        with Interrupts(loop.last_resort):
            try:
                training.conclude(path, read_metrics(path, every=training.row_every), show)
            except KeyboardInterrupt:
                say_how_to_go_on(path, "after the training; what was learned is saved")
                raise
            except OSError as error:
                raise DiskWatch(path).fault(error) from error


class _Loop:
    """The state of a run in training."""

    def __init__(self, path: Path, training: Training, start: Checkpoint):
        self.path, self.training = path, training
        begin_from(path, start.iteration)
        self.last = start
        """The checkpoint to save if an iteration is interrupted."""
        self.saved = start.iteration
        """The iteration of the last checkpoint on the disk."""
        self.iteration, self.env_steps, self.seconds = start.iteration, start.env_steps, start.wall_seconds
        self.scored = start.scored
        self.started = time.perf_counter()
        self.began = self.started - start.wall_seconds
        self.longest = 0.0
        """Seconds of the longest iteration since `started`."""
        self.window = Window(start.window)
        self.buffers = BufferFiles(path, training.buffers(), start.buffers)
        self.divergence = DivergenceWatch(training.alarms, training.max_divergent)
        self.disk = DiskWatch(path)
        self.torn = False
        """Whether an iteration has begun and not ended, so that the trained state is inconsistent."""
        self.behind = False
        """Whether rows of the buffers wait for the disk, so that no checkpoint of now can be made."""
        self.log: MetricsLog | None = None
        self._writing = threading.Lock()
        entries = read_entries(path)
        self._versions = installed_versions(entries.pop("versions", {}))
        self._config = entries

    @property
    def share(self) -> float:
        return self.training.share(self.iteration, self.env_steps)

    def run(self, show: bool, seconds: float) -> bool:
        """Trains to the end; returns False if another iteration might not end within `seconds`."""
        training = self.training
        if self.share >= 1:
            return True
        with (
            Interrupts(self.last_resort) as interrupts,
            MetricsLog(self.path, self.iteration, training.row_every, training.open_loggers(self.path)) as log,
        ):
            self.log = log
            try:
                with Progress(training.title, done=self.share, enabled=show) as bar:
                    while self.share < 1 and not self._out_of_time(seconds):
                        self._iterate(interrupts, log, bar)
                        if self.iteration % training.checkpoint_every == 0:
                            self._save_regularly(log)
                self._save_finally(log)
            except BaseException:
                interrupts.answered()
                self._save_what_is_good(log)
                say_how_to_go_on(self.path, f"after {training.unit} {self.saved}, which is saved")
                raise
        self.log = None  # closed
        if self.share < 1:
            say_how_to_go_on(self.path, f"by --max-hours after {training.unit} {self.saved}, which is saved")
        return self.share >= 1

    def save_start(self) -> None:
        """Saves the state before any training, so that there is always a checkpoint to return to."""
        self.buffers.append()  # an agent may start with rows
        self.last = self._checkpoint()
        self._write()

    def last_resort(self) -> None:
        """Saves the last consistent state, from another thread, because the training does not answer."""
        try:
            if self.log is not None:
                self.log.sync()
            self._write()
        except OSError as error:
            print(f"metarl: {self.disk.fault(error)}", file=sys.stderr)
        done = f"after {self.training.unit} {self.saved}, which is saved, in the middle of a long operation"
        say_how_to_go_on(self.path, done)

    def _out_of_time(self, seconds: float) -> bool:
        return time.perf_counter() - self.started + self.longest > seconds

    def _iterate(self, interrupts: Interrupts, log: MetricsLog, bar: Progress) -> None:
        self.torn = True
        if self.training.brief:
            with interrupts.held():
                self._note(self.training.iterate(self.iteration + 1), log, bar)
        else:
            metrics = self.training.iterate(self.iteration + 1)
            with interrupts.held():  # so that the log and `last` agree
                divergent = self.divergence.see(metrics)
                self._note({**metrics, "divergent": divergent} if divergent else metrics, log, bar)
                if not self.behind and not divergent:
                    self.last = self._checkpoint()

    def _note(self, metrics: Mapping[str, int | float], log: MetricsLog, bar: Progress) -> None:
        """Records a complete iteration."""
        seconds = time.perf_counter() - self.began
        try:
            self.buffers.append()
            self.behind = False
        except OSError as error:
            self.behind = True
            self.disk.failed(error)
        if failures := self.disk.take_count():
            metrics = {**metrics, "write_failures": failures}
        self.window.add(metrics, seconds - self.seconds)
        self.longest = max(self.longest, seconds - self.seconds)
        self._add_score(metrics)
        self.iteration += 1
        self.env_steps += int(metrics.get("env_steps", 0))
        self.seconds = seconds
        if self.iteration % self.training.row_every == 0:
            row = self.window.row(self.iteration, self.env_steps, seconds)
            self.window = Window()
            try:
                log.write(row)
            except OSError as error:
                self.disk.failed(error)
            bar.update(min(1.0, self.share), *self.training.describe(row))
        self.torn = False

    def _add_score(self, metrics: Mapping[str, int | float]) -> None:
        total, count = (0.0, 0) if self.iteration % self.training.checkpoint_every == 0 else self.scored
        score = self.training.score(metrics)
        known = score is not None and math.isfinite(score)
        self.scored = (total + score, count + 1) if known and score is not None else (total, count)

    def _checkpoint(self) -> Checkpoint:
        """The current state; raises `NumericalFault` if it has numbers that are not finite: they are never saved."""
        tensors, values = self.training.state()
        if not all_finite(*tensors.values()):
            self.torn = True
            bad = next(name for name, value in tensors.items() if not all_finite(value))
            raise NumericalFault(f"{bad} is not finite after {self.training.unit} {self.iteration}. {USUAL_CAUSES}")
        total, count = self.scored
        regular = self.iteration % self.training.checkpoint_every == 0
        return Checkpoint(
            self.iteration,
            self.env_steps,
            self.seconds,
            tensors,
            values,
            window=self.window.state(),
            buffers=self.buffers.record(),
            scored=self.scored,
            score=total / count if regular and count else None,
            config=self._config,
            versions=self._versions,
        )

    def _save_regularly(self, log: MetricsLog) -> None:
        """Saves a checkpoint unless the last iteration diverged; raises `StorageFault` after several in vain."""
        if self.divergence.in_row:
            return
        try:
            self._save(log)
            self.disk.saved()
        except OSError as error:
            self.disk.save_failed(error)

    def _save_finally(self, log: MetricsLog) -> None:
        """Saves a checkpoint; raises `StorageFault` if that fails."""
        try:
            self._save(log)
        except OSError as error:
            raise self.disk.fault(error) from error

    def _save_what_is_good(self, log: MetricsLog) -> None:
        """Saves the last consistent state after an error, which is the one to show."""
        try:
            self._save(log)
        except OSError as error:
            print(f"metarl: {self.disk.fault(error)}", file=sys.stderr)

    def _save(self, log: MetricsLog) -> None:
        """Saves the current state, or the last consistent one. Raises `OSError`."""
        good = not self.torn and (not self.divergence.in_row or self.share >= 1)
        if good and self.last.iteration != self.iteration:
            self.buffers.append()
            self.behind = False
            self.last = self._checkpoint()
        log.sync()
        self._write()
        self.buffers.prune(oldest_buffers(self.path))

    def _write(self) -> None:
        """Writes the checkpoint `last`, after the rows of the buffers that it needs."""
        with self._writing:
            self.buffers.sync()
            save_checkpoint(self.path, self.last)
            self.saved = self.last.iteration
