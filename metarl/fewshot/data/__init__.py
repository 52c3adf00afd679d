"""Data sets by name. Each is a `DataSet` with its options beside it; the module is imported when it is asked for."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from metarl.experiment.options import build
from metarl.fewshot.episodes import Episodes, EpisodeShape, Kind, Pool, TaskSpec, episode_generator
from metarl.fewshot.names import import_named
from metarl.fewshot.preprocessing import Preprocessing

DATA = {
    "sinusoid": "metarl.fewshot.data.sinusoid:Sinusoid",
    "glyphs": "metarl.fewshot.data.glyphs:Glyphs",
    "omniglot": "metarl.fewshot.data.omniglot:Omniglot",
    "digits": "metarl.fewshot.data.tables:Digits",
    "iris": "metarl.fewshot.data.tables:Iris",
    "wine": "metarl.fewshot.data.tables:Wine",
    "breast-cancer": "metarl.fewshot.data.tables:BreastCancer",
    "csv": "metarl.fewshot.data.csv_table:CsvTable",
    "biased": "metarl.fewshot.data.biased:BiasedTables",
    "miniimagenet": "metarl.fewshot.data.imagenet:MiniImageNet",
    "tieredimagenet": "metarl.fewshot.data.imagenet:TieredImageNet",
}
"""Name → class of data set."""

SPLITS = ("train", "test")


@dataclass(frozen=True)
class DataConfig:
    """Options that every data set has; a subclass adds its own beside the data set."""

    root: Path | None = None
    """Where the files of the data lie, for data that come as files."""


class DataSet(abc.ABC):
    """Tasks in two splits, "train" and "test", that share no class (or, in regression, no episode)."""

    config_class: ClassVar[type[DataConfig]] = DataConfig
    kind: ClassVar[Kind] = "classification"
    preprocessing: Preprocessing

    def __init__(self, config: DataConfig):
        self.config = config

    @abc.abstractmethod
    def episodes(self, split: str, count: int, shape: EpisodeShape, *, seed: int) -> Episodes:
        """`count` episodes: a pure function of its arguments. Raises `UsageError` where the data do not suffice."""

    def outputs(self, shape: EpisodeShape) -> int:
        """N in classification, the size of a value in regression."""
        return shape.ways

    def spec(self, shape: EpisodeShape) -> TaskSpec:
        """What a learner may know of the episodes."""
        return TaskSpec(self.kind, shape, self.preprocessing, self.outputs(shape))

    def default_shape(self) -> EpisodeShape:
        """Episodes that suit the data, where the user does not say."""
        return EpisodeShape()


class LabelledData(DataSet):
    """Classification: one pool of examples for each split. A subclass sets `pools` and `preprocessing`."""

    pools: Mapping[str, Pool]

    def episodes(self, split: str, count: int, shape: EpisodeShape, *, seed: int) -> Episodes:
        generator = episode_generator(split, seed)
        return self.pools[split].episodes(count, shape, self.preprocessing, generator)


def data_class(name: str) -> type[DataSet]:
    """The class of the data set called `name`; raises `UsageError` for an unknown one."""
    return import_named(DATA, name, "data set")


def open_data(name: str, options: Mapping[str, Any] | DataConfig | None = None) -> DataSet:
    """The data set called `name`, read; raises `UsageError` where its files are missing or damaged."""
    cls = data_class(name)
    if not isinstance(options, DataConfig):
        given = dict(options or {})
        if isinstance(given.get("root"), str):
            given["root"] = Path(given["root"])
        options = build(cls.config_class, given, f"data set {name!r}")
    return cls(options)
