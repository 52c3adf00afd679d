"""What a run is, before and after it is written down: an `Experiment` is its configuration, worked out once.

Agents on task distributions and few-shot learners on data sets are two kinds of experiment. The run folder and the
training engine know no more of them than this file says.
"""

import abc
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.experiment.checkpoints import Checkpoint
from metarl.experiment.engine import Training


@runtime_checkable
class Trained(Protocol):
    """What checkpoints hold: an agent or a few-shot learner.

    >>> from metarl.experiment.experiment import Trained
    >>> isinstance(metarl.TrainConfig(agent="maml", env="PointNavigation-v0").resolve().make(), Trained)
    True
    """

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]: ...

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None: ...


class Experiment(abc.ABC):
    """A run's configuration with everything that it names: made once and handed on.

    >>> experiment = metarl.TrainConfig(agent="maml", env="PointNavigation-v0").resolve()
    >>> experiment.options.inner_lr, experiment.distribution.horizon
    (0.1, 100)
    """

    kind: ClassVar[str]
    """What config.yaml calls this kind of run."""
    packages: ClassVar[tuple[str, ...]]
    """The packages whose versions config.yaml names."""
    config: Any
    """The configuration with every option spelled out."""

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """Who is trained on what, for people."""

    @property
    @abc.abstractmethod
    def folder_name(self) -> str:
        """The name of the run's folder if the user gives none."""

    @abc.abstractmethod
    def entries(self) -> dict[str, Any]:
        """What config.yaml holds besides the format, the kind and the versions: plain values."""

    @classmethod
    @abc.abstractmethod
    def from_entries(cls, path: Path, entries: Mapping[str, Any], device: torch.device | str | None) -> "Experiment":
        """The experiment of the run folder `path`, whose config.yaml holds `entries`, on its own device or `device`.

        Raises `UsageError` if an entry is missing or wrong.
        """

    @abc.abstractmethod
    def make(self) -> Trained:
        """The agent or the learner as it is before any training."""

    @abc.abstractmethod
    def share(self, iteration: int, env_steps: int) -> float:
        """How much of the training is done: 1 or more if a bound is reached."""

    @abc.abstractmethod
    def is_concluded(self, path: Path) -> bool:
        """Whether the run folder holds what `Training.conclude` writes last."""

    @abc.abstractmethod
    def training(self, trained: Trained) -> AbstractContextManager[Training]:
        """The training of `trained`, with what it needs open; raises `UsageError` if it cannot be done."""

    @abc.abstractmethod
    def run(self, path: Path, trained: Trained, checkpoint: Checkpoint) -> "Run":
        """The opened run folder."""


@dataclass(frozen=True)
class Run:
    """A run folder, opened; `AgentRun` and `FewShotRun` say what is in it.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> metarl.load_run(metarl.train(config, progress=False)).finished
    True
    """

    path: Path
    experiment: Experiment
    trained: Trained
    """In the state of the last checkpoint, but for replay buffers, which only training needs."""
    checkpoint: Checkpoint

    @property
    def config(self) -> Any:
        """The configuration with every option spelled out."""
        return self.experiment.config

    @property
    def finished(self) -> bool:
        """Whether the training has reached its bound."""
        return self.experiment.share(self.checkpoint.iteration, self.checkpoint.env_steps) >= 1


@runtime_checkable
class RunConfig(Protocol):
    """What `metarl.train` takes: a `TrainConfig` or a `FewShotConfig`.

    >>> from metarl.experiment.experiment import RunConfig
    >>> isinstance(metarl.TrainConfig(agent="maml", env="PointNavigation-v0"), RunConfig)
    True
    """

    @property
    def output(self) -> Path | None: ...

    def resolve(self) -> Experiment: ...
