"""The common part of tabular data sets, and the tables that scikit-learn ships.

`iris`, `wine` and `breast-cancer` are one table each. Their episodes are a few rows of the table with permuted labels,
and train and test are split by rows. `digits` (8 × 8 images as 64 numbers) is split by class: 0 to 4 for training, 5 to
9 for the test.
"""

import functools
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.data import DataConfig, LabelledData
from metarl.fewshot.episodes import EpisodeShape, Pool, distinct
from metarl.fewshot.preprocessing import Preprocessing
from metarl.randomness import make_generator

TEST_SHARE = 0.3
"""Share of test rows in each class, or of test classes."""
ORDERS = 200
"""Random orders of the owners of rows to try."""
CONSTANT = 1e-6
"""The deviation of a constant column at most, in units of its mean: float32 rounds so."""
SHOTS, QUERIES = 5, 15
"""Default shots and queries of an episode, if there are enough rows."""


class Table(LabelledData):
    """A data set of numeric rows in two pools. A subclass sets `pools` and `preprocessing`.

    >>> from metarl.fewshot.data import open_data
    >>> open_data("wine").default_shape()  # needs scikit-learn
    EpisodeShape(ways=3, shots=5, queries=9)
    """

    has_baselines = True

    @functools.cached_property
    def copies(self) -> list[str]:
        """A line on rows that may be copies of others, if there are any."""
        return alike(self.pools)

    def default_shape(self) -> EpisodeShape:
        return fitting_shape(self.pools.values())


def alike(pools: Mapping[str, Pool]) -> list[str]:
    """A line that counts the rows with the same inputs as another, if there are any: they may be copies.

    >>> from metarl.fewshot.data.tables import alike
    >>> rows, labels = torch.arange(8.0)[:, None] % 4, torch.arange(8) % 2
    >>> pools = {name: metarl.fewshot.Pool(rows, labels) for name in ("train", "test")}
    >>> alike(pools)[0][:70]
    '16 of 16 rows have the same inputs as another row, and 8 of 8 test row'
    """
    keys = {}
    for split, pool in pools.items():
        parts = ((part.flatten(1) + 0).numpy() for part in pool.inputs.split(4096))  # + 0: -0 is 0
        keys[split] = [hash(row.tobytes()) for part in parts for row in part]
    counts = Counter(key for split in keys.values() for key in split)
    copied = sum(count for count in counts.values() if count > 1)
    if not copied:
        return []
    seen = set(keys["train"])
    leaked = sum(key in seen for key in keys["test"])
    return [
        f"{copied} of {sum(counts.values())} rows have the same inputs as another row, and {leaked} of "
        f"{len(keys['test'])} test rows as a training row: if these are copies of one observation, drop them, for they "
        f"make the test too easy"
    ]


class FavourablePool(Pool):
    """A pool of which every episode has the favourable class, as label 1. The other classes get the labels in order.

    >>> from metarl.fewshot.data.tables import FavourablePool
    >>> pool = FavourablePool(torch.arange(15.0)[:, None], torch.arange(15) // 5, favourable=0)
    >>> drawn = pool.draw(4, metarl.fewshot.EpisodeShape(ways=2, shots=1, queries=2), torch.Generator())
    >>> bool((drawn[:, 1] < 5).all())  # label 1 is class 0 in every episode
    True
    """

    def __init__(
        self,
        inputs: Shaped[Tensor, "n ..."],
        labels: Tensor,
        groups: Tensor | None = None,
        *,
        favourable: int,
        **names: Any,
    ):
        super().__init__(inputs, labels, groups, **names)
        self.favourable = favourable

    def draw(self, count: int, shape: EpisodeShape, generator: torch.Generator) -> Int[Tensor, "E N n"]:
        drawn = super().draw(count, shape, generator)
        favourable = int((self.classes == self.favourable).nonzero()[0, 0])
        start, size = int(self.starts[favourable]), int(self.counts[favourable])
        is_favourable = (drawn[..., 0] >= start) & (drawn[..., 0] < start + size)  # examples are sorted by class
        lacking = ~is_favourable.any(1)
        if bool(lacking.any()):  # it takes the place of the class drawn first
            sizes = torch.full((int(lacking.sum()),), size)
            drawn[lacking, 0] = start + distinct(sizes, drawn.shape[-1], size, generator)
            is_favourable[lacking, 0] = True
        order = drawn[..., 0].masked_fill(is_favourable, -1).argsort(1)  # the favourable one first
        order[:, :2] = order[:, :2].flip(1)
        return drawn.gather(1, order[..., None].expand_as(drawn))

    def labelled(self) -> tuple[Shaped[Tensor, "n ..."], Tensor] | None:
        if len(self.classes) > 2:
            return None
        return self.inputs, (self.classes == self.favourable).long().repeat_interleave(self.counts)


def fitting_shape(pools: Collection[Pool]) -> EpisodeShape:
    """Up to 5 ways, 5 shots and 15 queries, as the smallest of `pools` allows."""
    ways = min(pool.default_ways for pool in pools)
    rows = min(int(pool.counts.min()) for pool in pools)
    shots = max(1, min(SHOTS, rows // 2))
    return EpisodeShape(ways, shots, max(1, min(QUERIES, rows - shots)))


def held_out_rows(labels: Int[Tensor, "n"], name: str, share: float = TEST_SHARE) -> Bool[Tensor, "n"]:
    """The mask of the test rows: a random `share` of each class, at least two rows, that depends on `name`."""
    generator = make_generator("table rows", name)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        order = torch.rand(len(rows), generator=generator, dtype=torch.float64).argsort()
        held_out[rows[order[: max(2, round(share * len(rows)))]]] = True
    return held_out


def held_out_classes(labels: Int[Tensor, "n"], name: str) -> Bool[Tensor, "n"]:
    """The mask of the rows of the test classes: a random `TEST_SHARE` of all, at least two.

    Raises `UsageError` if there are fewer than four classes; the message calls the rows `name`.
    """
    number = int(labels.max()) + 1
    if number < 4:
        raise UsageError(f"{name} has {number} classes, too few to split by: leave --split-by out")
    test = torch.randperm(number, generator=make_generator("table classes"))[: max(2, round(TEST_SHARE * number))]
    return torch.isin(labels, test)


def standardisation(rows: Float[Tensor, "n D"], numeric: Bool[Tensor, "D"] | None = None) -> Preprocessing:
    """Scales columns to mean 0 and variance 1 over `rows`, only the `numeric` ones if given.

    A column that is constant there becomes 0 everywhere: nobody has learned what another value of it would mean.
    """
    deviation, mean = rows.double().std(0, correction=0), rows.double().mean(0)
    scale = torch.where(deviation > CONSTANT * mean.abs(), 1 / deviation, 0.0)
    shift = -mean * scale
    if numeric is not None:
        scale, shift = torch.where(numeric, scale, 1.0), torch.where(numeric, shift, 0.0)
    mask = () if numeric is None else tuple(numeric.tolist())
    return Preprocessing((rows.shape[1],), tuple(scale.tolist()), tuple(shift.tolist()), mask)


def held_out_values(
    labels: Int[Tensor, "n"], owners: Int[Tensor, "n"], name: str, share: float = TEST_SHARE
) -> Bool[Tensor, "n"]:
    """The mask of the test rows if all rows of one owner, such as a patient, are on the same side.

    Owners are taken in a random order until the test has a `share` of the rows, the first of `ORDERS` orders by
    which both sides have two rows of each class. Raises `UsageError` if none does; the message calls the rows `name`.
    """
    generator = make_generator("table owners")
    owner_sizes = owners.bincount()
    for _ in range(ORDERS):
        order = torch.rand(len(owner_sizes), generator=generator, dtype=torch.float64).argsort()
        before = owner_sizes[order].cumsum(0) - owner_sizes[order]
        held_out = torch.isin(owners, order[before < share * len(owners)])
        sides = [labels[side].bincount(minlength=int(labels.max()) + 1) for side in (held_out, ~held_out)]
        if min(int(side.min()) for side in sides) >= 2:
            return held_out
    raise UsageError(
        f"{name}: its {len(owner_sizes)} values cannot be split so that training and test have two rows of each class"
    )


def split_pools(
    rows: Shaped[Tensor, "n ..."],
    labels: Int[Tensor, "n"],
    held_out: Bool[Tensor, "n"],
    name: str,
    groups: Int[Tensor, "n"] | None = None,
    favourable: int | None = None,
    units: Int[Tensor, "n"] | None = None,
    unit_name: str = "rows",
) -> Mapping[str, Pool]:
    """The pools of the training rows and of the `held_out` test rows, those of a `favourable` class if given.

    `units` are those of intervals (`Pool`); each row is one if they are not given.
    """
    pools = {}
    units = torch.arange(len(rows)) if units is None else units
    for split, chosen in (("train", ~held_out), ("test", held_out)):
        parts = rows[chosen], labels[chosen], None if groups is None else groups[chosen]
        how: dict[str, Any] = {"name": f"{name} ({split})", "units": units[chosen], "unit_name": unit_name}
        how["ids"] = torch.arange(len(rows))[chosen]
        pools[split] = (
            Pool(*parts, **how) if favourable is None else FavourablePool(*parts, **how, favourable=favourable)
        )
    return pools


class BundledTable(Table):
    """A table that scikit-learn ships, split by rows.

    >>> from metarl.fewshot.data import open_data
    >>> sorted(open_data("iris").pools)  # needs scikit-learn
    ['test', 'train']
    """

    name: str

    def __init__(self, config: DataConfig):
        super().__init__(config)
        bunch = bundled(self.name)
        rows = torch.from_numpy(bunch.data).float()
        labels = torch.from_numpy(bunch.target).to(torch.int64)
        held_out = held_out_rows(labels, self.name)
        self.preprocessing = standardisation(rows[~held_out])
        self.pools = split_pools(rows, labels, held_out, self.name)


class Iris(BundledTable):
    """150 flowers of 3 species, 4 measures (Fisher 1936).

    >>> from metarl.fewshot.data import open_data
    >>> open_data("iris").preprocessing.shape  # needs scikit-learn
    (4,)
    """

    name = "iris"


class Wine(BundledTable):
    """178 wines of 3 growers, 13 measures.

    >>> from metarl.fewshot.data import open_data
    >>> open_data("wine").preprocessing.shape  # needs scikit-learn
    (13,)
    """

    name = "wine"


class BreastCancer(BundledTable):
    """569 tumours, malignant or benign, 30 measures.

    >>> from metarl.fewshot.data import open_data
    >>> open_data("breast-cancer").preprocessing.shape  # needs scikit-learn
    (30,)
    """

    name = "breast-cancer"


class Digits(Table):
    """1,797 hand-written digits of 64 numbers from 0 to 16, scaled to 0 to 1 for the network.

    >>> from metarl.fewshot.data import open_data
    >>> open_data("digits").pools["test"].classes  # needs scikit-learn
    tensor([5, 6, 7, 8, 9])
    """

    def __init__(self, config: DataConfig):
        super().__init__(config)
        bunch = bundled("digits")
        rows = torch.from_numpy(bunch.data).float()
        labels = torch.from_numpy(bunch.target).to(torch.int64)
        self.preprocessing = Preprocessing((rows.shape[1],), scale=(1 / 16,))
        self.pools = split_pools(rows, labels, labels >= 5, "digits", units=labels, unit_name="classes")

    def default_shape(self) -> EpisodeShape:
        return EpisodeShape()


def bundled(name: str) -> Any:
    """Loads the table `name` from scikit-learn; raises `UsageError` if scikit-learn is not installed."""
    try:
        import sklearn.datasets
    except ImportError:
        raise UsageError(
            f"{name} comes with scikit-learn, which is missing: pip install 'metarl-kit[tables]'"
        ) from None
    return getattr(sklearn.datasets, f"load_{name.replace('-', '_')}")()
