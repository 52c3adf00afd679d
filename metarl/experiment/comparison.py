"""Comparisons of agents by their evaluations on the same tasks: statistics over runs and tasks, with intervals."""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from metarl.errors import UsageError
from metarl.evaluation import Evaluation
from metarl.experiment.options import option_differences
from metarl.experiment.report_evaluations import changed_families, repeated_seeds
from metarl.parsing import is_count
from metarl.statistics import (
    Interval,
    Statistic,
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

METRICS = ("return", "success")
PROFILE_POINTS = 51
"""Thresholds of a performance profile, from the lowest score to the highest."""


@dataclass(frozen=True)
class Source:
    """An evaluation and where it is from.

    >>> from metarl.experiment.comparison import Source
    >>> tasks = metarl.make("PointNavigation-v0").sample(5, seed=0)
    >>> Source("a.json", metarl.Evaluation(torch.zeros(5, 1), None, [0], tasks)).seed is None
    True
    """

    path: str
    evaluation: Evaluation
    seed: int | None = None
    """The seed of the run's training, if that is known."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The config.yaml of the run, empty for a file alone."""
    remarks: tuple[str, ...] = ()
    """What readers have to know of it."""

    @classmethod
    def read(cls, path: Path, config: Mapping[str, Any] | None = None, remarks: Sequence[str] = ()) -> "Source":
        """Reads the evaluation in a file of JSON; raises `UsageError` if there is none, or one that does not say of
        which family it is."""
        try:
            evaluation = Evaluation.from_json(path.read_text())
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{path} is no evaluation of an agent, as metarl evaluate writes it") from None
        if evaluation.family is None:
            raise UsageError(f"{path} does not say which family it is of: evaluate again with this version")
        config = config or {}
        seed = config.get("seed")
        return cls(str(path), evaluation, seed if is_count(seed) else None, config, tuple(remarks))


@dataclass(frozen=True)
class Contender:
    """The evaluations of one agent's runs.

    >>> from metarl.experiment.comparison import Contender
    >>> Contender("maml", ()).name
    'maml'
    """

    name: str
    sources: tuple[Source, ...]

    @property
    def seeds(self) -> list[int | None]:
        return [source.seed for source in self.sources]

    @property
    def remarks(self) -> list[str]:
        """What readers have to know of its runs, in lines: what is not independent counts more than it should."""
        repeated = repeated_seeds(self.name, {source.path: source.seed for source in self.sources})
        found = [remark for source in self.sources for remark in source.remarks] + repeated
        for i, source in enumerate(self.sources):
            others = (other for other in self.sources[:i] if _same_scores(source.evaluation, other.evaluation))
            if not repeated and (other := next(others, None)) is not None:
                found.append(f"{self.name}: {other.path} and {source.path} hold the same scores to the last digit")
        return found


class Comparison:
    """Statistics of two or more contenders on the same tasks, the first of which the others are compared with.

    `metric` is "return" or "success"; by default "success", if all evaluations have it. `episodes` is the stage of
    adaptation that is compared, by default each contender's last. `target` is the score that the optimality gap is
    measured from (1 for success); `threshold` the one that `episodes_to_threshold` waits for.

    Raises `UsageError`, a line that names the difference, for evaluations of different families, options, horizons,
    protocols or tasks, runs of one contender with different stages, and a metric or stage that is missing.

    >>> from metarl.experiment.comparison import Comparison, Contender, Source
    >>> tasks = metarl.make("PointNavigation-v0").sample(20, seed=0)
    >>> def contender(name, level):
    ...     runs = [metarl.Evaluation(level + torch.rand(20, 2), None, [0, 1], tasks, family="P") for _ in range(3)]
    ...     return Contender(name, tuple(Source(f"{name}{i}", run, i) for i, run in enumerate(runs)))
    >>> rows = Comparison([contender("maml", 0.0), contender("rl2", 2.0)]).rows()
    >>> rows[1]["probability_of_improvement"].value
    1.0
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        *,
        metric: str | None = None,
        episodes: int | None = None,
        target: float | None = None,
        threshold: float | None = None,
    ):
        if len(contenders) < 2:
            raise UsageError("a comparison needs two agents or more: name their runs or evaluations")
        self.contenders = list(contenders)
        every = [source for contender in contenders for source in contender.sources]
        for source in every[1:]:
            _check_same(every[0], source)
        if metric is None:
            metric = "success" if all(source.evaluation.success is not None for source in every) else "return"
        if metric not in METRICS:
            raise UsageError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}")
        for source in every:
            if metric == "success" and source.evaluation.success is None:
                raise UsageError(f"{source.path} has no success, which its family does not define: compare the return")
        self.metric, self.threshold = metric, threshold
        self.target = 1.0 if target is None and metric == "success" else target
        self.strata = every[0].evaluation.strata()
        self.curves = [self._curves(contender) for contender in self.contenders]
        self.stages = [self._stage(contender, episodes) for contender in self.contenders]
        self.scores = [curves[..., stage] for curves, stage in zip(self.curves, self.stages, strict=True)]

    @property
    def evaluation(self) -> Evaluation:
        """One of the evaluations: what they have in common is in each."""
        return self.contenders[0].sources[0].evaluation

    @property
    def title(self) -> str:
        """What is compared on what."""
        first = self.evaluation
        protocol = "" if first.protocol == "per-task" else f", protocol {first.protocol}"
        return f"{self.metric} on {first.family}, {self.scores[0].shape[1]} tasks, horizon {first.horizon}{protocol}"

    @property
    def remarks(self) -> list[str]:
        """What readers of the statistics have to know of the runs, in lines."""
        sources = [source for contender in self.contenders for source in contender.sources]
        changed = changed_families({source.path: source.config for source in sources})
        return [remark for contender in self.contenders for remark in contender.remarks] + changed

    def rows(self) -> list[dict[str, Any]]:
        """A row of statistics for each contender; statistics are `Interval`s.

        `name`, `runs`, `episodes` (used before the stage), `mean`, `iqm`, `median`; `optimality_gap` if there is a
        target; `area_under_curve` if there are several stages; `episodes_to_threshold` (the median, infinity if less
        than half reach it) and `reached` (the share of runs and tasks) if there is a threshold; and for all but the
        first `probability_of_improvement` and `difference`, compared with the first, on the same tasks and, if all
        seeds are known and the same, on the same seeds (`paired`).
        """
        return [self._row(index) for index in range(len(self.contenders))]

    def profiles(self) -> dict[str, Any]:
        """Performance profiles: `thresholds`, and the share of scores above each by the name of the contender."""
        lowest, highest = (getattr(np.concatenate([s.ravel() for s in self.scores]), f)() for f in ("min", "max"))
        thresholds = np.linspace(lowest, highest, PROFILE_POINTS)
        shares = {
            contender.name: performance_profile(scores, thresholds).tolist()
            for contender, scores in zip(self.contenders, self.scores, strict=True)
        }
        return {"thresholds": thresholds.tolist(), "shares": shares}

    def to_json(self) -> str:
        """A JSON text: `metric`, what the evaluations have in common, `contenders` (the rows) and `profiles`."""
        first = self.evaluation
        common = {"family": first.family, "family_options": dict(first.family_options), "horizon": first.horizon}
        rows = [
            {name: _plain(value) for name, value in row.items()}
            | {"evaluations": [source.path for source in contender.sources]}
            for row, contender in zip(self.rows(), self.contenders, strict=True)
        ]
        return json.dumps(
            {"metric": self.metric, **common, "protocol": first.protocol, "tasks": self.scores[0].shape[1]}
            | {"target": self.target, "threshold": self.threshold, "contenders": rows, "profiles": self.profiles()}
            | {"remarks": self.remarks},
            indent=2,
            default=str,
            allow_nan=False,
        )

    def _row(self, index: int) -> dict[str, Any]:
        contender, scores, curves = self.contenders[index], self.scores[index], self.curves[index]
        used = contender.sources[0].evaluation.episodes_used
        share = self.metric == "success"
        interval = functools.partial(self._interval, paired=False, within=(0.0, 1.0) if share else None)
        row: dict[str, Any] = {
            "name": contender.name,
            "runs": len(scores),
            "episodes": used[self.stages[index]],
            "mean": interval(mean, scores),
            "iqm": interval(pooled_interquartile_mean, scores),
            "median": interval(median, scores),
        }
        if self.target is not None:
            gap = functools.partial(optimality_gap, target=self.target)
            row["optimality_gap"] = self._interval(gap, scores, paired=False)
        if any(curves.shape[-1] > 1 for curves in self.curves):
            row["area_under_curve"] = interval(mean, area_under_curve(used, curves))
        if self.threshold is not None:
            spent = episodes_to_threshold(used, curves, self.threshold)
            row["episodes_to_threshold"] = float(np.median(spent))
            row["reached"] = float(np.isfinite(spent).mean())
        if index:
            paired = self._same_seeds(index)
            first = self.scores[0]
            row["probability_of_improvement"] = self._interval(
                probability_of_improvement, scores, first, paired=paired, within=(0.0, 1.0)
            )
            row["difference"] = self._interval(
                difference_of_means, scores, first, paired=paired, within=(-1.0, 1.0) if share else None
            )
            row["paired"] = "tasks and seeds" if paired else "tasks"
        return row

    def _interval(
        self, statistic: Statistic, *scores: np.ndarray, paired: bool, within: tuple[float, float] | None = None
    ) -> Interval:
        found = crossed_interval(statistic, *scores, strata=self.strata, paired=paired)
        if within is None or found.low is None or found.high is None:
            return found
        low, high = within
        return Interval(found.value, max(low, found.low), min(high, found.high), found.over)

    def _same_seeds(self, index: int) -> bool:
        """Whether row `i` of this contender and of the first are of the same seed."""
        seeds = self.contenders[index].seeds
        return None not in seeds and len(set(seeds)) == len(seeds) and seeds == self.contenders[0].seeds

    def _curves(self, contender: Contender) -> Float[np.ndarray, "R M S"]:
        """The scores of each run, distinct task and stage."""
        first = contender.sources[0]
        for source in contender.sources:
            if source.evaluation.episodes_used != first.evaluation.episodes_used:
                stages = " and ".join(f"{s.evaluation.episodes_used} ({s.path})" for s in (first, source))
                raise UsageError(f"runs of {contender.name} have different stages: {stages}")
        evaluations = [source.evaluation for source in contender.sources]
        scores = [one.returns if self.metric == "return" else one.success for one in evaluations]
        curves = np.stack([e.pooled(s) for e, s in zip(evaluations, scores, strict=True) if s is not None])
        if not np.isfinite(curves).all():
            raise UsageError(f"{contender.name} has scores that are not finite, which no statistic is defined for")
        return curves

    def _stage(self, contender: Contender, episodes: int | None) -> int:
        used = contender.sources[0].evaluation.episodes_used
        if episodes is None:
            return len(used) - 1
        if episodes not in used:
            raise UsageError(f"{contender.name} was not measured after {episodes} episodes, only after {used}")
        return used.index(episodes)


def _plain(value: Any) -> Any:
    """A statistic for JSON: what is infinite becomes null."""
    if isinstance(value, Interval):
        return vars(value)
    return None if isinstance(value, float) and math.isinf(value) else value


def _same_scores(one: Evaluation, other: Evaluation) -> bool:
    """Whether the returns are equal although they are not a few numbers only, such as the 0 and 1 of sparse rewards."""
    same = one.episodes_used == other.episodes_used and torch.equal(one.returns, other.returns)
    return same and len(one.returns.unique()) > 2


def _check_same(one: Source, other: Source) -> None:
    """Raises `UsageError` unless two evaluations are of the same family, horizon, protocol and tasks."""
    first, second = one.evaluation, other.evaluation
    where = f"{one.path} and {other.path} cannot be compared"
    facts: list[tuple[str, Any, Any]] = [
        (name, getattr(first, name), getattr(second, name)) for name in ("family", "horizon", "protocol")
    ]
    for name, then, now in facts:
        if then != now:
            raise UsageError(f"{where}: {name} {then} and {now}")
    options: Mapping[str, str] = option_differences(first.family_options, second.family_options)
    if options:
        raise UsageError(f"{where}: {', '.join(options.values())}")
    tasks = first.distinct(), second.distinct()
    if len(tasks[0]) != len(tasks[1]):
        raise UsageError(f"{where}: {len(tasks[0])} and {len(tasks[1])} distinct tasks")
    if tasks[0] != tasks[1]:
        raise UsageError(f"{where}: other tasks: evaluate both with the same --seed, --split and --shift")
