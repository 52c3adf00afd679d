"""Experiments and runs: an `Experiment` is a resolved configuration, a `Run` is an open run folder.

Agents on task distributions and few-shot learners on data sets are two kinds of experiment. The run folder and the
training engine use only the interfaces in this file.
"""

import abc
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypedDict, runtime_checkable

import torch
from torch import Tensor

from metarl.agent import Agent
from metarl.errors import UsageError
from metarl.experiment.checkpoints import Checkpoint
from metarl.experiment.engine import Training
from metarl.parallel import Ranks
from metarl.registry import Family, check_named_in_file
from metarl.tasks import SPLITS


@runtime_checkable
class Trained(Protocol):
    """What a checkpoint can save and load: an agent or a few-shot learner.

    >>> from metarl.experiment.experiment import Trained
    >>> isinstance(metarl.TrainConfig(agent="maml", env="PointNavigation-v0").resolve().make(), Trained)
    True
    """

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]: ...

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None: ...


class Parts(TypedDict, total=False):
    """What may stand in for what a run folder names: an instance, or a class that cannot be imported, is given again.

    None is as good as nothing.

    >>> from metarl.experiment.experiment import Parts
    >>> Parts(env=metarl.make("PointNavigation-v0")).keys()
    dict_keys(['env'])
    """

    env: Family | None
    """Of an agent's run: the task distribution, as in `TrainConfig`."""
    agent: str | type[Agent] | None
    """Of an agent's run: the agent."""
    learner: str | type | None
    """Of a few-shot run: the learner, as in `FewShotConfig`."""
    data: Any
    """Of a few-shot run: the data set."""
    objective: str | type | None
    """Of a few-shot run: the objective."""


class Experiment(abc.ABC):
    """A configuration together with the objects that it names, resolved once.

    >>> experiment = metarl.TrainConfig(agent="maml", env="PointNavigation-v0").resolve()
    >>> experiment.options.inner_lr, experiment.distribution.horizon
    (0.1, 100)
    """

    kind: ClassVar[str]
    """The name of this kind of run in config.yaml."""
    packages: ClassVar[tuple[str, ...]]
    """The packages whose versions config.yaml records."""
    result: ClassVar[Path]
    """The file in the run folder that `Training.conclude` writes last."""
    config: Any
    """The configuration with every option spelled out."""
    ranks: Ranks = Ranks()
    """The processes that train together (`share_among`)."""

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
        """The entries of config.yaml besides format, kind and versions, as plain values."""

    def entries_of(self, trained: Trained) -> dict[str, Any]:
        """Further entries of config.yaml: what `trained` says of itself."""
        return {}

    @classmethod
    @abc.abstractmethod
    def from_entries(
        cls,
        path: Path,
        entries: Mapping[str, Any],
        device: torch.device | str | None,
        parts: Parts,
    ) -> "Experiment":
        """The experiment of the run folder `path`, whose config.yaml has `entries`, on its own device or on `device`.

        `parts` takes the place of what `entries` name, such as `env`. Raises `UsageError` if an entry is missing or
        wrong, or if a part is missing that no name makes again.
        """

    @classmethod
    @abc.abstractmethod
    def with_bounds(cls, path: Path, entries: Mapping[str, Any], bounds: Mapping[str, int]) -> dict[str, Any]:
        """The entries of the run `path` that change if it trains to `bounds`, which have `iterations`, `steps` or both.

        Both bounds are replaced. Raises `UsageError` if such a run would not be what one with these bounds from the
        beginning is.
        """

    def changes(self, splits: Sequence[str] = SPLITS) -> list[str]:
        """What differs, in words, between this experiment and the one that the run folder was made with.

        Sampled tasks are compared for `splits` only, because some families take seconds to draw them.
        """
        return []

    def share_among(self, ranks: Ranks) -> None:
        """Shares the training out among `ranks`; raises `UsageError` if that is not possible."""
        if ranks.world_size > 1:
            raise UsageError(f"{self.title} trains in one process, and torchrun has started {ranks.world_size}")

    @abc.abstractmethod
    def make(self) -> Trained:
        """Makes the untrained agent or learner."""

    @abc.abstractmethod
    def share(self, iteration: int, env_steps: int) -> float:
        """The share of the training that is done; 1 or more if a bound is reached."""

    def is_concluded(self, path: Path) -> bool:
        """Whether the run folder holds the results of `Training.conclude`."""
        return (path / self.result).exists()

    @abc.abstractmethod
    def training(self, trained: Trained) -> AbstractContextManager[Training]:
        """Opens what the training of `trained` needs; raises `UsageError` if it is not possible."""

    @abc.abstractmethod
    def run(self, path: Path, trained: Trained, checkpoint: Checkpoint) -> "Run":
        """The open run folder."""


@dataclass(frozen=True)
class Run:
    """An open run folder. `AgentRun` and `FewShotRun` are the two kinds.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> metarl.load_run(metarl.train(config, progress=False)).finished
    True
    """

    path: Path
    experiment: Experiment
    trained: Trained
    """The agent or learner in the state of the last checkpoint, without replay buffers, which only training needs."""
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
    """The argument of `metarl.train`: a `TrainConfig` or a `FewShotConfig`.

    >>> from metarl.experiment.experiment import RunConfig
    >>> isinstance(metarl.TrainConfig(agent="maml", env="PointNavigation-v0"), RunConfig)
    True
    """

    @property
    def output(self) -> Path | str | None: ...

    def resolve(self) -> Experiment: ...


def check_parts(path: Path, parts: Parts, known: Iterable[str]) -> None:
    """Raises `UsageError` if `parts` has a name that is not `known` to runs of the kind of `path`."""
    for name in parts:
        if name not in known:
            raise UsageError(f"{path} is a run of another kind: it takes {' and '.join(known)}, not {name}")


def check_part_name(path: Path, entries: Mapping[str, Any], parts: Parts, name: str, kind: str, base: type) -> None:
    """Raises `UsageError` if config.yaml of the run `path` names a part that is none, unless it is given in `parts`."""
    if name not in parts:
        flag = " or --env" if name == "env" else ""
        way_out = f"if you trust it, give it yourself, {name}=...{flag}"
        check_named_in_file(kind, entries.get(name), base, str(path / "config.yaml"), way_out)


def require_part(path: Path, entries: Mapping[str, Any], parts: Parts, name: str) -> None:
    """Raises `UsageError` if `parts` lacks the part `name`, which the run `path` cannot make again."""
    unnamed = entries.get("unnamed", [])
    if isinstance(unnamed, list) and name in unnamed and name not in parts:
        flag = " or --env MODULE:NAME" if name == "env" else ""
        raise UsageError(
            f"{path} was trained with {entries.get(name)!r} as its {name}, which no name makes again: give it, "
            f"{name}=...{flag}"
        )
