"""The figures that people report of a classifier: per class, per group, balanced accuracy, F1, AUC, confusion.

Every episode is one classifier, so every figure is computed within episodes and then averaged over them, with the
interval of `metarl.fewshot.intervals`. Only counts are summed over episodes, and only if a label means the same in all
of them: the confusion matrix. `averaging` in the result says so. A figure that an episode does not define, such as the
accuracy for a class or a group without queries in it, omits that episode; `episodes_without` counts them.

    recall_c = TP / (TP + FN),   precision_c = TP / (TP + FP),   F1_c = 2 TP / (2 TP + FP + FN)
    AUC_c = P(score of a query of c > score of another query) + ½ P(equal),  the score is the probability of c

Balanced accuracy is the mean recall of the classes that have queries, macro F1 the mean of F1_c over the classes with
queries or predictions, and macro AUC the mean of AUC_c, one class against the rest.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from metarl.fewshot.intervals import Interval, mean_interval, over_examples
from metarl.fewshot.predictions import Predictions

MOST_CLASSES = 100
"""Classes that a result lists one by one, at most."""
FEW = 30
"""A group with fewer different examples than this is marked: its rates say little."""


def classification_figures(found: Predictions) -> dict[str, Any]:
    """Accuracy, balanced accuracy, macro F1 and AUC, the same per class, and the confusion matrix if it has a meaning.

    >>> from metarl.fewshot.figures import classification_figures
    >>> from metarl.fewshot.predictions import Predictions
    >>> scores = torch.tensor([[[2.0, 0.0], [1.0, 0.0]], [[2.0, 0.0], [0.0, 1.0]]])
    >>> found = Predictions(scores, torch.tensor([[0, 1]] * 2))
    >>> classification_figures(found)["balanced_accuracy"]["mean"]
    0.75
    """
    counts = Counts(found)
    figures = {
        "accuracy": counts.right.mean(1),
        "balanced_accuracy": counts.recall.nanmean(1),
        "macro_f1": counts.f1.nanmean(1),
        "macro_auc": auc(found.probabilities, found.y).nanmean(1),
    }
    result: dict[str, Any] = {name: _row(values, found) for name, values in figures.items()}
    result["accuracy"] = _row(figures["accuracy"], found, counts.right)
    labels = "labels mean the same in every episode" if found.fixed else "labels are those of each episode"
    result["averaging"] = f"within episodes, then over episodes; {labels}"
    if found.fixed:
        assert found.names is not None
        auc_of = auc(found.probabilities, found.y)
        result["per_class"] = [
            {
                "class": name,
                "queries": int((found.y == label).sum()),
                "accuracy": _row(counts.recall[:, label], found),
                "precision": _row(counts.precision[:, label], found),
                "f1": _row(counts.f1[:, label], found),
                "auc": _row(auc_of[:, label], found),
            }
            for label, name in enumerate(found.names)
        ]
        result["confusion"] = {
            "classes": list(found.names),
            "counts": confusion(found.chosen, found.y, len(found.names)).tolist(),
            "rows": "the truth; columns are predictions",
        }
    elif found.names is not None and found.members is not None:
        result["per_class"] = _per_class(found, counts.right)
    return result


class Counts:
    """Within each episode: which queries are right, and recall, precision and F1 of each class, NaN if undefined.

    >>> from metarl.fewshot.figures import Counts
    >>> from metarl.fewshot.predictions import Predictions
    >>> Counts(Predictions(torch.tensor([[[2.0, 0.0], [1.0, 0.0]]]), torch.tensor([[0, 1]]))).precision
    tensor([[0.5000,    nan]], dtype=torch.float64)
    """

    def __init__(self, found: Predictions):
        ways = found.scores.shape[-1]
        truth, guess = (F.one_hot(labels, ways).double() for labels in (found.y, found.chosen))
        both = (truth * guess).sum(1)
        self.right: Float[Tensor, "E Q"] = (found.chosen == found.y).double()
        self.recall: Float[Tensor, "E N"] = both / truth.sum(1)  # 0 / 0 is NaN
        self.precision: Float[Tensor, "E N"] = both / guess.sum(1)
        self.f1: Float[Tensor, "E N"] = 2 * both / (truth.sum(1) + guess.sum(1))


def confusion(chosen: Int[Tensor, "E Q"], y: Int[Tensor, "E Q"], ways: int) -> Int[Tensor, "N N"]:
    """The number of queries of each class (rows) that were taken for each class (columns)."""
    return (y * ways + chosen).flatten().bincount(minlength=ways * ways).reshape(ways, ways)


def auc(probabilities: Float[Tensor, "E Q N"], y: Int[Tensor, "E Q"]) -> Float[Tensor, "E N"]:
    """The area under the ROC curve of each class against the rest, within each episode; NaN without both kinds.

    By the rank sum of Mann and Whitney, in which equal scores share their ranks.
    """
    ranks = torch.from_numpy(np.asarray(stats.rankdata(probabilities.numpy(), axis=1), dtype=np.float64))
    is_class = F.one_hot(y, probabilities.shape[-1]).double()
    positive = is_class.sum(1)
    negative = y.shape[1] - positive
    return ((ranks * is_class).sum(1) - positive * (positive + 1) / 2) / (positive * negative)


def group_figures(found: Predictions, favourable: int) -> dict[str, Any]:
    """How each protected group is treated: selection rate, TPR, FPR and accuracy, and their differences to a reference.

    The reference is the group with most queries. Rates are means over the episodes that define them, differences are
    taken within episodes that define both, so that neither is biased by the size of a group. A group without queries is
    listed with 0. Episodes draw the same examples again and again, so `examples` counts the different ones among the
    queries (None if they are not numbered): with fewer than `FEW`, a group is marked as `rare`, and a rate over fewer
    than `FEWEST_EXAMPLES` has no interval. Rows of one owner, such as a patient, count once.

        selection rate P(ŷ = f | a),   TPR P(ŷ = f | a, y = f),   FPR P(ŷ = f | a, y ≠ f)
    """
    assert found.groups is not None
    decided, deserved = found.chosen == favourable, found.y == favourable
    number = max(len(found.group_names), int(found.groups.max()) + 1)
    sizes = found.groups.flatten().bincount(minlength=number)
    rates = [_group_rates(found, found.groups == group, decided, deserved) for group in range(number)]
    reference = int(sizes.argmax())
    rows = []
    for group in range(number):
        row: dict[str, Any] = {"group": _name(found.group_names, group), "queries": int(sizes[group])}
        row["examples"] = _different(found, found.groups == group)
        row["rare"] = (row["queries"] if row["examples"] is None else row["examples"]) < FEW
        for name, (values, where) in rates[group].items():
            few = _different(found, where)
            row[name] = _rate_row(values, found, few)
            if group != reference:
                other, there = rates[reference][name]
                known = [count for count in (few, _different(found, there)) if count is not None]
                row[f"{name}_difference"] = _rate_row(values - other, found, min(known, default=None))
        rows.append(row)
    return {"favourable": _favourable_name(found, favourable), "reference": rows[reference]["group"], "groups": rows}


def _group_rates(
    found: Predictions, inside: Bool[Tensor, "E Q"], decided: Bool[Tensor, "E Q"], deserved: Bool[Tensor, "E Q"]
) -> Mapping[str, tuple[Float[Tensor, "E"], Bool[Tensor, "E Q"]]]:
    """The rates of one group in each episode, NaN if it has no queries of the kind, and these queries."""

    def rate(values: Bool[Tensor, "E Q"], where: Bool[Tensor, "E Q"]) -> tuple[Float[Tensor, "E"], Bool[Tensor, "E Q"]]:
        return (values & where).sum(1).double() / where.sum(1), where

    return {
        "selection_rate": rate(decided, inside),
        "tpr": rate(decided, inside & deserved),
        "fpr": rate(decided, inside & ~deserved),
        "accuracy": rate(found.chosen == found.y, inside),
    }


def _per_class(found: Predictions, right: Float[Tensor, "E Q"]) -> Any:
    """The accuracy for the queries of each class of the data, if episodes hold only some of the classes."""
    assert found.members is not None
    assert found.names is not None
    if len(found.names) > MOST_CLASSES:
        return f"{len(found.names)} classes are more than the {MOST_CLASSES} that are listed"
    rows = []
    for place, name in enumerate(found.names):
        mine = found.members.query_classes == place
        values = (right * mine).sum(1) / mine.sum(1)
        rows.append({"class": name, "queries": int(mine.sum()), "accuracy": _row(values, found, one_class=True)})
    return rows


def _row(
    values: Float[Tensor, "E"],
    found: Predictions,
    queries: Float[Tensor, "E Q"] | None = None,
    *,
    one_class: bool = False,
) -> dict[str, Any]:
    """A figure with its interval, as plain values. One class is not a sample of classes: it has no interval over them.

    `queries` are the scores that `values` are the means of, if they are.
    """
    row = mean_interval(values, found.members, queries)
    if one_class and found.members is not None and found.members.are_classes:
        row = Interval(row.mean, None, "none over classes: this is one class", row.unknown)
    return _entry(row)


def _entry(row: Interval) -> dict[str, Any]:
    return {"mean": row.mean, "ci95": row.half, "interval": row.over, "episodes_without": row.unknown}


def _different(found: Predictions, where: Bool[Tensor, "E Q"]) -> int | None:
    """How many different examples the queries `where` are; None if they are not numbered."""
    different = None if found.members is None else found.members.different(where)
    return None if different is None else len(different)


def _rate_row(values: Float[Tensor, "E"], found: Predictions, examples: int | None) -> dict[str, Any]:
    """A rate over so many different `examples`, without an interval if they are too few."""
    return _entry(over_examples(mean_interval(values, found.members), examples))


def _name(names: tuple[str, ...], place: int) -> str:
    return names[place] if place < len(names) else str(place)


def _favourable_name(found: Predictions, favourable: int) -> str:
    return found.names[favourable] if found.fixed and found.names is not None else f"label {favourable}"
