"""The training engine: one loop for agents and few-shot learners.

Iterations are seeded one by one and a checkpoint holds all that they change, the unfinished row of metrics included, so
a run that goes on from a checkpoint goes on exactly.
"""

import abc
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from metarl.experiment.buffers import BufferFiles
from metarl.experiment.checkpoints import Checkpoint, oldest_buffers, save_checkpoint
from metarl.experiment.interrupts import Interrupts, say_how_to_go_on
from metarl.experiment.metrics import MetricsLog, Row, Window, read_metrics
from metarl.experiment.progress import Progress
from metarl.replay import ReplayBuffer


class Training(abc.ABC):
    """Something in training, as the engine sees it."""

    unit: ClassVar[str] = "iteration"
    """What an iteration is called."""
    brief: ClassVar[bool] = False
    """Whether an iteration takes milliseconds. If so, a signal waits for its end, and an error in it goes back to the
    last checkpoint. If not, the state is copied after each iteration, and whatever stops one costs only that one."""
    title: str
    """Who is trained on what."""
    checkpoint_every: int
    """Iterations between checkpoints."""
    row_every: int = 1
    """Iterations that a row of metrics is the mean of."""

    @abc.abstractmethod
    def iterate(self, iteration: int) -> Mapping[str, int | float]:
        """Does iteration number `iteration`, from 1, with random numbers that depend on nothing else; its metrics.

        If it steps environments, `env_steps` among them says how often.
        """

    @abc.abstractmethod
    def share(self, iteration: int, env_steps: int) -> float:
        """How much is done after so many iterations and environment steps: 1 or more is the end."""

    @abc.abstractmethod
    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """All that `iterate` changes but the buffers, small: tensors, and values for JSON. A copy."""

    def buffers(self) -> Mapping[str, ReplayBuffer]:
        """The large rest, by name, appended to files as it grows."""
        return {}

    @abc.abstractmethod
    def describe(self, row: Row) -> tuple[str, str]:
        """A row of metrics for people: a line, and details for a second one."""

    @abc.abstractmethod
    def conclude(self, path: Path, rows: list[Row], show: bool) -> None:
        """Writes into the run folder what a run ends with; `rows` are all its metrics."""


def run_training(path: Path, training: Training, start: Checkpoint | None, show: bool) -> None:
    """Trains from `start`, or from nothing, to the end and concludes the run folder `path`; `show` says how it goes.

    Whatever stops it, Ctrl-C included, leaves a checkpoint and a line on stderr that says how to go on. The state and
    the buffers in `training` are those of `start`; the folder's metrics and buffer files are cut to it.
    """
    loop = _Loop(path, training, start or Checkpoint(0, 0, 0.0, *training.state()))
    if start is None:
        loop.save_start()
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
        """What is saved if an iteration is stopped in the middle."""
        self.iteration, self.env_steps, self.seconds = start.iteration, start.env_steps, start.wall_seconds
        self.began = time.perf_counter() - start.wall_seconds
        self.window = Window(start.window)
        self.buffers = BufferFiles(path, training.buffers(), start.buffers)
        self.torn = False
        """Whether the trained state is in the middle of an iteration."""

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
                    MetricsLog(self.path, self.iteration, training.row_every) as log,
                    Progress(title, done=self.share, enabled=show) as bar,
                ):
                    while self.share < 1:
                        self._iterate(interrupts, log, bar)
                        if self.iteration % training.checkpoint_every == 0:
                            self._save()
            except BaseException:
                self._save()
                say_how_to_go_on(self.path, f"after {training.unit} {self.last.iteration}, which is saved")
                raise
            self._save()

    def save_start(self) -> None:
        """Saves the state before any training, so that there always is one to go back to."""
        self.buffers.append()  # an agent may come with rows
        self.last = self._checkpoint()
        self._save()

    def _iterate(self, interrupts: Interrupts, log: MetricsLog, bar: Progress) -> None:
        self.torn = True
        if self.training.brief:
            with interrupts.held():
                self._note(self.training.iterate(self.iteration + 1), log, bar)
        else:
            metrics = self.training.iterate(self.iteration + 1)
            with interrupts.held():  # what is in the log is in `last`, too
                self._note(metrics, log, bar)
                self.last = self._checkpoint()

    def _note(self, metrics: Mapping[str, int | float], log: MetricsLog, bar: Progress) -> None:
        """Takes note of an iteration that is complete."""
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
        return Checkpoint(
            self.iteration,
            self.env_steps,
            self.seconds,
            *self.training.state(),
            window=self.window.state(),
            buffers=self.buffers.record(),
        )

    def _save(self) -> None:
        """Saves the state as it is, or as it last was whole."""
        if not self.torn and self.last.iteration != self.iteration:
            self.last = self._checkpoint()
        self.buffers.sync()
        save_checkpoint(self.path, self.last)
        self.buffers.prune(oldest_buffers(self.path))
