"""Episodes: batches of small tasks, each with a support set to learn from and a query set to be tested on.

E episodes of N ways, K shots, and Q queries per way: support `[E, N·K, ...]`, query `[E, N·Q, ...]`. Within an episode,
the order of both sets is random, and so is the class behind each label, so positions carry no information. Regression
has N = 1.
"""

import copy
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.preprocessing import Preprocessing, as_labels, check_finite_examples
from metarl.randomness import make_generator
from metarl.tasks import check_count

Kind = Literal["classification", "regression"]
CHECKED_BYTES = 2**28
"""Most bytes of a pool that a checksum reads."""
EXAMPLES = ("rows", "pictures")
"""What the units of a pool are called if each example is one."""
CLASSES = ("classes", "characters")
"""What they are called if each is a class, or several that are variants of each other."""
FEW = 1024
"""Up to this many examples of a class, each gets a random key: the draws of earlier versions."""


@dataclass(frozen=True)
class Samples:
    """Examples of E tasks: the support sets or the query sets of a batch of episodes.

    >>> from metarl.fewshot import Samples
    >>> samples = Samples(torch.zeros(4, 5, 6), torch.arange(5).expand(4, 5))
    >>> samples[:2].x.shape
    torch.Size([2, 5, 6])
    """

    x: Float[Tensor, "E n ..."]
    """Inputs as the network sees them."""
    y: Shaped[Tensor, "E n *O"]
    """Labels, int64 `[E, n]` from 0 to N−1; in regression values `[E, n, O]`."""
    groups: Int[Tensor, "E n"] | None = None
    """The protected group of each example, counted from 0; None if the data have none."""

    def __getitem__(self, tasks: slice) -> "Samples":
        return Samples(self.x[tasks], self.y[tasks], None if self.groups is None else self.groups[tasks])

    def to(self, device: torch.device | str) -> "Samples":
        groups = None if self.groups is None else self.groups.to(device)
        return Samples(self.x.to(device), self.y.to(device), groups)


@dataclass(frozen=True)
class Members:
    """Which units of a finite pool the episodes hold, support and query, and the class of each example in the pool.

    A unit is what would be another in another pool of the same kind: a class, if the classes of the test are not those
    of training, or a character with its rotations, else a row, or what the rows are split by, such as a patient.

    >>> from metarl.fewshot.episodes import Members
    >>> ones = torch.ones(4, 5, dtype=torch.int64)
    >>> Members("rows", ones, ones, ones, ones)[:2].support.shape
    torch.Size([2, 5])
    """

    name: str
    """What the units are, in the plural."""
    support: Int[Tensor, "E S"]
    query: Int[Tensor, "E Q"]
    support_classes: Int[Tensor, "E S"]
    query_classes: Int[Tensor, "E Q"]
    query_ids: Int[Tensor, "E Q"] | None = None
    """Which example of the data each query is, such as the row of a table; None if they are not numbered."""

    @property
    def are_classes(self) -> bool:
        return self.name in CLASSES

    @property
    def are_examples(self) -> bool:
        return self.name in EXAMPLES

    def different(self, queries: Bool[Tensor, "E Q"]) -> set[int] | None:
        """Which different examples of the data `queries` are, or their owners, such as patients, if they have some.

        None if the examples are not numbered.
        """
        if self.query_ids is None:
            return None
        by_examples = self.are_examples or self.are_classes or self.name == "sites"
        return set((self.query_ids if by_examples else self.query)[queries].tolist())

    def __getitem__(self, tasks: slice) -> "Members":
        return Members(
            self.name,
            self.support[tasks],
            self.query[tasks],
            self.support_classes[tasks],
            self.query_classes[tasks],
            None if self.query_ids is None else self.query_ids[tasks],
        )

    @classmethod
    def joined(cls, parts: Sequence["Members"]) -> "Members":
        """The members of all episodes of several batches."""
        ids = [part.query_ids for part in parts if part.query_ids is not None]
        return cls(
            parts[0].name,
            torch.cat([part.support for part in parts]),
            torch.cat([part.query for part in parts]),
            torch.cat([part.support_classes for part in parts]),
            torch.cat([part.query_classes for part in parts]),
            torch.cat(ids) if ids else None,
        )


@dataclass(frozen=True)
class Episodes:
    """A batch of E tasks.

    >>> from metarl.fewshot.data import open_data
    >>> data = open_data("sinusoid")
    >>> episodes = data.episodes("train", 4, metarl.fewshot.EpisodeShape(ways=1, shots=5, queries=10), seed=0)
    >>> len(episodes), episodes.query.x.shape
    (4, torch.Size([4, 10, 1]))
    """

    support: Samples
    query: Samples
    members: Members | None = None
    """The units of the pool that the examples come from; None if every example is drawn anew."""

    def __len__(self) -> int:
        return len(self.support.x)

    def __getitem__(self, tasks: slice) -> "Episodes":
        return Episodes(self.support[tasks], self.query[tasks], None if self.members is None else self.members[tasks])

    def to(self, device: torch.device | str) -> "Episodes":
        """The examples on `device`; members stay on the CPU."""
        return Episodes(self.support.to(device), self.query.to(device), self.members)


@dataclass(frozen=True)
class EpisodeShape:
    """N ways, K shots, Q queries per way; regression has one way.

    >>> metarl.fewshot.EpisodeShape(ways=20, shots=5).queries
    15
    """

    ways: int = 5
    shots: int = 1
    queries: int = 15

    def __post_init__(self) -> None:
        for name in ("ways", "shots", "queries"):
            check_count(name, getattr(self, name))


@dataclass(frozen=True)
class TaskSpec:
    """What a learner knows about its tasks before it meets them.

    >>> from metarl.fewshot.data import open_data
    >>> spec = open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2))
    >>> spec.kind, spec.input_shape, spec.outputs
    ('classification', (6,), 2)
    """

    kind: Kind
    shape: EpisodeShape
    """The shape of the test episodes."""
    preprocessing: Preprocessing
    outputs: int
    """N in classification, the size of a value in regression."""
    targets: Preprocessing | None = None
    """In regression: how raw values become the values to learn; they are the same if None."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) or (D,)."""
        return self.preprocessing.shape


class Pool:
    """Labelled examples to draw episodes from: one tensor, sorted by class, with the start of each class.

    `inputs` `[n, *shape]` are uint8 or float32, `labels` `[n]` any integers, one per class, and `groups` `[n]` counted
    from 0, or None. `units` `[n]` are what varies from pool to pool (`Members`), in the plural `unit_name`; by default
    the classes. `ids` `[n]` number the examples in the whole data (`Members.query_ids`). Raises `UsageError` for NaN,
    labels that are not integers and lengths that differ.

    >>> from metarl.fewshot import EpisodeShape, Pool
    >>> from metarl.fewshot.preprocessing import Preprocessing
    >>> pool, shape = Pool(torch.zeros(60, 2), torch.arange(60) // 6), EpisodeShape(ways=5, shots=1, queries=2)
    >>> pool.episodes(4, shape, Preprocessing((2,)), torch.Generator()).support.x.shape
    torch.Size([4, 5, 2])
    """

    def __init__(
        self,
        inputs: Shaped[Tensor, "n ..."],
        labels: Tensor,
        groups: Tensor | None = None,
        *,
        name: str = "the data",
        units: Tensor | None = None,
        unit_name: str = "classes",
        ids: Tensor | None = None,
    ):
        units = labels if units is None else units
        labels = as_labels(labels, f"{name}, labels")
        if any(len(part) != len(inputs) for part in (labels, units, *([] if groups is None else [groups]))):
            raise UsageError(f"{name}: {len(inputs)} examples but {len(labels)} labels")
        if inputs.is_floating_point():
            check_finite_examples(inputs, name)
        order = labels.argsort(stable=True)
        if not torch.equal(order, torch.arange(len(order))):
            inputs, labels, units = inputs[order], labels[order], units[order]
            ids = None if ids is None else ids[order]
            groups = None if groups is None else groups[order]
        self.name = name
        self._inputs = inputs
        self.groups = groups
        self.units, self.unit_name, self.ids = units, unit_name, ids
        self.classes, self.counts = labels.unique_consecutive(return_counts=True)
        """The labels of the C classes and how many examples each has, `[C]`."""
        self.starts = self.counts.cumsum(0) - self.counts
        self.targets: Float[Tensor, "n O"] | None = None
        """The values to learn in regression."""

    @property
    def default_ways(self) -> int:
        """Ways of an episode unless the user gives others."""
        return min(5, len(self.classes))

    @property
    def labels(self) -> Int[Tensor, "L"]:
        """The labels of the data in the order of their places in `Members`."""
        return self.classes

    def places(self, index: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        """The places in `labels` of the examples at `index`."""
        return torch.searchsorted(self.starts, index, right=True) - 1

    def labelled(self) -> tuple[Shaped[Tensor, "n ..."], Tensor] | None:
        """All inputs with labels that mean the same in every episode, or values; None if each episode permutes them."""
        return None

    def __len__(self) -> int:
        """How many examples its classes have."""
        return int(self.counts.sum())

    @property
    def inputs(self) -> Shaped[Tensor, "n ..."]:
        """All examples, sorted by class."""
        return self._inputs

    def examples(self, index: Int[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """The examples at `index`, all that drawing episodes reads."""
        return self._inputs[index]

    def of_classes(self, chosen: Bool[Tensor, "C"], name: str) -> "Pool":
        """The pool, called `name`, of the `chosen` classes; it shares the examples with this one."""
        pool = copy.copy(self)
        pool.name = name
        pool.classes, pool.counts, pool.starts = (part[chosen] for part in (self.classes, self.counts, self.starts))
        return pool

    def of_rows(self, chosen: Bool[Tensor, "n"], name: str) -> "Pool":
        """The pool, called `name`, of the `chosen` examples. Raises `UsageError` if a class would have none."""
        counts = torch.stack([part.sum() for part in chosen.split(self.counts.tolist())])
        if not counts.all():
            raise UsageError(f"{name}: a class has no rows in it")
        pool = copy.copy(self)
        pool.name, pool.counts, pool.starts = name, counts, counts.cumsum(0) - counts
        pool._inputs, pool.units = self._inputs[chosen], self.units[chosen]
        pool.groups = None if self.groups is None else self.groups[chosen]
        pool.targets = None if self.targets is None else self.targets[chosen]
        pool.ids = None if self.ids is None else self.ids[chosen]
        return pool

    def checksum(self, crc: int = 0) -> int:
        """Goes on with the CRC-32 `crc` over labels, groups and inputs.

        Of inputs larger than `CHECKED_BYTES`, which may be on disk, it reads every k-th example.
        """
        size = self.inputs[:1].nbytes * len(self.inputs)
        inputs = self.inputs[:: max(1, -(-size // CHECKED_BYTES))]
        for values in (inputs, self.classes, self.counts, self.groups, self.targets):
            for part in () if values is None else values.split(4096):
                crc = zlib.crc32(part.contiguous().numpy(), crc)
        return crc

    def check(self, shape: EpisodeShape) -> None:
        """Raises `UsageError` if there are too few classes or examples for episodes of `shape`."""
        if shape.ways > len(self.classes):
            raise UsageError(f"{shape.ways} ways asked for, but {self.name} has {len(self.classes)} classes")
        need = shape.shots + shape.queries
        if need > int(self.counts.min()):
            raise UsageError(
                f"{shape.shots} shots and {shape.queries} queries need {need} examples of each class, "
                f"but {self.name} has a class of {int(self.counts.min())}"
            )

    def draw(self, count: int, shape: EpisodeShape, generator: torch.Generator) -> Int[Tensor, "E N per_class"]:
        """Draws the indices into `inputs` of `count` episodes: N distinct classes each, and K + Q examples per class.

        The j-th class drawn gets the label j, so every episode permutes the labels anew.
        """
        # The first N of a random order. float64 has no ties, which platforms would break differently.
        keys = torch.rand(count, len(self.classes), generator=generator, dtype=torch.float64)
        classes = keys.topk(shape.ways).indices
        members = distinct(self.counts[classes], shape.shots + shape.queries, int(self.counts.max()), generator)
        return self.starts[classes][..., None] + members

    def episodes(
        self, count: int, shape: EpisodeShape, preprocessing: Preprocessing, generator: torch.Generator
    ) -> Episodes:
        """Draws `count` episodes, with one gather for all."""
        self.check(shape)
        drawn = self.draw(count, shape, generator)
        labels = torch.arange(shape.ways)[:, None].expand(shape.ways, shape.shots + shape.queries).expand_as(drawn)
        drawn_parts = []
        for part in (slice(None, shape.shots), slice(shape.shots, None)):
            index, y = drawn[..., part].flatten(1), labels[..., part].flatten(1)
            order = torch.rand(index.shape, generator=generator, dtype=torch.float64).argsort(1)
            index = index.gather(1, order)
            drawn_parts.append((index, y.gather(1, order) if self.targets is None else self.targets[index]))
        (support, support_y), (query, query_y) = drawn_parts
        index = torch.cat([support, query], 1)
        x = preprocessing(self.examples(index))
        groups = None if self.groups is None else self.groups[index]
        cut = support.shape[1]
        halves = [None, None] if groups is None else [groups[:, :cut], groups[:, cut:]]
        owners = self.places(index)
        units, ids = self.units[index], None if self.ids is None else self.ids[query]
        members = Members(
            self.unit_name, units[:, :cut], units[:, cut:], owners[:, :cut], owners[:, cut:], query_ids=ids
        )
        return Episodes(Samples(x[:, :cut], support_y, halves[0]), Samples(x[:, cut:], query_y, halves[1]), members)


def distinct(
    counts: Int[Tensor, "*batch"], number: int, largest: int, generator: torch.Generator
) -> Int[Tensor, "*batch number"]:
    """`number` distinct integers below each of `counts`, whose maximum is at most `largest`, in random order.

    For more than `FEW`, the time does not depend on `counts`: Floyd's algorithm (Bentley and Floyd 1987, "A sample of
    brilliance") draws `number` of them, the i-th from the first n − number + i.
    """
    if largest <= FEW:
        keys = torch.rand(*counts.shape, largest, generator=generator, dtype=torch.float64)
        return keys.masked_fill(torch.arange(largest) >= counts[..., None], -1.0).topk(number).indices
    last = counts[..., None] - number + torch.arange(number)
    uniform = torch.rand(last.shape, generator=generator, dtype=torch.float64)
    drawn = (uniform * (last + 1)).long().flatten(0, -2)
    ordered = drawn.sort(-1).values
    for row in (ordered[:, 1:] == ordered[:, :-1]).any(-1).nonzero()[:, 0].tolist():  # one that is there already
        seen: set[int] = set()
        for place, (value, instead) in enumerate(
            zip(drawn[row].tolist(), last.flatten(0, -2)[row].tolist(), strict=True)
        ):
            drawn[row, place] = instead if value in seen else value
            seen.add(int(drawn[row, place]))
    order = torch.rand(last.shape, generator=generator, dtype=torch.float64).argsort(-1)
    return drawn.view(last.shape).gather(-1, order)


def episode_generator(*parts: int | str) -> torch.Generator:
    """The generator of episodes, on the CPU, so that a seed gives the same episodes on every device."""
    return make_generator("episodes", *parts)
