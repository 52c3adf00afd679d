"""Data sets by id. Each module has a `DataSet` and its options, and is imported on first use."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.options import build
from metarl.fewshot.episodes import Episodes, EpisodeShape, Kind, Pool, TaskSpec, episode_generator
from metarl.fewshot.preprocessing import Preprocessing
from metarl.registry import find_class

SPLITS = ("train", "test")


@dataclass(frozen=True)
class DataConfig:
    """Options of every data set. A data set's own options are the fields of a subclass, defined next to the data set.

    >>> from pathlib import Path
    >>> metarl.fewshot.DataConfig(root=Path("data/omniglot")).root.name
    'omniglot'
    """

    root: Path | None = None
    """Folder of the data files, for data sets that are read from files."""


class DataSet(abc.ABC):
    """Tasks in two splits, "train" and "test", which share no class, no row of a table, or no random draw.

    >>> from metarl.fewshot.data import open_data
    >>> data = open_data("sinusoid")
    >>> data.episodes("train", 4, data.default_shape(), seed=0).support.x.shape
    torch.Size([4, 5, 1])
    """

    config_class: ClassVar[type[DataConfig]] = DataConfig
    kind: Kind = "classification"
    preprocessing: Preprocessing
    targets: Preprocessing | None = None
    """In regression: how raw values become the values to learn; they are the same if None."""
    has_baselines: bool = False
    """Whether the inputs are for simple models too, as those of tables, embeddings and texts are."""

    def __init__(self, config: DataConfig):
        self.config = config

    @abc.abstractmethod
    def episodes(self, split: str, count: int, shape: EpisodeShape, *, seed: int) -> Episodes:
        """Draws `count` episodes: a pure function of the arguments. Raises `UsageError` if the data do not suffice."""

    def outputs(self, shape: EpisodeShape) -> int:
        """N in classification, the size of a value in regression."""
        return shape.ways

    def spec(self, shape: EpisodeShape) -> TaskSpec:
        """What a learner knows about the episodes in advance."""
        return TaskSpec(self.kind, shape, self.preprocessing, self.outputs(shape), self.targets)

    def default_shape(self) -> EpisodeShape:
        """The shape of test episodes unless the user gives another."""
        return EpisodeShape()

    def summary(self) -> list[str]:
        """How a user's files were read, in lines for people; empty if there is nothing to decide about the data."""
        return []

    def facts(self) -> dict[str, Any]:
        """What every result has to say of the data, such as the favourable class: plain values."""
        return {}

    def class_names(self, split: str) -> list[str] | None:
        """The classes of a split, in the order of their places in `Members`; None if episodes make up their own."""
        return None

    def group_names(self) -> list[str]:
        """What the values 0, 1, … of the protected group stand for; empty if they have no names."""
        return []

    def protected(self) -> Mapping[str, tuple[Sequence[str], Int[Tensor, "n"]]]:
        """Further protected columns: the names of their groups, and the group of each example by its id (`Pool`)."""
        return {}

    def encoder(self) -> dict[str, Any] | None:
        """How raw files become inputs, as plain values that travel with the run; None if inputs are arrays."""
        return None

    def fingerprint(self) -> str | None:
        """A checksum of the examples, by which a resumed run notices other data; None if they are drawn by a seed."""
        return None


class LabelledData(DataSet):
    """A data set with one pool of labelled examples per split. A subclass sets `pools` and `preprocessing`.

    >>> from metarl.fewshot import DataConfig, EpisodeShape, Pool
    >>> from metarl.fewshot.data import LabelledData
    >>> from metarl.fewshot.preprocessing import Preprocessing
    >>> class Points(LabelledData):
    ...     preprocessing = Preprocessing((2,))
    ...     pools = {split: Pool(torch.zeros(60, 2), torch.arange(60) // 6) for split in ("train", "test")}
    >>> Points(DataConfig()).episodes("test", 4, EpisodeShape(ways=5, shots=1, queries=2), seed=0).query.x.shape
    torch.Size([4, 10, 2])
    """

    pools: Mapping[str, Pool]
    classes: Sequence[str] = ()
    """What the labels 0, 1, … stand for; empty if they have no names."""

    def class_names(self, split: str) -> list[str] | None:
        labels = self.pools[split].labels.tolist()
        return [self.classes[label] if self.classes else str(label) for label in labels]

    def fingerprint(self) -> str | None:
        """The CRC-32 of inputs, labels and groups of both pools."""
        crc = 0
        for split in SPLITS:
            crc = self.pools[split].checksum(crc)
        return f"{crc:08x}"

    def episodes(self, split: str, count: int, shape: EpisodeShape, *, seed: int) -> Episodes:
        generator = episode_generator(split, seed)
        return self.pools[split].episodes(count, shape, self.preprocessing, generator)


def data_class(data: str | type[DataSet]) -> type[DataSet]:
    """The data set class that an id, or MODULE:NAME, names, or a class itself; raises `UsageError` if there is none."""
    return find_class("data set", data, DataSet)  # type: ignore[type-abstract]


def data_config(data: str | type[DataSet], options: Mapping[str, Any] | DataConfig | None = None) -> DataConfig:
    """The options of the data set `data`, with defaults for those not given; raises `UsageError` for a wrong option."""
    if isinstance(options, DataConfig):
        return options
    shown = data if isinstance(data, str) else data.__name__
    return build(data_class(data).config_class, options or {}, f"data set {shown!r}")


def open_data(data: str | type[DataSet] | DataSet, options: Mapping[str, Any] | DataConfig | None = None) -> DataSet:
    """Reads the data set that `data`, an id, MODULE:NAME or a class, names; one that is open is returned as it is.

    Raises `UsageError` if its files are missing or damaged, or for options of an open data set.

    >>> from metarl.fewshot.data import open_data
    >>> open_data("biased", {"merit": 3, "proxies": 1}).preprocessing.shape
    (4,)
    """
    if not isinstance(data, DataSet):
        return data_class(data)(data_config(data, options))
    if options and options != data.config:
        raise UsageError(f"the data set {type(data).__name__} is open: it takes no options")
    return data
