"""Why a few-shot learner predicts what it predicts: the support rows and the features that decided.

Everything is measured on the predictor itself, so that it holds for every learner, and is in units of probability:

    support_effect[q, s]    p(ŷ_q) with the whole support set, minus p(ŷ_q) without support row s
    feature_effect[q, f]    p(ŷ_q), minus its mean with feature f of the query exchanged for that of other rows of the
                            support set (permutation within the episode)

ŷ_q is the predicted class, so a positive number speaks for the prediction. A support row that is the only one of its
class cannot be left out: its effect is NaN. The inputs of one column, such as those of its words, are exchanged
together; the features of a picture are the squares of a grid, those of a signal its parts in time.

Learners that compare also say what they compare with: `attention`, the weight of each support row in the answer
(matching networks), and `distances`, from each query to the prototype of each class (prototypical networks).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.episodes import Samples
from metarl.fewshot.learner import Learner, check_predictions
from metarl.fewshot.support_order import content_order, reordered
from metarl.randomness import make_generator

GRID = 4
"""Squares of the grid on a picture, along each side."""
STRETCHES = 8
"""Parts of a signal, one after another."""
REPEATS = 10
"""Support rows that stand in for a feature of a query, at most."""


@dataclass(frozen=True)
class Explanation:
    """The explanation of the predictions for Q queries from S support rows, F features and N classes.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.explain import explain
    >>> from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
    >>> learner = ProtoNet(ProtoNetConfig(), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> found = explain(learner, torch.randn(4, 6), [0, 1, 0, 1], torch.randn(3, 6))
    >>> found.support_effect.shape, found.feature_effect.shape, found.distances.shape
    (torch.Size([3, 4]), torch.Size([3, 6]), torch.Size([3, 2]))
    """

    predicted: Int[Tensor, "Q"]
    probabilities: Float[Tensor, "Q N"]
    support_effect: Float[Tensor, "Q S"]
    feature_effect: Float[Tensor, "Q F"]
    features: tuple[str, ...]
    """The names of the features."""
    attention: Float[Tensor, "Q S"] | None = None
    distances: Float[Tensor, "Q N"] | None = None

    def of_queries(self, shown: int) -> list[dict[str, Any]]:
        """For each query the `shown` support rows, counted from 1, and features with the largest effects."""
        found = []
        for query in range(len(self.predicted)):
            support, features = self.support_effect[query], self.feature_effect[query]
            entry: dict[str, Any] = {
                "support": [{"row": s + 1, "effect": float(support[s])} for s in _largest(support, shown)],
                "features": [
                    {"feature": self.features[f], "effect": float(features[f])} for f in _largest(features, shown)
                ],
            }
            if self.attention is not None:
                weights = self.attention[query]
                entry["attention"] = [{"row": s + 1, "weight": float(weights[s])} for s in _largest(weights, shown)]
            if self.distances is not None:
                entry["distances"] = self.distances[query].tolist()
            found.append(entry)
        return found


@torch.no_grad()
def explain(
    learner: Learner,
    support_x: Any,
    support_y: Any,
    query_x: Any,
    support_groups: Any = None,
    *,
    features: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
) -> Explanation:
    """Explains the predictions of `learner.predict` for the same arguments.

    `features` names the inputs that belong together; each input is one feature if it is not given. Not for pictures and
    signals, whose features are the squares `row R, column C` and the stretches `steps A to B`. Raises `UsageError` as
    `predict` does, and for regression and transductive learners, whose predictions have no explanation of their own.
    """
    if learner.spec.kind != "classification":
        raise UsageError("explanations are of predicted classes: a regression has none")
    if learner.normalisation == "transductive":
        raise UsageError("a transductive prediction depends on the other queries: it has no explanation of its own")
    support, queries = learner.converted(support_x, support_y, query_x, support_groups)
    order = torch.arange(support.x.shape[1], device=support.x.device)
    if learner.order_matters:  # as `predict` does
        order = content_order(support)[0]
        support = reordered(support, order[None])
    place = order.argsort()  # of the user's rows
    predictor = learner.adapt(support)
    outputs = predictor(queries)[0]
    check_predictions(outputs)
    p = outputs.softmax(-1)
    predicted = p.argmax(-1)
    names, masks = _features(learner, features)
    attention, distances = (
        None if found is None else found[0]
        for found in (learner.support_weights(support, queries), learner.class_distances(support, queries))
    )
    return Explanation(
        predicted.cpu(),
        p.cpu(),
        _leaving_out(learner, support, queries, p, predicted)[:, place].cpu(),
        _exchanging(predictor, support.x[0], queries[0], masks, p, predicted, seed).cpu(),
        names,
        None if attention is None else attention[:, place].cpu(),
        None if distances is None else distances.cpu(),
    )


def _leaving_out(
    learner: Learner, support: Samples, queries: Float[Tensor, "1 Q ..."], p: Tensor, predicted: Tensor
) -> Float[Tensor, "Q S"]:
    """The effect of each support row on p(ŷ)."""
    labels = support.y[0]
    counts = labels.bincount()
    effect = p.new_full((len(p), len(labels)), math.nan)
    for row in (counts[labels] > 1).nonzero()[:, 0].tolist():
        kept = torch.arange(len(labels), device=labels.device) != row
        groups = None if support.groups is None else support.groups[:, kept]
        smaller = Samples(support.x[:, kept], support.y[:, kept], groups)
        without = learner.adapt(smaller)(queries)[0].softmax(-1)
        effect[:, row] = _of(p, predicted) - _of(without, predicted)
    return effect


def _exchanging(
    predictor: Any,
    support: Float[Tensor, "S ..."],
    queries: Float[Tensor, "Q ..."],
    masks: Sequence[Tensor],
    p: Tensor,
    predicted: Tensor,
    seed: int,
) -> Float[Tensor, "Q F"]:
    """The effect of each feature on p(ŷ)."""
    generator = make_generator("explanation", seed)
    donors = torch.randperm(len(support), generator=generator)[:REPEATS].to(support.device)
    effect = p.new_zeros(len(p), len(masks))
    for place, mask in enumerate(masks):
        mask = mask.to(support.device)
        total = torch.zeros_like(effect[:, 0])
        for donor in donors.tolist():
            exchanged = torch.where(mask, support[donor], queries)
            total += _of(predictor(exchanged[None])[0].softmax(-1), predicted)
        effect[:, place] = _of(p, predicted) - total / len(donors)
    return effect


def _features(learner: Learner, features: Mapping[str, Sequence[int]] | None) -> tuple[tuple[str, ...], list[Tensor]]:
    """The names of the features, and the mask `[*shape]` of the inputs that each consists of."""
    shape = learner.spec.input_shape
    if len(shape) > 1:
        if features is not None:
            what = "squares of a grid on a picture" if len(shape) == 3 else "stretches of a signal"
            raise UsageError(f"the features are the {what}: leave features out")
        return _squares(shape) if len(shape) == 3 else _stretches(shape)
    places = {f"input {i}": [i] for i in range(shape[0])} if features is None else features
    masks = []
    for name, inputs in places.items():
        if not all(0 <= i < shape[0] for i in inputs):
            raise UsageError(f"feature {name!r}: inputs are numbered from 0 to {shape[0] - 1}, got {list(inputs)}")
        mask = torch.zeros(shape, dtype=torch.bool)
        mask[list(inputs)] = True
        masks.append(mask)
    return tuple(places), masks


def _stretches(shape: tuple[int, ...]) -> tuple[tuple[str, ...], list[Tensor]]:
    names, masks = [], []
    for steps in np.array_split(np.arange(shape[1]), min(STRETCHES, shape[1])):
        mask = torch.zeros(shape, dtype=torch.bool)
        mask[:, steps] = True
        names.append(f"steps {steps[0] + 1} to {steps[-1] + 1}")
        masks.append(mask)
    return tuple(names), masks


def _squares(shape: tuple[int, ...]) -> tuple[tuple[str, ...], list[Tensor]]:
    names, masks = [], []
    rows, columns = (np.array_split(np.arange(size), GRID) for size in shape[1:])
    for r, row in enumerate(rows, 1):
        for c, column in enumerate(columns, 1):
            mask = torch.zeros(shape, dtype=torch.bool)
            mask[:, row[:, None], column] = True
            names.append(f"row {r}, column {c}")
            masks.append(mask)
    return tuple(names), masks


def _of(probabilities: Float[Tensor, "Q N"], predicted: Int[Tensor, "Q"]) -> Float[Tensor, "Q"]:
    return probabilities.gather(1, predicted[:, None])[:, 0]


def _largest(values: Float[Tensor, "n"], count: int) -> list[int]:
    """The places of the largest absolute values that are known, the largest first."""
    known = (~values.isnan()).nonzero()[:, 0]
    order = values[known].abs().argsort(descending=True, stable=True)
    return known[order][:count].tolist()
