"""Probabilities that can be believed: calibration error, temperature, and prediction sets with a stated coverage.

    Brier = mean of Σ_k (p_k − [y = k])²
    ECE   = Σ_b n_b / n · |accuracy_b − confidence_b| over bins b of the confidence max_k p_k

(Brier 1950, in its original form over all classes; Guo, Pleiss, Sun, Weinberger, ICML 2017, equations 3 and 5.) The
temperature T divides the scores before the softmax; it minimises the mean negative log-likelihood (Guo et al., section
4.2) and changes no decision.

Prediction sets are those of split conformal prediction: {k : 1 − p_k ≤ t}. The queries of one episode depend on each
other through the support, so not queries but episodes are exchangeable. The threshold is therefore that of hierarchical
conformal prediction (Lee, Barber, Willett 2023): the 1 − α quantile of 1 − p_y if each of E calibration episodes has
the weight 1/(E + 1), shared by its queries, and the rest is at infinity. With one query an episode it is the usual
⌈(E + 1)(1 − α)⌉-th smallest score. A query of a further episode is then in its set with a probability of at least
1 − α, provided that the calibration episodes and that one are exchangeable: of classes, rows, patients or sites that
the learner has not been trained on alike. Where calibration episodes are those of training, the learner knows their
rows and the sets are too small; hold rows out of the training (`validate_every`) to calibrate on them.

A query whose set does not have exactly one class is abstained from.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy import optimize
from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.files import write_atomically
from metarl.experiment.options import build
from metarl.experiment.plots import new_figure, save_figure
from metarl.fewshot.intervals import mean_interval
from metarl.fewshot.predictions import Predictions
from metarl.parsing import parse_json

CALIBRATION = "calibration.json"
"""The file's name in the run folder."""
BINS = 15
"""Bins of the confidence, equally wide."""
HOTTEST = 50.0
"""Temperatures are sought from 1/50 to 50."""


@dataclass(frozen=True)
class Calibration:
    """The temperature of a run and the threshold of its prediction sets.

    >>> from metarl.fewshot.calibration import Calibration
    >>> Calibration(2.0, 0.7, 0.9, "train", 200, 1000).sets(torch.tensor([[0.6, 0.4], [0.8, 0.2]])).tolist()
    [[True, True], [True, False]]
    """

    temperature: float
    threshold: float | None
    """Classes whose calibrated probability is at least 1 − `threshold` are in the set; None: all are."""
    coverage: float
    """The share of sets that are to have the true class (1 − α)."""
    split: str
    """The split of the calibration episodes."""
    episodes: int
    training_steps: int
    """Training steps of the learner that was calibrated."""

    def probabilities(self, scores: Float[Tensor, "*q N"]) -> Float[Tensor, "*q N"]:
        """The calibrated probabilities for a learner's scores."""
        return (scores.double() / self.temperature).softmax(-1)

    def sets(self, probabilities: Float[Tensor, "*q N"]) -> Bool[Tensor, "*q N"]:
        """Which classes are in the prediction set of each query, given calibrated probabilities."""
        if self.threshold is None:
            return torch.ones_like(probabilities, dtype=torch.bool)
        return 1 - probabilities <= self.threshold


def calibrate(found: Predictions, *, coverage: float, split: str, training_steps: int) -> Calibration:
    """Fits temperature and threshold to the predictions of calibration episodes."""
    if not 0 < coverage < 1:
        raise UsageError(f"coverage must lie in (0, 1), got {coverage}")
    temperature = fit_temperature(found.scores.flatten(0, 1), found.y.flatten())
    scores = 1 - _of_truth((found.scores.double() / temperature).softmax(-1), found.y)
    threshold = conformal_threshold(scores, coverage)
    finite = threshold if math.isfinite(threshold) else None
    return Calibration(temperature, finite, coverage, split, len(found.y), training_steps)


def fit_temperature(scores: Float[Tensor, "n N"], y: Int[Tensor, "n"]) -> float:
    """The T in [1/50, 50] that minimises the mean negative log-likelihood of softmax(scores / T).

    The likelihood has one maximum in 1/T, for it is concave there.
    """
    scores = scores.double()

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(scores / math.exp(log_t), y))

    end = math.log(HOTTEST)
    return math.exp(optimize.minimize_scalar(loss, bounds=(-end, end), method="bounded", options={"xatol": 1e-6}).x)


def conformal_threshold(scores: Float[Tensor, "E Q"], coverage: float) -> float:
    """The threshold of hierarchical conformal prediction; infinity if E episodes are too few for the coverage."""
    values, _ = scores.double().flatten().sort()
    episodes, queries = scores.shape
    needed = math.ceil(coverage * (episodes + 1) * queries - 1e-9)  # in units of the weight 1 / ((E + 1) Q)
    return float(values[needed - 1]) if needed <= len(values) else math.inf


def calibration_figures(found: Predictions, calibration: Calibration | None = None) -> dict[str, Any]:
    """ECE, Brier score, log loss and reliability of the probabilities, as they are or calibrated."""
    p = found.probabilities if calibration is None else calibration.probabilities(found.scores)
    brier = (p - F.one_hot(found.y, p.shape[-1])).square().sum(-1)
    score = mean_interval(brier.mean(1), found.members, brier)
    confidence, right = p.amax(-1).flatten().numpy(), (p.argmax(-1) == found.y).double().flatten().numpy()
    rows = reliability(confidence, right)
    return {
        "temperature": 1.0 if calibration is None else calibration.temperature,
        "ece": sum(row["queries"] * abs(row["accuracy"] - row["confidence"]) for row in rows) / len(right),
        "brier": {"mean": score.mean, "ci95": score.half, "interval": score.over},
        "log_loss": float(-_of_truth(p, found.y).clamp(min=1e-300).log().mean()),
        "reliability": rows,
    }


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy and mean confidence in each bin of the confidence that has queries; bins are (low, high]."""
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        {
            "from": b / BINS,
            "to": (b + 1) / BINS,
            "queries": int((place == b).sum()),
            "accuracy": float(right[place == b].mean()),
            "confidence": float(confidence[place == b].mean()),
        }
        for b in np.unique(place).tolist()
    ]


def conformal_figures(found: Predictions, calibration: Calibration) -> dict[str, Any]:
    """The coverage and the size of prediction sets, and the accuracy for queries that are not abstained from."""
    sets = calibration.sets(calibration.probabilities(found.scores))
    covered = sets.gather(-1, found.y[..., None])[..., 0].double()
    sizes = sets.sum(-1)
    answered = sizes == 1
    measured = mean_interval(covered.mean(1), found.members, covered)
    right = (found.chosen == found.y)[answered].double()
    return {
        "stated_coverage": calibration.coverage,
        "coverage": {"mean": measured.mean, "ci95": measured.half, "interval": measured.over},
        "calibrated_on": f"{calibration.episodes} episodes of {calibration.split}; exchangeable are episodes, not rows",
        "mean_size": float(sizes.double().mean()),
        "empty": float((sizes == 0).double().mean()),
        "answered": float(answered.double().mean()),
        "accuracy_if_answered": float(right.mean()) if len(right) else None,
    }


def write_calibration(run: Path, calibration: Calibration) -> None:
    """Keeps the calibration in the run folder."""
    write_atomically(run / CALIBRATION, json.dumps(dataclasses.asdict(calibration), indent=2) + "\n")


def read_calibration(run: Path) -> Calibration | None:
    """The calibration in the run folder, or None; raises `UsageError` if it is damaged."""
    file = run / CALIBRATION
    if not file.is_file():
        return None
    try:
        entries = parse_json(file.read_bytes(), str(file))
    except UsageError:
        entries = None
    if not isinstance(entries, Mapping):
        raise UsageError(f"{file} is damaged: metarl evaluate {run} --figures makes it anew")
    return build(Calibration, entries, str(file))


def draw_reliability(raw: Mapping[str, Any], calibrated: Mapping[str, Any], title: str, path: Path) -> None:
    """Accuracy over confidence, before and after calibration; on the diagonal, probabilities can be believed."""
    figure, axes = new_figure(f"{title}: reliability", "confidence", "accuracy", 4.5)
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":")
    for name, figures in (("as predicted", raw), ("calibrated", calibrated)):
        rows = figures["reliability"]
        label = f"{name}, ECE {figures['ece']:.3f}"
        axes.plot([r["confidence"] for r in rows], [r["accuracy"] for r in rows], marker="o", label=label)
    axes.legend(fontsize=8)
    save_figure(figure, path)


def _of_truth(probabilities: Float[Tensor, "E Q N"], y: Int[Tensor, "E Q"]) -> Float[Tensor, "E Q"]:
    return probabilities.gather(-1, y[..., None])[..., 0]
