"""Validation during training: examples held out of the training set, the best state so far, and early stopping.

What is held out never comes from the test. If the classes of the test are not those of training, whole classes are held
out, else rows of each class, or all rows of some of what the table is split by, such as patients or sites. Which ones
depends on the data alone, so that runs of all seeds can be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.data import DataSet, LabelledData
from metarl.fewshot.data.sites import held_out_sites
from metarl.fewshot.data.tables import FavourablePool, held_out_rows, held_out_values
from metarl.fewshot.episodes import CLASSES, EXAMPLES, Episodes, EpisodeShape, Pool, episode_generator
from metarl.fewshot.learner import Learner
from metarl.randomness import derive_seed, make_generator

_BEST = "best."
"""What the names of the best state's tensors begin with in a checkpoint."""


class Validated(DataSet):
    """A data set with a third split, "validation", held out of "train".

    Scaling, words and medians of a table are still those of all training rows. Classes that are variants of each other,
    such as the rotations of a character, are on the same side.

    Raises `UsageError` if the training set is too small, or if it is finite and has no pools to hold examples out of.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.validation import Validated
    >>> data = Validated(open_data("iris"), share=0.2)  # needs scikit-learn
    >>> {split: len(pool) for split, pool in data.pools.items()}
    {'train': 84, 'validation': 21, 'test': 45}
    """

    def __init__(self, data: DataSet, share: float):
        if not 0 < share < 1:
            raise UsageError(f"validation_share must lie in (0, 1), got {share}")
        super().__init__(data.config)
        self.data, self.preprocessing = data, data.preprocessing
        self.kind, self.targets, self.has_baselines = data.kind, data.targets, data.has_baselines
        self.pools: dict[str, Pool] = {}
        if isinstance(data, LabelledData) and type(data).episodes is LabelledData.episodes:
            kept, held = hold_out(data.pools["train"], share)
            self.pools = {"train": kept, "validation": held, "test": data.pools["test"]}
        elif data.fingerprint() is not None:
            raise UsageError(f"{type(data).__name__} cannot hold examples out for validation: it has no pools")

    def episodes(self, split: str, count: int, shape: EpisodeShape, *, seed: int) -> Episodes:
        if split in self.pools and split != "test":
            return self.pools[split].episodes(count, shape, self.preprocessing, episode_generator(split, seed))
        if split == "validation":  # every draw is of new tasks
            return self.data.episodes("train", count, shape, seed=derive_seed("validation tasks", seed))
        return self.data.episodes(split, count, shape, seed=seed)

    def outputs(self, shape: EpisodeShape) -> int:
        return self.data.outputs(shape)

    def default_shape(self) -> EpisodeShape:
        return self.data.default_shape()

    def class_names(self, split: str) -> list[str] | None:
        if split == "test" or not self.pools:
            return self.data.class_names(split)
        assert isinstance(self.data, LabelledData)
        names = self.data.class_names("train")
        if names is None:
            return None
        named = dict(zip(self.data.pools["train"].labels.tolist(), names, strict=True))
        return [named[value] for value in self.pools[split].labels.tolist()]

    def group_names(self) -> list[str]:
        return self.data.group_names()

    def protected(self) -> Mapping[str, tuple[Sequence[str], Int[Tensor, "n"]]]:
        return self.data.protected()

    def facts(self) -> dict[str, Any]:
        return self.data.facts()

    def summary(self) -> list[str]:
        """The data's own lines, and what is held out."""
        if "validation" not in self.pools:
            return self.data.summary()
        pool = self.pools["validation"]
        examples = pool.unit_name in EXAMPLES
        units = pool.units[pool.starts] if pool.unit_name in CLASSES else pool.units
        count = f"{len(pool)} {pool.unit_name}" if examples else f"{len(units.unique())} {pool.unit_name}"
        return [*self.data.summary(), f"held out of the training for validation: {count}"]


def validation_shape(data: DataSet, shape: EpisodeShape) -> EpisodeShape:
    """The shape of validation episodes: `shape`, with as many queries of each class as the held out rows allow."""
    pool = data.pools.get("validation") if isinstance(data, Validated) else None
    left = shape.queries if pool is None else int(pool.counts.min()) - shape.shots
    if pool is not None and (left < 1 or len(pool.classes) < shape.ways):
        raise UsageError(
            f"{pool.name} has {len(pool.classes)} classes, one of {int(pool.counts.min())} rows, too few for "
            f"{shape.ways} ways and {shape.shots} shots: raise validation_share or train without validation"
        )
    return replace(shape, queries=min(shape.queries, left))


def hold_out(pool: Pool, share: float) -> tuple[Pool, Pool]:
    """The pool without a `share` of its units, and the pool of these; raises `UsageError` if it is too small."""
    kept_name, held_name = (f"{pool.name}{what}" for what in (" without validation", ", validation part"))
    labels = pool.classes.repeat_interleave(pool.counts)
    if pool.unit_name in CLASSES:
        if isinstance(pool, FavourablePool):
            raise UsageError(f"{pool.name}: every episode has the favourable class, so no classes can be held out")
        of_classes = pool.units[pool.starts]
        units = of_classes.unique()
        if len(units) < 4:
            raise UsageError(f"{pool.name} has {len(units)} {pool.unit_name}, too few to hold some out for validation")
        order = torch.randperm(len(units), generator=make_generator("validation classes"))
        held = torch.isin(of_classes, units[order[: max(2, round(share * len(units)))]])
        return pool.of_classes(~held, kept_name), pool.of_classes(held, held_name)
    if pool.unit_name in EXAMPLES:
        if int(pool.counts.min()) < 4:
            raise UsageError(
                f"{pool.name} has a class of {int(pool.counts.min())} {pool.unit_name}, too few for validation"
            )
        held = held_out_rows(labels, "validation", share)
    elif pool.unit_name == "sites":
        held = held_out_sites(pool.units, pool.name, share, fewest=1)
    else:
        held = held_out_values(labels, pool.units, f"{pool.name}, {pool.unit_name}", share)
    return pool.of_rows(~held, kept_name), pool.of_rows(held, held_name)


@dataclass
class Best:
    """The best validation so far.

    >>> from metarl.fewshot.validation import Best
    >>> Best(score=0.8, step=300).waited
    0
    """

    score: float | None = None
    """Accuracy, or mse; None before the first validation."""
    step: int = 0
    waited: int = 0
    """Validations since then, none of which was better."""
    stopped: bool = False
    """Whether the training has stopped early."""


class Selection:
    """A learner in training, and the best state that it had by validation. Both are in every checkpoint.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
    >>> from metarl.fewshot.validation import Selection
    >>> selection = Selection(ProtoNet(ProtoNetConfig(), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2))))
    >>> selection.note(0.8, step=100, patience=1), selection.note(0.7, step=200, patience=1)
    (True, False)
    >>> selection.best
    Best(score=0.8, step=100, waited=1, stopped=True)
    """

    def __init__(self, learner: Learner):
        self.learner = learner
        self.best = Best()
        self._tensors, self._values = learner.state()

    def note(self, score: float, step: int, patience: int | None) -> bool:
        """Takes note of a validation; returns whether it is the best. Stops after `patience` in a row that were not."""
        best, sign = self.best, -1 if self.learner.metric == "mse" else 1
        if best.score is None or sign * score > sign * best.score:
            self.best = Best(score, step)
            self._tensors, self._values = self.learner.state()
            return True
        self.best = Best(best.score, best.step, best.waited + 1, patience is not None and best.waited + 1 >= patience)
        return False

    def load_best(self, learner: Learner) -> Learner:
        """Puts `learner`, which is made like the one in training, into the best state; returns it."""
        learner.load_state(self._tensors, self._values)
        return learner

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        tensors, values = self.learner.state()
        best = {f"{_BEST}{name}": value for name, value in self._tensors.items()}
        return {**tensors, **best}, {**values, "best": {"validation": asdict(self.best), "values": dict(self._values)}}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        self._tensors = {n.removeprefix(_BEST): value for n, value in tensors.items() if n.startswith(_BEST)}
        if not self._tensors or "best" not in values:
            raise UsageError("the checkpoint has no best state: the run was made without validation")
        self.best, self._values = Best(**values["best"]["validation"]), values["best"]["values"]
        own = {name: value for name, value in tensors.items() if not name.startswith(_BEST)}
        self.learner.load_state(own, {name: value for name, value in values.items() if name != "best"})
