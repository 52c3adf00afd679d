"""The test of a few-shot learner: by default 600 episodes of classes unseen in training, with 95 % intervals."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metarl.errors import UsageError
from metarl.faults import check_finite
from metarl.fewshot.baselines import MISSING, Baselines, is_available
from metarl.fewshot.data import DataSet
from metarl.fewshot.episodes import Episodes, EpisodeShape, Members
from metarl.fewshot.intervals import Interval, mean_interval, over_examples
from metarl.fewshot.learner import Learner
from metarl.fewshot.objectives.plain import query_score, task_score
from metarl.randomness import derive_seed
from metarl.tasks import check_count

BATCH = 10
"""Test episodes at a time."""


@torch.no_grad()
def evaluate(
    learner: Learner,
    data: DataSet,
    *,
    episodes: int = 600,
    shape: EpisodeShape | None = None,
    split: str = "test",
    seed: int = 0,
    baselines: bool = False,
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Tests `learner` on episodes of `split`; returns `accuracy` (or `mse`), its `ci95`, and how they were measured.

    `shape` defaults to the learner's. `ci95` is half the 95 % interval of the mean (`metarl.fewshot.intervals`), which
    accounts for the finite number of classes or rows that the episodes are drawn from, or None if there are too few;
    `interval` says which. `curve` has the score after each adaptation step, `metrics` those of the objective. With
    `baselines`, and data for which there are any, `baselines` has those of `metarl.fewshot.baselines`. `report` gets
    the episodes done.

    Raises `UsageError` for other ways than the learner was trained for, unless it takes any, and `NumericalFault` for
    predictions that are not finite.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
    >>> data = open_data("biased")
    >>> learner = ProtoNet(ProtoNetConfig(), data.spec(data.default_shape()))
    >>> result = metarl.fewshot.evaluate(learner, data, episodes=10)
    """
    check_count("episodes", episodes)
    shape = shape or learner.spec.shape
    _check_ways(learner, shape.ways)
    began, scores = time.perf_counter(), _Scores()
    several = learner.spec.kind == "regression" or shape.ways > 1
    wanted = baselines and data.has_baselines and several
    simple = Baselines(data) if wanted and is_available() else None
    for start in range(0, episodes, BATCH):
        batch = data.episodes(split, min(BATCH, episodes - start), shape, seed=derive_seed("evaluate", seed, start))
        scores.add(learner, batch.to(learner.device), learner.generator("evaluate", seed, start))
        if simple is not None:
            simple.add(batch)
        report(start + len(batch))
    main = scores.main()
    result: dict[str, Any] = {
        learner.metric: main.mean,
        "ci95": main.half,
        "interval": main.over,
        "episodes": episodes,
        "ways": shape.ways,
        "shots": shape.shots,
        "queries": shape.queries,
        "split": split,
        "seed": seed,
        "normalisation": learner.normalisation,
        "training_steps": learner.updates,
        "seconds": time.perf_counter() - began,
    }
    if wanted:
        queries, members = scores.joined()
        result["baselines"] = {"note": MISSING} if simple is None else simple.results(learner.metric, queries, members)
    return result | scores.further(learner.metric)


def _check_ways(learner: Learner, ways: int) -> None:
    trained = learner.spec.shape.ways
    if learner.spec.kind == "classification" and not learner.any_ways and ways != trained:
        raise UsageError(f"{type(learner).__name__} was trained for {trained} ways: it cannot be tested with {ways}")


class _Scores:
    """The scores of all episodes so far, and which units of the pool they hold."""

    def __init__(self) -> None:
        self.queries: list[Tensor] = []
        self.curves: dict[int, list[Tensor]] = {}
        self.metrics: dict[str, list[Tensor]] = {}
        self._members: list[Members] = []
        self._different: dict[str, list[set[int]]] = {}
        """The different examples in each set of queries that a metric compares."""

    def add(self, learner: Learner, batch: Episodes, generator: torch.Generator) -> None:
        """Tests the learner on a batch of episodes."""
        predictor = learner.adapt(batch.support)
        outputs = predictor(batch.query.x)
        check_finite("a prediction", outputs)
        self.queries.append(query_score(outputs, batch.query).cpu())
        for name, values in learner.objective.measure(predictor, batch.query, outputs, generator).items():
            self.metrics.setdefault(name, []).append(values.cpu())
        for name, supports in learner.objective.corruptions(batch.support, generator).items():
            each = [task_score(learner.adapt(support)(batch.query.x), batch.query) for support in supports]
            worst = torch.stack(each).amin(0) if learner.metric == "accuracy" else torch.stack(each).amax(0)
            self.metrics.setdefault(f"{name}_{learner.metric}", []).append(worst.cpu())
        for steps, values in learner.curve(batch).items():
            self.curves.setdefault(steps, []).append(values.cpu())
        if batch.members is not None:
            self._members.append(batch.members)
            for name, sets in learner.objective.compared(batch.query).items():
                found = [batch.members.different(queries.cpu()) for queries in sets]
                known = self._different.setdefault(name, [set() for _ in sets])
                self._different[name] = [old | (new or set()) for old, new in zip(known, found, strict=True)]

    def main(self) -> Interval:
        """The mean score, and its interval."""
        queries, members = self.joined()
        return mean_interval(queries.mean(1), members, queries)

    def further(self, metric: str) -> dict[str, Any]:
        """The entries `curve` and `metrics` of the result, if there are any."""
        found: dict[str, Any] = {}
        if self.curves:
            rows = {steps: self.interval(values) for steps, values in self.curves.items()}
            found["curve"] = [{"steps": steps, metric: row.mean, "ci95": row.half} for steps, row in rows.items()]
        if self.metrics:
            named = {n: over_examples(self.interval(values), self._fewest(n)) for n, values in self.metrics.items()}
            found["metrics"] = {
                name: {"mean": row.mean, "ci95": row.half, "interval": row.over, "empty": row.unknown}
                for name, row in named.items()
            }
        return found

    def _fewest(self, metric: str) -> int | None:
        """The different examples in the smallest set of queries that a metric compares; None if nobody knows."""
        members = self.joined()[1]
        if members is None or members.query_ids is None or metric not in self._different:
            return None
        return min(map(len, self._different[metric]))

    def interval(self, parts: list[Tensor]) -> Interval:
        """The mean and the interval of another figure of each episode."""
        return mean_interval(torch.cat(parts), self.joined()[1])

    def joined(self) -> tuple[Tensor, Members | None]:
        """The score of each query `[E, Q]`, and the members of all episodes."""
        return torch.cat(self.queries), Members.joined(self._members) if self._members else None
