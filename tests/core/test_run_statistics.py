"""Statistics over runs and tasks: by hand, against an independent implementation, and intervals in simulations."""

import itertools
import math

import numpy as np
import pytest

from metarl.statistics import (
    area_under_curve,
    crossed_interval,
    difference_of_means,
    episodes_to_threshold,
    mean,
    median,
    optimality_gap,
    performance_profile,
    pooled_interquartile_mean,
    probability_of_improvement,
)


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).gamma(2.0, size=(4, 12))


def test_by_hand():
    ours, theirs = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]), np.array([[1.0, 3.0, 0.0, 9.0]])
    assert pooled_interquartile_mean(ours) == (3 + 4 + 5 + 6) / 4
    assert median(ours) == 4.5  # of 3, 4, 5, 6
    assert optimality_gap(ours, 4.0) == (3 + 2 + 1) / 8
    # 1 = 1, 5 > 1; 2 < 3, 6 > 3; 3 > 0, 7 > 0; 4 < 9, 8 < 9
    assert probability_of_improvement(ours, theirs) == (0.75 + 0.5 + 1.0 + 0.0) / 4
    assert performance_profile(ours, np.array([0.0, 4.0, 8.0])).tolist() == [1.0, 0.5, 0.0]
    assert area_under_curve([0, 2, 6], np.array([0.0, 1.0, 3.0])) == pytest.approx((1.0 + 8.0) / 6)
    curves = np.array([[0.0, 1.0, 3.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
    assert episodes_to_threshold([0, 2, 6], curves, 1.0).tolist() == [2.0, 0.0, math.inf]


def test_an_independent_implementation_agrees(scores):
    """Python's loops and sorted lists."""
    theirs = np.random.default_rng(1).gamma(2.0, size=(3, 12))
    flat = sorted(scores.ravel().tolist())
    middle = flat[len(flat) // 4 : len(flat) - len(flat) // 4]
    assert pooled_interquartile_mean(scores) == pytest.approx(sum(middle) / len(middle), abs=1e-9)
    means = sorted(sum(scores[:, m]) / 4 for m in range(12))
    assert median(scores) == pytest.approx((means[5] + means[6]) / 2, abs=1e-9)
    assert optimality_gap(scores, 2.0) == pytest.approx(sum(max(0.0, 2 - s) for s in flat) / len(flat), abs=1e-9)
    wins = [
        (scores[i, m] > theirs[j, m]) + 0.5 * (scores[i, m] == theirs[j, m])
        for m, i, j in itertools.product(range(12), range(4), range(3))
    ]
    assert probability_of_improvement(scores, theirs) == pytest.approx(sum(wins) / len(wins), abs=1e-9)


def test_rliable_agrees(scores):
    metrics = pytest.importorskip("rliable.metrics")
    theirs = np.random.default_rng(1).gamma(2.0, size=(3, 12))
    assert pooled_interquartile_mean(scores) == pytest.approx(metrics.aggregate_iqm(scores), abs=1e-9)
    assert median(scores) == pytest.approx(metrics.aggregate_median(scores), abs=1e-9)
    assert mean(scores) == pytest.approx(metrics.aggregate_mean(scores), abs=1e-9)
    assert optimality_gap(scores, 2.0) == pytest.approx(metrics.aggregate_optimality_gap(scores, 2.0), abs=1e-9)
    expected = metrics.probability_of_improvement(scores, theirs)
    assert probability_of_improvement(scores, theirs) == pytest.approx(expected, abs=1e-9)


def test_statistics_of_a_batch_are_those_of_its_members(scores):
    batch = np.stack([scores, scores[::-1] + 1, scores * 2])
    for statistic in (mean, median, pooled_interquartile_mean, lambda s: optimality_gap(s, 2.0)):
        np.testing.assert_allclose(statistic(batch), [statistic(one) for one in batch])
    np.testing.assert_allclose(
        probability_of_improvement(batch, scores[None]), [probability_of_improvement(one, scores) for one in batch]
    )


def test_an_interval_of_a_mean_is_that_of_the_variance_components():
    """For a mean, the bootstrap's variances have a closed form: those of the means of rows and of columns."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 1)) + rng.normal(size=(1, 20)) + rng.normal(size=(6, 20))
    found = crossed_interval(mean, scores, resamples=20_000)
    over_runs, over_tasks = (scores.mean(axis).var(ddof=1) / scores.mean(axis).size for axis in (1, 0))
    rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    rest = (rest**2).sum() / (5 * 19) / scores.size
    half = math.hypot(2.570581836 * math.sqrt(over_runs - rest), 2.093024054 * math.sqrt(over_tasks))
    assert found.value == pytest.approx(scores.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)
    assert found.over == "over 6 runs and 20 tasks"


def test_few_runs_and_tasks_are_told_in_words(scores):
    one = crossed_interval(mean, scores[:1])
    assert one.over == "over 12 tasks, for this run: 1 is too few for an interval over runs (want 3)"
    assert one.low < one.value < one.high
    tasks = crossed_interval(mean, scores[:, :2])
    assert tasks.over == "over 4 runs, for these tasks: 2 are too few for an interval over tasks (want 5)"
    none = crossed_interval(mean, scores[:2, :2])
    assert (none.low, none.high) == (None, None)
    assert none.over.startswith("no interval: of runs, 2 are too few")
    constant = crossed_interval(mean, np.ones((4, 12)))
    assert (constant.low, constant.high) == (1.0, 1.0)


def test_pairs_share_their_runs_and_tasks():
    """What both have in common leaves the difference."""
    rng = np.random.default_rng(0)
    common = 10 * rng.normal(size=(5, 1)) + 10 * rng.normal(size=(1, 20))
    ours, theirs = common + 1 + 0.1 * rng.normal(size=(5, 20)), common + 0.1 * rng.normal(size=(5, 20))
    paired = crossed_interval(difference_of_means, ours, theirs, paired=True)
    assert 0.9 < paired.low < 1.0 < paired.high < 1.1
    apart = crossed_interval(difference_of_means, ours, theirs)
    assert apart.high - apart.low > 10


def test_strata_keep_their_weight():
    strata = np.repeat([0, 1], 10)
    scores = np.broadcast_to(strata.astype(float), (1, 20))  # all the variation is between the strata
    found = crossed_interval(mean, scores, strata=strata)
    assert (found.low, found.high) == (0.5, 0.5)
    assert crossed_interval(mean, scores).low < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("statistic", [mean, pooled_interquartile_mean])
@pytest.mark.parametrize(("runs", "tasks"), [(3, 40), (5, 20), (10, 20)])
def test_intervals_cover_as_often_as_they_say(statistic, runs, tasks):
    """True value 0. Three runs are the fewest: their percentile interval would cover 3 of 4 times."""
    rng, covered, count = np.random.default_rng(0), 0, 1000
    for number in range(count):
        parts = rng.normal(size=(runs, 1)), rng.normal(size=(1, tasks)), rng.normal(size=(runs, tasks))
        found = crossed_interval(statistic, sum(parts), resamples=400, seed=number)
        covered += found.low <= 0 <= found.high
    assert 0.93 <= covered / count <= 0.97
