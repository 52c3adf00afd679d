"""Intervals of figures measured on a finite pool: hand-computed cases, and their coverage in simulation."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from metarl.fewshot.episodes import EpisodeShape, Members, Pool
from metarl.fewshot.intervals import mean_interval
from metarl.fewshot.preprocessing import Preprocessing

PLAIN = Preprocessing((4,))


def measured(pool: Pool, shape: EpisodeShape, seed: int, episodes: int = 600) -> tuple[torch.Tensor, Members]:
    """Whether the nearest class mean is right, for each query, and the members of the episodes."""
    drawn = pool.episodes(episodes, shape, PLAIN, torch.Generator().manual_seed(seed))
    assert drawn.members is not None
    one_hot = torch.nn.functional.one_hot(drawn.support.y, shape.ways).double()
    means = one_hot.mT @ drawn.support.x.double() / shape.shots
    right = torch.cdist(drawn.query.x.double(), means).argmin(-1) == drawn.query.y
    return right.double(), drawn.members


def test_without_a_pool_it_is_that_of_independent_scores() -> None:
    found = mean_interval(torch.tensor([1.0, torch.nan, 2.0, 3.0]), None)
    assert found.mean == pytest.approx(2)
    assert found.half == pytest.approx(1.96 / math.sqrt(3))
    assert found.unknown == 1
    assert mean_interval(torch.tensor([torch.nan]), None).mean is None
    assert mean_interval(torch.tensor([1.0]), None).half is None


def test_the_variance_over_classes_is_the_jackknifes_by_hand() -> None:
    """Episodes of one class each, twice for every class: the score is the class's own, without noise."""
    scores = torch.tensor([0.1, 0.5, 0.6, 0.7, 0.9, 0.8]).repeat(2).double()
    classes = torch.arange(6).repeat(2)[:, None]
    found = mean_interval(scores, Members("classes", classes, classes, classes, classes), scores[:, None])
    single = scores[:6].numpy()
    # For a mean of one class each, I_u is (score − mean) / (C − 1): the variance of a mean of C classes, and a bit.
    influence = (single - single.mean()) / 6 / (1 - 1 / 6)
    total = 6 / 5 * np.square(influence).sum()
    noise = (6 / 5) ** 2 * 2 * np.square(single - single.mean()).mean() / 12**2 * 6
    variance = max(total - noise, total / 2) + scores.numpy().var(ddof=1) / 12
    assert found.half == pytest.approx(stats.t.ppf(0.975, 5) * math.sqrt(variance))
    assert found.over == "over 6 classes and the episodes drawn"


@pytest.mark.parametrize(("rows", "unit_name"), [(10, "rows"), (24, "rows"), (18, "classes")])
def test_too_few_units_are_said_instead(rows: int, unit_name: str) -> None:
    labels = torch.arange(2 * rows) // rows if unit_name == "rows" else torch.arange(rows * 6) // 6
    inputs = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0))
    units = torch.arange(len(labels)) if unit_name == "rows" else labels
    pool = Pool(inputs, labels, units=units, unit_name=unit_name)
    shape = EpisodeShape(2, 5, 5) if unit_name == "rows" else EpisodeShape(5, 1, 2)
    right, members = measured(pool, shape, 0, 50)
    found = mean_interval(right.mean(1), members, right)
    assert found.half is None
    assert found.over.startswith(f"none over {unit_name}: {rows} are too few for a")


def test_all_rows_of_an_owner_count_as_one() -> None:
    """Ten copies of each row are no more rows: the interval is as wide as without the copies, not a third of it."""
    generator = torch.Generator().manual_seed(3)
    owners = torch.arange(120)
    centres = torch.randn(120, 4, generator=generator) + 0.4 * (2.0 * (owners % 2) - 1)[:, None]
    halves = []
    for copies, units in ((1, owners), (10, owners.repeat_interleave(10)), (10, torch.arange(1200))):
        name = "rows" if units.max() == len(centres) * copies - 1 else "values of patient"
        repeated = owners.repeat_interleave(copies)
        pool = Pool(centres[repeated], repeated % 2, units=units, unit_name=name)
        right, members = measured(pool, EpisodeShape(2, 5, 5), 0, 2000)
        halves.append(mean_interval(right.mean(1), members, right).half or 0.0)
    single, grouped, ungrouped = halves
    assert 0.75 < grouped / single < 1.3
    assert ungrouped < 0.6 * single


def draw_rows(generator: torch.Generator, rows: int, distance: float) -> Pool:
    labels = torch.arange(2 * rows) // rows
    inputs = torch.randn(2 * rows, 4, generator=generator)
    inputs[:, 0] += distance * (labels - 0.5)
    return Pool(inputs, labels, units=torch.arange(2 * rows), unit_name="rows")


def draw_classes(generator: torch.Generator, classes: int, spread: float) -> Pool:
    centres = spread * torch.randn(classes, 1, 4, generator=generator)
    inputs = centres + torch.randn(classes, 12, 4, generator=generator)
    return Pool(inputs.flatten(0, 1), torch.arange(classes).repeat_interleave(12))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "size", "distance", "shape"),
    [
        (draw_rows, 30, 1.5, EpisodeShape(2, 5, 10)),
        (draw_rows, 60, 1.5, EpisodeShape(2, 5, 15)),
        (draw_rows, 40, 3.0, EpisodeShape(2, 3, 15)),
        (draw_classes, 25, 0.8, EpisodeShape(5, 1, 11)),
        (draw_classes, 100, 0.8, EpisodeShape(5, 5, 7)),
    ],
)
def test_intervals_cover_the_truth(draw, size: int, distance: float, shape: EpisodeShape) -> None:
    """95 % of the intervals from 500 pools hold the mean over all pools, but for 2 % and the simulation's own error.

    An interval over the 600 episodes alone holds it in 10 to 60 % of the cases.
    """
    generator = torch.Generator().manual_seed(0)
    found, alone = [], []
    for seed in range(500):
        right, members = measured(draw(generator, size, distance), shape, seed)
        found.append(mean_interval(right.mean(1), members, right))
        alone.append(mean_interval(right.mean(1), None))
    truth = np.mean([each.mean for each in found])
    inside = np.mean([abs(each.mean - truth) < each.half for each in found])
    assert 0.93 - 2 * math.sqrt(0.05 / 500) < inside < 0.97 + 2 * math.sqrt(0.05 / 500)
    assert np.mean([abs(each.mean - truth) < each.half for each in alone]) < 0.7


def test_variants_of_a_class_are_not_further_classes() -> None:
    """Characters in four orientations, alike in difficulty: the interval is that over characters."""
    generator, hits, trials = np.random.default_rng(0), {"characters": 0, "classes": 0}, 200
    for _ in range(trials):
        difficulty = generator.beta(4, 1, 40)
        drawn = np.stack([generator.permutation(160)[:5] for _ in range(300)])
        right = torch.from_numpy(generator.random((300, 5, 4)) < difficulty[drawn % 40][..., None]).double().flatten(1)
        classes = torch.from_numpy(drawn)
        for name, units in (("characters", classes % 40), ("classes", classes)):
            members = Members(name, units, units.repeat_interleave(4, 1), classes, classes.repeat_interleave(4, 1))
            found = mean_interval(right.mean(1), members, right)
            assert found.half is not None
            hits[name] += abs(found.mean - 0.8) < found.half
    assert 0.92 <= hits["characters"] / trials <= 0.985
    assert hits["classes"] / trials < 0.85
