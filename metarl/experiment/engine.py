"""The training engine: one loop for agents and few-shot learners.

Each iteration has its own seed, and a checkpoint holds everything that iterations change, including the unfinished row
of metrics. A run resumed from a checkpoint therefore continues exactly.
"""

import abc
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from metarl.errors import NumericalFault
from metarl.experiment.buffers import BufferFiles
from metarl.experiment.checkpoints import Checkpoint, oldest_buffers, save_checkpoint
from metarl.experiment.interrupts import Interrupts, say_how_to_go_on
from metarl.experiment.metrics import MetricsLog, Row, RunLogger, Window, read_metrics
from metarl.experiment.progress import Progress
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


def run_training(path: Path, training: Training, start: Checkpoint | None, show: bool) -> None:
    """Trains from `start`, or from the beginning, to the end and concludes the run folder `path`.

    Any interruption, including Ctrl-C, leaves a checkpoint and a line on stderr with the command to resume. The state
    and the buffers in `training` must be those of `start`; metrics and buffer files of the folder are cut to it. `show`
    displays the progress.
    """
    loop = _Loop(path, training, start or Checkpoint(0, 0, 0.0, *training.state()))
    if start is None:
        loop.save_start()
        for note in training.notes() if show else ():
            print(note, file=sys.stderr)
    with torch_threads(training.threads):
        loop.run(show)
        with Interrupts():
            try:
                training.conclude(path, read_metrics(path, every=training.row_every), show)
            except KeyboardInterrupt:
                say_how_to_go_on(path, "after the training; what was learned is saved")
                raise


class _Loop:
    """The state of a run in training."""

    def __init__(self, path: Path, training: Training, start: Checkpoint):
        self.path, self.training = path, training
        self.last = start
        """The checkpoint to save if an iteration is interrupted."""
        self.iteration, self.env_steps, self.seconds = start.iteration, start.env_steps, start.wall_seconds
        self.began = time.perf_counter() - start.wall_seconds
        self.window = Window(start.window)
        self.buffers = BufferFiles(path, training.buffers(), start.buffers)
        self.torn = False
        """Whether an iteration has begun and not ended, so that the trained state is inconsistent."""

    @property
    def share(self) -> float:
        return self.training.share(self.iteration, self.env_steps)

    def run(self, show: bool) -> None:
        training, title = self.training, self.training.title
        if self.share >= 1:
            return
        with Interrupts() as interrupts:
            try:
                with (
                    MetricsLog(self.path, self.iteration, training.row_every, training.open_loggers(self.path)) as log,
                    Progress(title, done=self.share, enabled=show) as bar,
                ):
                    while self.share < 1:
                        self._iterate(interrupts, log, bar)
                        if self.iteration % training.checkpoint_every == 0:
                            log.flush()
                            self._save()
            except BaseException:
                self._save()
                say_how_to_go_on(self.path, f"after {training.unit} {self.last.iteration}, which is saved")
                raise
            self._save()

    def save_start(self) -> None:
        """Saves the state before any training, so that there is always a checkpoint to return to."""
        self.buffers.append()  # an agent may start with rows
        self.last = self._checkpoint()
        self._save()

    def _iterate(self, interrupts: Interrupts, log: MetricsLog, bar: Progress) -> None:
        self.torn = True
        if self.training.brief:
            with interrupts.held():
                self._note(self.training.iterate(self.iteration + 1), log, bar)
        else:
            metrics = self.training.iterate(self.iteration + 1)
            with interrupts.held():  # so that the log and `last` agree
                self._note(metrics, log, bar)
                self.last = self._checkpoint()

    def _note(self, metrics: Mapping[str, int | float], log: MetricsLog, bar: Progress) -> None:
        """Records a complete iteration."""
        seconds = time.perf_counter() - self.began
        self.window.add(metrics, seconds - self.seconds)
        self.buffers.append()
        self.iteration += 1
        self.env_steps += int(metrics.get("env_steps", 0))
        self.seconds = seconds
        if self.iteration % self.training.row_every == 0:
            row = self.window.row(self.iteration, self.env_steps, seconds)
            self.window = Window()
            log.write(row)
            bar.update(min(1.0, self.share), *self.training.describe(row))
        self.torn = False

    def _checkpoint(self) -> Checkpoint:
        """The current state; raises `NumericalFault` if it has numbers that are not finite: they are never saved."""
        tensors, values = self.training.state()
        if not all_finite(*tensors.values()):
            self.torn = True
            bad = next(name for name, value in tensors.items() if not all_finite(value))
            raise NumericalFault(f"{bad} is not finite after {self.training.unit} {self.iteration}. {USUAL_CAUSES}")
        return Checkpoint(
            self.iteration,
            self.env_steps,
            self.seconds,
            tensors,
            values,
            window=self.window.state(),
            buffers=self.buffers.record(),
        )

    def _save(self) -> None:
        """Saves the current state, or the last consistent one."""
        if not self.torn and self.last.iteration != self.iteration:
            self.last = self._checkpoint()
        self.buffers.sync()
        save_checkpoint(self.path, self.last)
        self.buffers.prune(oldest_buffers(self.path))
