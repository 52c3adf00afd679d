"""The inter-quartile mean and the stratified bootstrap against NumPy and SciPy."""

import numpy as np
import pytest
import scipy.stats

from metarl.statistics import interquartile_mean, stratified_bootstrap_interval


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).gamma(2.0, size=(40, 3))


def test_interquartile_mean_is_the_mean_of_the_middle_half(scores):
    middle = np.sort(scores, axis=0)[10:30]
    np.testing.assert_allclose(interquartile_mean(scores.T), middle.mean(0))


def test_interval_has_scipys_percentiles_within_monte_carlo_error(scores):
    low, high = stratified_bootstrap_interval(scores, np.zeros(40, np.int64), resamples=20_000)
    # Student's 97.5 % quantile with 39 degrees of freedom is 2.0227, and the standard error is √(40 / 39) times larger.
    level = 2 * scipy.stats.norm.cdf(2.0227 * 1.01274) - 1
    reference = scipy.stats.bootstrap(
        (scores,),
        np.mean,
        method="percentile",
        confidence_level=level,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    # A 2 % quantile of 20,000 means is known to about 2 % of their deviation.
    error = 0.1 * scores.std(0) / np.sqrt(40)
    assert (np.abs(low - reference.low) < error).all()
    assert (np.abs(high - reference.high) < error).all()
    assert (low < scores.mean(0)).all()
    assert (high > scores.mean(0)).all()


@pytest.mark.parametrize("tasks", [6, 12, 100])
def test_interval_covers_as_often_as_it_says(tasks):
    """Plain percentiles of six tasks cover 0.86 where they say 0.95."""
    samples = np.random.default_rng(0).normal(size=(tasks, 2000))  # 2,000 experiments with true mean 0
    low, high = stratified_bootstrap_interval(samples, np.zeros(tasks, np.int64))
    assert 0.93 <= ((low < 0) & (high > 0)).mean() <= 0.97


def test_each_stratum_keeps_its_weight():
    strata = np.repeat([0, 1, 2], [10, 20, 10])
    scores = strata[:, None].astype(float)  # all the variation is between the strata
    low, high = stratified_bootstrap_interval(scores, strata)
    np.testing.assert_allclose([low, high], [[1.0], [1.0]])
    plain = stratified_bootstrap_interval(scores, np.zeros(40, np.int64))
    assert plain[0] < 0.9
    assert plain[1] > 1.1


def test_interval_is_a_function_of_its_seed(scores):
    strata = np.zeros(40, np.int64)
    one, same, other = (stratified_bootstrap_interval(scores, strata, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (np.array(one) != np.array(other)).all()
