"""Confidence intervals for figures measured on episodes that are drawn from a finite pool of examples.

Six hundred episodes of twelve rows are not six hundred observations: whoever had other twelve rows would measure
something else. The figure is a U-statistic of the pool's *units*, which are what varies from pool to pool: its classes
if they are held out from training, the rows of a table, or what the table is split by, such as patients. Its variance
is that of drawing the units plus that of drawing the episodes. The first is estimated by the infinitesimal jackknife,
the limit of the bootstrap over units (Efron 2014, "Estimation and accuracy after model selection", theorem 1), in the
form for draws without replacement (Wager and Athey 2018):

    V = Σ_u I_u²,   I_u = cov(a_e, [u in the support of e]) / (1 − π_u)  +  cov(c_q, [u is query q])

a_e is the score of episode e, c_q that of query q, and π_u the share of episodes whose support holds u. The noise that
a finite number of episodes leaves in I_u² is subtracted, at most half of V. Covariances are taken within classes if
these are fixed. The interval is Student's with one degree of freedom for each unit less one for each class.

With few units for the size of a support set, the linear estimate fails. Then there is no interval, and the result says
so.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from metarl.fewshot.episodes import Members
from metarl.statistics import student_half_width

FEWEST_ROWS = 5
"""Units in a pool for each one in a support set, at least, if they are rows or their owners."""
FEWEST_CLASSES = 4
"""Classes in a pool for each one in an episode, at least."""

FEWEST_EXAMPLES = 10
"""Different examples that a rate needs for an interval: with fewer, one is too narrow."""


@dataclass(frozen=True)
class Interval:
    """A mean and half the width of its 95 % interval.

    >>> from metarl.fewshot.intervals import Interval
    >>> Interval(0.9, None, "over rows: 6 of a class are too few for supports of 5", 0).half is None
    True
    """

    mean: float | None
    """None if no score is known."""
    half: float | None
    """None if there is no interval."""
    over: str
    """What the interval varies over, or why there is none."""
    unknown: int
    """Episodes whose score is NaN; they are left out."""


def mean_interval(
    scores: Float[Tensor, "E"], members: Members | None, queries: Float[Tensor, "E Q"] | None = None
) -> Interval:
    """The mean of `scores`, which are means over `queries` if these are given, with its interval.

    Without `members`, every episode is a new draw of everything, and the interval is that of independent scores.
    Without `queries`, the units of support and query count alike.
    """
    known = ~scores.isnan()
    unknown = int((~known).sum())
    values = scores[known].double().numpy()
    if not len(values):
        return Interval(None, None, "no score is known", unknown)
    mean = float(values.mean())
    drawing = float(values.var(ddof=1)) / len(values) if len(values) > 1 else math.nan
    if math.isnan(drawing):
        return Interval(mean, None, "one episode has no interval", unknown)
    if members is None:
        return Interval(mean, 1.96 * math.sqrt(drawing), "over episodes, each of new tasks", unknown)
    variance = _Variance(members, known, values, None if queries is None else queries[known].double().numpy())
    reason = variance.reason
    if reason is not None:
        return Interval(mean, None, f"none over {members.name}: {reason}", unknown)
    half = student_half_width(variance.value + drawing, variance.freedom)
    return Interval(mean, half, f"over {variance.units} {members.name} and the episodes drawn", unknown)


def over_examples(found: Interval, examples: int | None) -> Interval:
    """`found`, without an interval if it is of a rate over too few different `examples`; None if they are not known."""
    if examples is None or examples >= FEWEST_EXAMPLES or found.mean is None:
        return found
    why = f"none: {examples} different examples are too few (want {FEWEST_EXAMPLES})"
    return Interval(found.mean, None, why, found.unknown)


class _Variance:
    """The variance of a mean score over pools of units."""

    def __init__(self, members: Members, known: Tensor, values: np.ndarray, queries: np.ndarray | None):
        self._members = members
        self._values, self._queries = values, queries
        self._support, self._query, self._support_class, self._query_class = (
            each[known].numpy()
            for each in (members.support, members.query, members.support_classes, members.query_classes)
        )
        first = members.support[:, :1]
        same = all(bool((units == first).all()) for units in (members.support, members.query))
        self._one_unit = same and not members.are_classes  # such as the one site of an episode
        if members.are_classes or self._one_unit:  # support and query are of the same units
            self._queries = None
        elif queries is None:
            self._support = np.concatenate([self._support, self._query], 1)
            self._support_class = np.concatenate([self._support_class, self._query_class], 1)
        self.reason: str | None = None
        self.value = 0.0
        seen, classes = self._seen()
        self.units = len(seen)
        fixed = np.unique(classes)
        self.freedom = max(1, self.units - len(fixed))
        for label in fixed:
            self.value += self._of_class(seen[classes == label])

    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        """The units that occur, and the class of each; one class for all if units are classes or span several."""
        units = np.concatenate([self._support.ravel(), self._query.ravel()])
        classes = np.concatenate([self._support_class.ravel(), self._query_class.ravel()])
        seen, first = np.unique(units, return_index=True)
        owned = classes[first]
        one = not self._members.are_examples or not np.array_equal(owned[np.searchsorted(seen, units)], classes)
        return seen, np.zeros_like(seen) if one else owned

    def _of_class(self, units: np.ndarray) -> float:
        """Σ I_u² over the units of one class, without the noise."""
        count, episodes = len(units), len(self._values)
        present = np.zeros((episodes, count), dtype=bool)
        inside = np.isin(self._support, units)
        present[np.nonzero(inside)[0], np.searchsorted(units, self._support[inside])] = True
        drawn = present.any(1)
        held = present[drawn].sum(1).mean()
        self._check(count, held)
        share = held / count
        if count < 2 or share >= 1 or self.reason is not None:
            return 0.0
        factor = 1 / (1 - share)
        deviations = np.where(drawn, self._values - self._values[drawn].mean(), 0.0)
        influence = factor * (present.T @ deviations) / episodes
        noise = factor**2 * present.sum(0) * deviations[drawn].var() / episodes**2
        if self._queries is not None:
            mine = np.isin(self._query, units)
            place = np.searchsorted(units, self._query[mine])
            scores = self._queries[mine] - self._queries[mine].mean()
            slots = self._queries.size
            influence += np.bincount(place, scores, count) / slots * count / (count - 1)
            noise += np.bincount(place, minlength=count) * scores.var() / slots**2
        small = (count - 1) / count if self._one_unit else count / (count - 1)  # one unit: the variance of a mean
        total = small * float(np.square(influence).sum())
        return max(total - float(noise.sum()), total / 2)

    def _check(self, count: int, held: float) -> None:
        """Notes the reason if `count` units are too few for supports that hold `held` of them."""
        fewest = FEWEST_CLASSES if self._members.are_classes else FEWEST_ROWS
        if count < fewest * held:
            kind = "an episode" if self._queries is None else "a support set"
            self.reason = f"{count} are too few for {kind} with {held:.3g} of them (want {fewest} times as many)"
