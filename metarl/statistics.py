"""Statistics of scores over runs and tasks, as Agarwal et al. (NeurIPS 2021) recommend, and their intervals.

A run is one trained agent. Scores `[R, M]` are those of `R` runs on the same `M` distinct tasks; leading axes are
further batches of such scores.

An interval of ours accounts for the runs and the tasks that happened to be drawn. Unlike in Agarwal et al., whose runs
on different tasks have nothing to do with each other, here the scores in a row are of one agent: whole rows are
resampled, and whole columns within their strata (the crossed bootstrap of Owen 2007, "The pigeonhole bootstrap").
Percentiles of so few runs as are usual cover too little: those of three runs lie within the three. The interval is
Student's instead, with the quantile of its own degrees of freedom for each source of variation (as in the modified
large-sample intervals of Graybill and Wang 1980),

    θ ± √( t²_{R−1} (V_runs − V_rest) + t²_{M−K} V_tasks ),

in which V_runs is the bootstrap's variance over runs times R / (R − 1), V_tasks that over tasks times M / (M − K) for
K strata, and V_rest that of the interaction, which both contain: by how much the variance is larger than the sum of the
two if both are resampled at once, times both factors.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy.stats
from jaxtyping import Float, Int

FEWEST_TASKS = 5
"""Distinct tasks that an interval over tasks needs at least."""
FEWEST_RUNS = 3
"""Runs that an interval over runs needs at least."""
_CHUNK = 2_000_000
"""Scores that are resampled at a time."""

Statistic: TypeAlias = Callable[..., Float[np.ndarray, "..."]]
"""A function of one or several arrays of scores `[..., R, M]` that gives a number for each, `[...]`."""


def interquartile_mean(scores: Float[np.ndarray, "... M"]) -> Float[np.ndarray, "..."]:
    """The mean of the middle half of `scores` along the last axis."""
    return np.asarray(scipy.stats.trim_mean(scores, 0.25, axis=-1))


def pooled_interquartile_mean(scores: Float[np.ndarray, "... R M"]) -> Float[np.ndarray, "..."]:
    """The mean of the middle half of all scores, those of all runs on all tasks (Agarwal et al., section 4.3)."""
    return interquartile_mean(_pooled(scores))


def mean(scores: Float[np.ndarray, "... R M"]) -> Float[np.ndarray, "..."]:
    """The mean over runs and tasks."""
    return np.asarray(scores.mean((-2, -1)))


def median(scores: Float[np.ndarray, "... R M"]) -> Float[np.ndarray, "..."]:
    """The median over tasks of the mean over runs (Agarwal et al., section 2)."""
    return np.asarray(np.median(scores.mean(-2), axis=-1))


def optimality_gap(scores: Float[np.ndarray, "... R M"], target: float) -> Float[np.ndarray, "..."]:
    """The mean amount by which scores fail to reach `target`; better ones count as reaching it (section 4.3)."""
    return np.asarray(target - np.minimum(_pooled(scores), target).mean(-1))


def probability_of_improvement(
    ours: Float[np.ndarray, "... R M"], theirs: Float[np.ndarray, "... R2 M"]
) -> Float[np.ndarray, "..."]:
    """The probability that a run of ours beats one of theirs on the same task, half of it for a draw (section 4.3).

    A mean over tasks of the Mann-Whitney statistic.
    """
    pairs = ours[..., :, None, :], theirs[..., None, :, :]
    wins = (pairs[0] > pairs[1]) + 0.5 * (pairs[0] == pairs[1])
    return np.asarray(wins.mean((-3, -2, -1)))


def difference_of_means(
    ours: Float[np.ndarray, "... R M"], theirs: Float[np.ndarray, "... R2 M"]
) -> Float[np.ndarray, "..."]:
    """How much better ours are on average."""
    return np.asarray(mean(ours) - mean(theirs))


def performance_profile(
    scores: Float[np.ndarray, "... R M"], thresholds: Float[np.ndarray, "K"]
) -> Float[np.ndarray, "... K"]:
    """The share of scores above each threshold (Agarwal et al., equation 2)."""
    return (_pooled(scores)[..., None] > thresholds).mean(-2)


def area_under_curve(episodes_used: Sequence[int], scores: Float[np.ndarray, "... S"]) -> Float[np.ndarray, "..."]:
    """The mean score over the episodes of adaptation: the area under the curve through the stages, by its width.

    Stages are joined by straight lines. With one stage it is that score.

    >>> from metarl.statistics import area_under_curve
    >>> import numpy as np
    >>> float(area_under_curve([0, 1, 5], np.array([0.0, 1.0, 1.0])))
    0.9
    """
    if len(episodes_used) == 1:
        return np.asarray(scores[..., 0])
    return np.asarray(np.trapezoid(scores, episodes_used, axis=-1) / (episodes_used[-1] - episodes_used[0]))


def episodes_to_threshold(
    episodes_used: Sequence[int], scores: Float[np.ndarray, "... S"], threshold: float
) -> Float[np.ndarray, "..."]:
    """Episodes of adaptation at the first stage whose score is at least `threshold`; infinity if none is."""
    reached = scores >= threshold
    return np.where(reached.any(-1), np.asarray(episodes_used, float)[reached.argmax(-1)], math.inf)


@dataclass(frozen=True)
class Interval:
    """A statistic with its interval.

    >>> from metarl.statistics import Interval
    >>> Interval(0.7, 0.6, 0.8, "over 5 runs and 40 tasks").low
    0.6
    """

    value: float
    low: float | None
    """None if there is no interval."""
    high: float | None
    over: str
    """What the interval varies over, or why there is none."""


def student_half_width(variance: float, freedom: int, confidence: float = 0.95) -> float:
    """Half the width of Student's interval for an estimate with this estimated variance."""
    return float(scipy.stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(variance)


def crossed_interval(
    statistic: Statistic,
    *scores: Float[np.ndarray, "_ M"],
    strata: Int[np.ndarray, "M"] | None = None,
    paired: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The `statistic` of one or several arrays of scores on the same tasks, with its interval over runs and tasks.

    A resample has the same tasks in all arrays. With `paired`, which wants equal numbers of runs, it has the same runs
    in all: row `i` of each stands for the same seed. `strata` (default: one) are classes of tasks, each of which keeps
    its number. With fewer than `FEWEST_RUNS` runs or `FEWEST_TASKS` tasks these are taken as they are, and `over` says
    so; with few of both there is no interval.

    >>> from metarl.statistics import crossed_interval, mean
    >>> import numpy as np
    >>> crossed_interval(mean, np.arange(40.0).reshape(2, 20)).over
    'over 20 tasks, for these runs: 2 are too few for an interval over runs (want 3)'
    """
    runs, tasks = min(len(group) for group in scores), scores[0].shape[1]
    strata = np.zeros(tasks, dtype=np.int64) if strata is None else strata
    value = float(statistic(*scores))
    vary_runs, vary_tasks = runs >= FEWEST_RUNS, tasks >= FEWEST_TASKS
    over = _over(runs, tasks)
    if not vary_runs and not vary_tasks:
        return Interval(value, None, None, over)
    draw = _Draws(statistic, scores, strata, paired, resamples, seed)
    free_runs, free_tasks = runs - 1, tasks - len(np.unique(strata))
    by_runs = runs / free_runs if vary_runs else 0.0
    by_tasks = tasks / free_tasks if vary_tasks and free_tasks else 0.0
    plain = [draw.variance(True, False) if by_runs else 0.0, draw.variance(False, True) if by_tasks else 0.0]
    over_runs, over_tasks = plain[0] * by_runs, plain[1] * by_tasks
    if over_runs and over_tasks:
        rest = (draw.variance(True, True) - sum(plain)) * by_runs * by_tasks
        over_runs -= min(max(rest, 0.0), over_runs, over_tasks)
    parts = [(over_runs, free_runs), (over_tasks, free_tasks)]
    half = math.hypot(*(student_half_width(*part, confidence) for part in parts if part[0] > 0))
    return Interval(value, value - half, value + half, over)


def stratified_bootstrap_interval(
    scores: Float[np.ndarray, "M S"],
    strata: Int[np.ndarray, "M"],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "S"], Float[np.ndarray, "S"]]:
    """Bootstrap interval (low, high) of the mean over the tasks of one run, for each column separately.

    Tasks are resampled with replacement within their stratum. If the strata are classes of tasks, each class keeps its
    weight. The interval is the expanded percentile interval of Hesterberg (The American Statistician 2015): percentiles
    further out, by as much as Student's quantile and the unbiased variance are wider than the normal ones,
    because plain percentiles of few tasks cover too little. It stays within the range of the scores.
    """
    rng = np.random.default_rng(seed)
    totals = np.zeros((resamples, scores.shape[1]))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        # The mean of a resample depends only on how often each member is drawn.
        counts = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
        totals += counts @ scores[members]
    means = totals / len(scores)
    freedom = max(1, len(scores) - len(np.unique(strata)))
    student = scipy.stats.t.ppf((1 + confidence) / 2, freedom) * math.sqrt(len(scores) / freedom)
    tail = scipy.stats.norm.cdf(-student)
    return np.quantile(means, tail, axis=0), np.quantile(means, 1 - tail, axis=0)


class _Draws:
    """Values of a statistic over resamples."""

    def __init__(
        self,
        statistic: Statistic,
        scores: tuple[np.ndarray, ...],
        strata: np.ndarray,
        paired: bool,
        resamples: int,
        seed: int,
    ):
        self.statistic, self.scores, self.paired, self.resamples, self.seed = statistic, scores, paired, resamples, seed
        self.members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]

    def variance(self, runs: bool, tasks: bool) -> float:
        """The variance of the statistic if runs, or tasks, or both are resampled."""
        return float(np.concatenate(list(self._values(runs, tasks))).var())

    def _values(self, runs: bool, tasks: bool) -> Iterator[np.ndarray]:
        rng = np.random.default_rng([self.seed, runs, tasks])
        count = max(1, _CHUNK // sum(group.size for group in self.scores))
        for start in range(0, self.resamples, count):
            size = min(count, self.resamples - start)
            columns = self._columns(rng, size) if tasks else np.arange(self.scores[0].shape[1])[None]
            rows: list[np.ndarray] = []
            for group in self.scores:
                if rows and self.paired:
                    rows.append(rows[0])
                else:
                    rows.append(
                        rng.integers(len(group), size=(size, len(group))) if runs else np.arange(len(group))[None]
                    )
            pairs = zip(self.scores, rows, strict=True)
            yield self.statistic(*(group[chosen[:, :, None], columns[:, None, :]] for group, chosen in pairs))

    def _columns(self, rng: np.random.Generator, size: int) -> np.ndarray:
        drawn = [members[rng.integers(len(members), size=(size, len(members)))] for members in self.members]
        return np.concatenate(drawn, axis=1)


def _pooled(scores: Float[np.ndarray, "... R M"]) -> Float[np.ndarray, "... K"]:
    return scores.reshape(*scores.shape[:-2], -1)


def _over(runs: int, tasks: int) -> str:
    """What an interval varies over, in words."""
    few_runs = f"{runs} {'is' if runs == 1 else 'are'} too few for an interval over runs (want {FEWEST_RUNS})"
    few_tasks = f"{tasks} {'is' if tasks == 1 else 'are'} too few for an interval over tasks (want {FEWEST_TASKS})"
    if runs >= FEWEST_RUNS and tasks >= FEWEST_TASKS:
        return f"over {runs} runs and {tasks} tasks"
    if tasks >= FEWEST_TASKS:
        return f"over {tasks} tasks, for {'this run' if runs == 1 else 'these runs'}: {few_runs}"
    if runs >= FEWEST_RUNS:
        return f"over {runs} runs, for {'this task' if tasks == 1 else 'these tasks'}: {few_tasks}"
    return f"no interval: of runs, {few_runs}; of tasks, {few_tasks}"
