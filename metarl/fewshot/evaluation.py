"""The test of a few-shot learner: by default 600 episodes of classes unseen in training, with 95 % intervals."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metarl.errors import UsageError
from metarl.faults import check_finite
from metarl.fewshot.data import DataSet
from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.learner import Learner
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
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Tests `learner` on episodes of `split`; returns `accuracy` (or `mse`), its `ci95`, and how they were measured.

    `shape` defaults to the learner's. `ci95` is half the 95 % interval of the mean over episodes, 1.96 standard errors.
    `curve` has the score after each adaptation step, `metrics` those of the objective. `report` gets the episodes done.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
    >>> data = open_data("biased")
    >>> learner = ProtoNet(ProtoNetConfig(), data.spec(data.default_shape()))
    >>> result = metarl.fewshot.evaluate(learner, data, episodes=10)
    """
    check_count("episodes", episodes)
    shape = shape or learner.spec.shape
    trained = learner.spec.shape.ways
    if learner.spec.kind == "classification" and not learner.any_ways and shape.ways != trained:
        raise UsageError(
            f"{type(learner).__name__} was trained for {trained} ways: it cannot be tested with {shape.ways}"
        )
    began = time.perf_counter()
    scores: list[Tensor] = []
    curves: dict[int, list[Tensor]] = {}
    metrics: dict[str, list[Tensor]] = {}
    for start in range(0, episodes, BATCH):
        batch = data.episodes(split, min(BATCH, episodes - start), shape, seed=derive_seed("evaluate", seed, start))
        batch = batch.to(learner.device)
        predictor = learner.adapt(batch.support)
        outputs = predictor(batch.query.x)
        check_finite("a prediction", outputs)
        scores.append(learner.task_scores(outputs, batch.query))
        generator = learner.generator("evaluate", seed, start)
        for name, values in learner.objective.measure(predictor, batch.query, outputs, generator).items():
            metrics.setdefault(name, []).append(values)
        for steps, values in learner.curve(batch).items():
            curves.setdefault(steps, []).append(values)
        report(start + len(batch))
    mean, ci95, _ = summarize(scores)
    result: dict[str, Any] = {
        learner.metric: mean,
        "ci95": ci95,
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
    if curves:
        rows = {steps: summarize(values) for steps, values in curves.items()}
        result["curve"] = [{"steps": steps, learner.metric: m, "ci95": c} for steps, (m, c, _) in rows.items()]
    if metrics:
        rows_by_name = {name: summarize(values) for name, values in metrics.items()}
        result["metrics"] = {name: {"mean": m, "ci95": c, "empty": e} for name, (m, c, e) in rows_by_name.items()}
    return result


def summarize(parts: list[Tensor]) -> tuple[float | None, float | None, int]:
    """Mean, half width of its 95 % interval, and the number of NaNs, which are left out; None if no value remains."""
    values = torch.cat(parts).double()
    kept = values[~values.isnan()]
    if len(kept) == 0:
        return None, None, len(values)
    error = float(kept.std()) / math.sqrt(len(kept)) if len(kept) > 1 else None
    return float(kept.mean()), None if error is None else 1.96 * error, len(values) - len(kept)
