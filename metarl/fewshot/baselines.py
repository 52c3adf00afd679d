"""Simple models of scikit-learn on the test episodes of a learner: what few-shot learning has to beat.

Each model is fitted on the support set of every episode alone and, if labels mean the same in every episode (sites of a
table) or there are none (regression), also once on all training rows. Their inputs are those of the network. They are
scored on the same queries as the learner, with intervals of the same kind, and differences are paired.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.data import DataSet
from metarl.fewshot.episodes import Episodes, Kind, Members
from metarl.fewshot.intervals import Interval, mean_interval
from metarl.randomness import make_generator

MOST_ROWS = 20_000
"""Training rows that a model is fitted on at most, a random sample of a larger table."""
MISSING = "baselines need scikit-learn, which is missing: pip install 'metarl-kit[tables]'"
PERMUTED = "each episode permutes the labels, so that no model can be fitted on all training rows"


def models(kind: Kind, rows: int, shots: int) -> dict[str, Any]:
    """Unfitted models for `rows` rows: name → model. They have scikit-learn's defaults, but where few rows forbid it.

    The k of the nearest neighbours is `shots`, at most 5. Boosting makes 20 trees with step size 0.3, whose leaves have
    a tenth of the rows or 20: by default it would not split a support set of 20 rows.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    leaves = max(1, min(20, rows // 10))
    trees = {"max_iter": 20, "learning_rate": 0.3, "min_samples_leaf": leaves, "early_stopping": False}
    neighbours = max(1, min(5, shots))
    if kind == "regression":
        return {
            "ridge regression": Ridge(),
            "nearest neighbours": KNeighborsRegressor(neighbours),
            "gradient boosting": HistGradientBoostingRegressor(**trees),
        }
    return {
        "logistic regression": LogisticRegression(max_iter=1000),
        "nearest neighbours": KNeighborsClassifier(neighbours),
        "gradient boosting": HistGradientBoostingClassifier(**trees),
    }


@dataclass(frozen=True)
class Baseline:
    """A model, what it was fitted on, and its score of every query so far.

    >>> from metarl.fewshot.baselines import Baseline
    >>> Baseline("logistic regression", "each support set", []).fitted_on
    'each support set'
    """

    model: str
    fitted_on: str
    scores: list[Tensor]
    """1 for a right prediction and 0 for a wrong one, or the squared error: `[E, Q]` of each batch."""


class Baselines:
    """The baselines beside a learner on the test episodes of `data`.

    >>> from metarl.fewshot.baselines import Baselines
    >>> from metarl.fewshot.data import open_data
    >>> data = open_data("iris")  # needs scikit-learn
    >>> found = Baselines(data)
    >>> found.add(data.episodes("test", 2, data.default_shape(), seed=0))
    >>> [(each.model, each.fitted_on) for each in found.all][0]
    ('logistic regression', 'each support set')
    """

    def __init__(self, data: DataSet):
        self.kind = data.kind
        self.all: list[Baseline] = []
        self.note: str | None = None
        self._fitted: dict[str, Any] = {}
        pools = getattr(data, "pools", None)
        labelled = None if pools is None else pools["train"].labelled()
        if labelled is None:
            self.note = PERMUTED
            return
        inputs, targets = labelled
        if len(inputs) > MOST_ROWS:
            chosen = torch.randperm(len(inputs), generator=make_generator("baselines"))[:MOST_ROWS]
            inputs, targets = inputs[chosen], targets[chosen]
        x, y = _arrays(data.preprocessing(inputs), targets)
        self._rows = f"{len(x)} training rows"
        self._fitted = models(self.kind, len(x), 5)
        for model in self._fitted.values():
            _fit(model, x, y)

    def add(self, episodes: Episodes) -> None:
        """Scores all models on a batch of episodes."""
        support, query = episodes.support.to("cpu"), episodes.query.to("cpu")
        found: dict[tuple[str, str], list[np.ndarray]] = {}
        for task in range(len(episodes)):
            x, y = _arrays(support.x[task], support.y[task])
            queries, truth = _arrays(query.x[task], query.y[task])
            shots = len(x) if self.kind == "regression" else len(x) // (int(y.max()) + 1)
            for name, model in models(self.kind, len(x), shots).items():
                score = self._score(_fit(model, x, y), queries, truth)
                found.setdefault((name, "each support set"), []).append(score)
            for name, model in self._fitted.items():
                found.setdefault((name, self._rows), []).append(self._score(model, queries, truth))
        if not self.all:
            self.all = [Baseline(name, fitted_on, []) for name, fitted_on in found]
        for baseline, scores in zip(self.all, found.values(), strict=True):
            baseline.scores.append(torch.from_numpy(np.stack(scores)))

    def results(self, metric: str, own: Tensor, members: Members | None) -> dict[str, Any]:
        """The mean of each model, its interval, and that of the learner's score `own` `[E, Q]` minus the model's.

        `verdict` says in words whether a model is better than the learner.
        """

        def interval(scores: Tensor) -> Interval:
            return mean_interval(scores.mean(1), members, scores)

        rows = []
        for baseline in self.all:
            scores = torch.cat(baseline.scores).to(own.dtype)
            mean, difference = interval(scores), interval(own - scores)
            rows.append(
                {
                    "model": baseline.model,
                    "fitted_on": baseline.fitted_on,
                    metric: mean.mean,
                    "ci95": mean.half,
                    "difference": {"mean": difference.mean, "ci95": difference.half},
                }
            )
        result: dict[str, Any] = {"models": rows, "verdict": verdict(rows, metric)}
        return result if self.note is None else result | {"note": self.note}

    def _score(self, model: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        predicted = model.predict(x)
        return np.square(predicted - y) if self.kind == "regression" else (predicted == y).astype(np.float32)


def verdict(rows: list[dict[str, Any]], metric: str) -> str:
    """Whether the best of the models beats the learner, in words."""
    sign = 1 if metric == "accuracy" else -1
    best = max(rows, key=lambda row: sign * row[metric])
    name = f"{best['model']} fitted on {best['fitted_on']}"
    mean, half = best["difference"]["mean"], best["difference"]["ci95"]
    behind = -sign * mean
    beyond = f"{abs(mean):.4f}" + (", an interval is not known" if half is None else f" ± {half:.4f}")
    if behind > 0:
        sure = "" if half is not None and behind > half else ", which may be chance"
        return f"a simple baseline wins: {name} has {metric} {best[metric]:.4f}, better by {beyond}{sure}"
    if half is None or -behind <= half:
        best_is = f"{name} has {metric} {best[metric]:.4f}, a difference of {beyond}"
        return f"no better than the best baseline beyond chance: {best_is}"
    return f"better than every baseline: the best, {name}, has {metric} {best[metric]:.4f}, worse by {beyond}"


def is_available() -> bool:
    """Whether scikit-learn is installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        return False
    return True


def _arrays(x: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return x.flatten(1).numpy(), y.flatten().numpy()


def _fit(model: Any, x: np.ndarray, y: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a solver that has not converged: it is a baseline as it comes
        return model.fit(x, y)
