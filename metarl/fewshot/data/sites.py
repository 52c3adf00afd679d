"""Small related tables, such as those of clinics, schools or branches: each site is a task.

Support and query of an episode are rows of one site, whole sites are held out for the test, and label j is class j in
every episode. What is to be learned is what sites have in common, and how they differ.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.data.tables import TEST_SHARE
from metarl.fewshot.episodes import EpisodeShape, Pool, distinct
from metarl.randomness import make_generator

FEWEST_TEST_SITES = 5
"""Test sites that an interval needs; as many are held out if they are at most half."""


class SitePool(Pool):
    """Examples of several sites. Every episode is drawn from one site, in which it has all classes.

    `labels` `[n]` count from 0 to N − 1, and `sites` `[n]` from 0, and each site has each class. `targets` `[n, O]` are
    the values to learn in regression; then all labels are 0. Units of intervals are the sites, unless others are given.

    >>> from metarl.fewshot.data.sites import SitePool
    >>> pool = SitePool(torch.zeros(60, 2), torch.arange(60) % 2, torch.arange(60) // 20)
    >>> shape = metarl.fewshot.EpisodeShape(ways=2, shots=3, queries=5)
    >>> bool((pool.draw(4, shape, torch.Generator()) // 20).float().var((1, 2)).max() == 0)  # rows of one site
    True
    """

    def __init__(
        self,
        inputs: Shaped[Tensor, "n ..."],
        labels: Int[Tensor, "n"],
        sites: Int[Tensor, "n"],
        groups: Tensor | None = None,
        *,
        targets: Float[Tensor, "n O"] | None = None,
        name: str = "the data",
        units: Tensor | None = None,
        unit_name: str = "sites",
        ids: Tensor | None = None,
    ):
        self.num_classes = int(labels.max()) + 1
        sites = sites.unique(return_inverse=True)[1]
        cells = sites * self.num_classes + labels
        units = sites if units is None else units
        super().__init__(inputs, cells, groups, name=name, units=units, unit_name=unit_name, ids=ids)
        self.num_sites = int(sites.max()) + 1
        if len(self.classes) != self.num_sites * self.num_classes:
            raise UsageError(f"{name}: a site lacks a class")
        self.targets = None if targets is None else targets[cells.argsort(stable=True)]

    @property
    def default_ways(self) -> int:
        return self.num_classes

    @property
    def labels(self) -> Int[Tensor, "N"]:
        return torch.arange(self.num_classes)

    def places(self, index: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
        return super().places(index) % self.num_classes

    def of_rows(self, chosen: Bool[Tensor, "n"], name: str) -> "SitePool":
        """The pool, called `name`, of the `chosen` examples. Raises `UsageError` if a site in it lacks a class."""
        cells = self.classes.repeat_interleave(self.counts)[chosen]
        optional = (self.groups, self.targets, self.ids)
        groups, targets, ids = (None if part is None else part[chosen] for part in optional)
        sites, labels = cells // self.num_classes, cells % self.num_classes
        how: dict[str, Any] = {"name": name, "units": self.units[chosen], "unit_name": self.unit_name, "ids": ids}
        return SitePool(self.inputs[chosen], labels, sites, groups, targets=targets, **how)

    def check(self, shape: EpisodeShape) -> None:
        if shape.ways != self.num_classes:
            raise UsageError(
                f"{shape.ways} ways asked for, but every episode of {self.name} has all {self.num_classes} classes: "
                f"leave --ways out"
            )
        need, fewest = shape.shots + shape.queries, int(self.counts.min())
        if need > fewest:
            raise UsageError(
                f"{shape.shots} shots and {shape.queries} queries need {need} examples of each class at each site, "
                f"but {self.name} has a site with {fewest} of one: --task-rows {need} leaves such sites out"
            )

    def draw(self, count: int, shape: EpisodeShape, generator: torch.Generator) -> Int[Tensor, "E N per_class"]:
        """As `Pool.draw`, from one site for each episode; the order of the classes is always the same."""
        sites = torch.randint(self.num_sites, (count, 1), generator=generator)
        cells = sites * self.num_classes + torch.arange(self.num_classes)
        members = distinct(self.counts[cells], shape.shots + shape.queries, int(self.counts.max()), generator)
        return self.starts[cells][..., None] + members

    def labelled(self) -> tuple[Shaped[Tensor, "n ..."], Tensor]:
        if self.targets is not None:
            return self.inputs, self.targets
        return self.inputs, (self.classes % self.num_classes).repeat_interleave(self.counts)


def site_pools(
    rows: Float[Tensor, "n D"],
    labels: Int[Tensor, "n"],
    sites: Int[Tensor, "n"],
    held_out: Bool[Tensor, "n"],
    name: str,
    groups: Int[Tensor, "n"] | None = None,
    targets: Float[Tensor, "n O"] | None = None,
    units: Int[Tensor, "n"] | None = None,
    unit_name: str = "sites",
) -> dict[str, SitePool]:
    """The pools of the training rows and of the `held_out` test rows; `units` are the rows if not given."""
    units = torch.arange(len(rows)) if units is None else units
    pools = {}
    for split, chosen in (("train", ~held_out), ("test", held_out)):
        parts = (groups, targets, units)
        group, target, unit = (None if part is None else part[chosen] for part in parts)
        pools[split] = SitePool(
            rows[chosen],
            labels[chosen],
            sites[chosen],
            group,
            targets=target,
            name=f"{name} ({split})",
            units=unit,
            unit_name=unit_name,
            ids=torch.arange(len(rows))[chosen],
        )
    return pools


def held_out_sites(
    sites: Int[Tensor, "n"], name: str, share: float = TEST_SHARE, fewest: int = FEWEST_TEST_SITES
) -> Bool[Tensor, "n"]:
    """The mask of the rows of the sites that are held out: a random `share` of them, or `fewest` if that is more.

    `fewest` are never more than half. Raises `UsageError` for a single site; the message calls the rows `name`.
    """
    number = len(sites.unique())
    if number < 2:
        raise UsageError(f"{name}: one site cannot be both in training and held out; want two at least")
    held_out = min(number - 1, max(1, round(share * number), min(fewest, number // 2)))
    order = torch.rand(number, generator=make_generator("table sites"), dtype=torch.float64).argsort()
    return torch.isin(sites, sites.unique()[order[:held_out]])


def large_enough(
    labels: Int[Tensor, "n"], sites: Int[Tensor, "n"], fewest: int, names: Sequence[str], classes: Sequence[str]
) -> tuple[Bool[Tensor, "n"], list[str]]:
    """The mask of the rows of sites that have `fewest` rows of each class, and the other sites, in words."""
    counts = (sites * len(classes) + labels).bincount(minlength=len(names) * len(classes)).view(-1, len(classes))
    small = (counts < fewest).any(1)
    of = [f" of {name}" for name in classes] if len(classes) > 1 else [" rows"]
    words = [
        f"{names[site]} ({int(counts[site].min())}{of[int(counts[site].argmin())]})"
        for site in small.nonzero()[:, 0].tolist()
    ]
    return ~small[sites], words
