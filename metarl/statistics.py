"""Statistics of scores over tasks, as Agarwal et al. (NeurIPS 2021) recommend."""

import numpy as np
import scipy.stats
from jaxtyping import Float, Int


def interquartile_mean(scores: Float[np.ndarray, "... M"]) -> Float[np.ndarray, "..."]:
    """The mean of the middle half of `scores` along the last axis."""
    return scipy.stats.trim_mean(scores, 0.25, axis=-1)


def stratified_bootstrap_interval(
    scores: Float[np.ndarray, "M S"],
    strata: Int[np.ndarray, "M"],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "S"], Float[np.ndarray, "S"]]:
    """Percentile bootstrap interval (low, high) of the mean over tasks, for each column separately.

    Tasks are resampled with replacement within their stratum. If the strata are classes of tasks, each class keeps its
    weight.
    """
    rng = np.random.default_rng(seed)
    totals = np.zeros((resamples, scores.shape[1]))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        # The mean of a resample depends only on how often each member is drawn.
        counts = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
        totals += counts @ scores[members]
    means = totals / len(scores)
    tail = (1 - confidence) / 2
    return np.quantile(means, tail, axis=0), np.quantile(means, 1 - tail, axis=0)
