"""Group fairness: decisions that do not depend on a protected group.

A decision is favourable if ŷ = f, the favourable class. Definitions (Hardt, Price, Srebro, NeurIPS 2016), for all
groups a and b:

    demographic parity    P(ŷ = f | a)            = P(ŷ = f | b)
    equal opportunity     P(ŷ = f | a, y = f)     = P(ŷ = f | b, y = f)
    equalised odds        equal opportunity, and  P(ŷ = f | a, y ≠ f) = P(ŷ = f | b, y ≠ f)

Training minimises the loss plus λ times a penalty, in adaptation on the support set (inside) and on the queries
(outside), each with its own λ, as in Fair-MAML (Slack, Friedler, Givental, FAT* 2020). The surrogates for the penalty:

    difference    (mean of p(f | x) in a − that in b)², the mean over pairs of groups
    covariance    cov(1[group = a], log-odds of f)², half the sum over groups: the decision boundary covariance of Zafar
                  et al. (AISTATS 2017), which Zhao et al. (Fair meta-learning for few-shot classification, ICKG 2020)
                  hold near zero

Deviations: Fair-MAML's own regulariser is 1 − the mean of p(f | x) in the protected group, which always rewards more
favour for that group, and Zhao et al. bound the covariance by a constraint. Here both are squared penalties with their
minimum at parity. If a group has no examples, penalties omit its pairs, metrics are NaN, which the evaluation counts,
and `empty_groups` reports the number of such groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.episodes import Episodes, Samples, TaskSpec
from metarl.fewshot.objectives.plain import Objective, ObjectiveConfig, Predictor
from metarl.tasks import check_count

Criterion = Literal["demographic-parity", "equal-opportunity", "equalised-odds"]
Surrogate = Literal["difference", "covariance"]


@dataclass(frozen=True)
class FairnessConfig(ObjectiveConfig):
    """Options of group fairness. With both penalties 0, training is plain, but fairness is still measured.

    >>> from metarl.fewshot.objectives.fairness import FairnessConfig
    >>> FairnessConfig(criterion="equal-opportunity").penalty_outside
    10.0
    """

    criterion: Criterion = "demographic-parity"
    """Criterion that the penalties enforce; the metrics report all three."""
    surrogate: Surrogate = "difference"
    """Differentiable surrogate of the criterion: difference of mean probabilities, or covariance with the log-odds."""
    penalty_inside: float = 1.0
    """Weight of the penalty on the support set, in learners that adapt by gradients."""
    penalty_outside: float = 10.0
    """Weight of the penalty on the queries of training episodes."""
    favourable_label: int = 1
    """Label of the favourable class. A table whose favourable class is named has it as label 1."""
    num_groups: int = 2
    """Number of groups in the data."""
    former: ClassVar[Mapping[str, str]] = {"favourable": "favourable_label"}

    def __post_init__(self) -> None:
        check_count("num_groups", self.num_groups)
        if self.num_groups < 2:
            raise UsageError("num_groups must be at least 2: one group cannot be treated unlike another")
        for name in ("penalty_inside", "penalty_outside"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must be at least 0, got {getattr(self, name)}")


class Fairness(Objective):
    """Cross-entropy plus a penalty on unequal treatment of groups; needs data with groups.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.objectives.fairness import Fairness, FairnessConfig
    >>> data = open_data("biased")
    >>> objective = Fairness(FairnessConfig(), data.spec(data.default_shape()))
    >>> objective.check(data.episodes("train", 1, data.default_shape(), seed=0))
    {'empty_groups': 0.0}
    """

    config_class = FairnessConfig
    config: FairnessConfig

    def __init__(self, config: FairnessConfig, spec: TaskSpec):
        super().__init__(config, spec)
        if spec.kind != "classification":
            raise UsageError("the fairness objective is for classification: regression has no favourable class")
        if not 0 <= config.favourable_label < spec.shape.ways:
            raise UsageError(
                f"favourable_label must be a label from 0 to {spec.shape.ways - 1}, got {config.favourable_label}"
            )

    @classmethod
    def check_data(cls, config: ObjectiveConfig, facts: Mapping[str, Any], group_names: Sequence[str]) -> None:
        assert isinstance(config, FairnessConfig)
        favourable = facts.get("favourable")
        if "group" in facts and config.favourable_label != 1:  # the class has a name
            raise UsageError(
                f"the favourable class of the data is {favourable!r}, which is label 1: leave favourable_label out, or "
                f"name another class under --favourable"
            )
        if group_names and len(group_names) != config.num_groups:
            names = ", ".join(group_names[:8])
            fewest = "" if len(group_names) > 1 else ", and fairness is between two or more"
            raise UsageError(
                f"the data have {len(group_names)} groups, {names}: num_groups must be {len(group_names)}, got "
                f"{config.num_groups}{fewest}"
            )

    def check(self, episodes: Episodes) -> dict[str, float]:
        """Raises `UsageError` without usable groups; returns `empty_groups`, the mean number of empty groups."""
        sets = (episodes.support, episodes.query)
        empty = [(group_counts(self._groups(samples), self.config.num_groups) == 0).sum(1) for samples in sets]
        return {"empty_groups": float(torch.cat(empty).float().mean())}

    def support_loss(self, outputs: Float[Tensor, "E n O"], support: Samples) -> Float[Tensor, "E"]:
        loss = super().support_loss(outputs, support)
        if self.config.penalty_inside == 0:
            return loss
        return loss + self.config.penalty_inside * self.penalty(outputs, support)

    def query_loss(
        self, predictor: Predictor, query: Samples, generator: torch.Generator
    ) -> tuple[Float[Tensor, "E"], Float[Tensor, "E n O"]]:
        losses, outputs = super().query_loss(predictor, query, generator)
        if self.config.penalty_outside == 0:
            return losses, outputs
        return losses + self.config.penalty_outside * self.penalty(outputs, query), outputs

    def penalty(self, outputs: Float[Tensor, "E n O"], samples: Samples) -> Float[Tensor, "E"]:
        """The penalty of each task, averaged over the criterion's conditions; 0 without two groups to compare."""
        groups, favourable = self._groups(samples), self.config.favourable_label
        is_favourable = samples.y == favourable
        conditions = {
            "demographic-parity": [torch.ones_like(is_favourable)],
            "equal-opportunity": [is_favourable],
            "equalised-odds": [is_favourable, ~is_favourable],
        }[self.config.criterion]
        if self.config.surrogate == "difference":
            values, measure = outputs.softmax(-1)[..., favourable], squared_difference
        else:
            values, measure = log_odds(outputs, favourable), squared_covariance
        terms = [measure(values, groups, where, self.config.num_groups) for where in conditions]
        return torch.stack(terms).mean(0)

    def measure(
        self, predictor: Predictor, query: Samples, outputs: Float[Tensor, "E n O"], generator: torch.Generator
    ) -> dict[str, Float[Tensor, "E"]]:
        groups = self._groups(query)
        favourable = self.config.favourable_label
        predicted = outputs.argmax(-1)
        metrics = fairness_metrics(
            predicted == favourable, query.y == favourable, predicted == query.y, groups, self.config.num_groups
        )
        empty = (group_counts(groups, self.config.num_groups) == 0).sum(1).float()
        return metrics | {"empty_groups": empty}

    def compared(self, query: Samples) -> Mapping[str, Sequence[Bool[Tensor, "E n"]]]:
        groups, favourable = self._groups(query), query.y == self.config.favourable_label
        everyone = [groups == group for group in range(self.config.num_groups)]
        deserved, others = ([group & where for group in everyone] for where in (favourable, ~favourable))
        return {
            **dict.fromkeys(("parity_gap", "disparate_impact", "worst_group_accuracy"), everyone),
            "equal_opportunity_gap": deserved,
            "equalised_odds_gap": [*deserved, *others],
        }

    def _groups(self, samples: Samples) -> Int[Tensor, "E n"]:
        if samples.groups is None:
            raise UsageError("the fairness objective needs the group of each example, and here there are none")
        lowest, highest = int(samples.groups.min()), int(samples.groups.max())
        if lowest < 0 or highest >= self.config.num_groups:
            wrong = lowest if lowest < 0 else highest
            raise UsageError(
                f"the data have a group {wrong}: num_groups is {self.config.num_groups}, groups count from 0"
            )
        return samples.groups


def fairness_metrics(
    decisions: Bool[Tensor, "E n"],
    labels: Bool[Tensor, "E n"],
    right: Bool[Tensor, "E n"],
    groups: Int[Tensor, "E n"],
    num_groups: int,
) -> dict[str, Float[Tensor, "E"]]:
    """Gaps between the best and the worst treated group; NaN if a group has no examples for a metric.

    `decisions` are ŷ = f, `labels` y = f, `right` ŷ = y. `parity_gap`, `equal_opportunity_gap` and `equalised_odds_gap`
    (the larger of two) are the largest minus the smallest rate, 0 at parity. `disparate_impact` is the smallest over
    the largest rate of favourable decisions, 1 at parity, NaN if there are none. `worst_group_accuracy` is the accuracy
    in the worst group. With few examples, gaps are above 0 by chance: compare only equal numbers of queries.
    """

    def rates(values: Bool[Tensor, "E n"], where: Bool[Tensor, "E n"]) -> Float[Tensor, "E G"]:
        sums, counts = group_sums(values.float(), groups, where, num_groups)
        return sums / counts  # 0 / 0 is NaN, and amin and amax pass it on

    def gap(of: Float[Tensor, "E G"]) -> Float[Tensor, "E"]:
        return of.amax(1) - of.amin(1)

    everyone = torch.ones_like(labels)
    favoured = rates(decisions, everyone)
    true_positive, false_positive = gap(rates(decisions, labels)), gap(rates(decisions, ~labels))
    return {
        "parity_gap": gap(favoured),
        "disparate_impact": favoured.amin(1) / favoured.amax(1),
        "equal_opportunity_gap": true_positive,
        "equalised_odds_gap": torch.maximum(true_positive, false_positive),
        "worst_group_accuracy": rates(right, everyone).amin(1),
    }


def squared_difference(
    values: Float[Tensor, "E n"], groups: Int[Tensor, "E n"], where: Bool[Tensor, "E n"], num_groups: int
) -> Float[Tensor, "E"]:
    """(m_a − m_b)² of the group means over the examples `where`, averaged over pairs of groups with examples."""
    sums, counts = group_sums(values, groups, where, num_groups)
    means = sums / counts.clamp(min=1)
    present = counts > 0
    pairs = (present[:, :, None] & present[:, None, :]).triu(1)
    squares = (means[:, :, None] - means[:, None, :]).square() * pairs
    return squares.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def squared_covariance(
    values: Float[Tensor, "E n"], groups: Int[Tensor, "E n"], where: Bool[Tensor, "E n"], num_groups: int
) -> Float[Tensor, "E"]:
    """½ Σ_a cov(1[group = a], value)² over the examples `where`; with two groups, the squared covariance itself.

    cov(1[a], v) = (share of a) · (mean of v in a − mean of v), so a group without examples adds nothing.
    """
    sums, counts = group_sums(values, groups, where, num_groups)
    total = counts.sum(1, keepdim=True).clamp(min=1)
    covariances = sums / total - counts / total * sums.sum(1, keepdim=True) / total
    return covariances.square().sum(1) / 2


def log_odds(outputs: Float[Tensor, "E n O"], favourable: int) -> Float[Tensor, "E n"]:
    """log p(f) − log(1 − p(f)): the signed distance to the decision boundary, which probabilities squash."""
    others = torch.cat([outputs[..., :favourable], outputs[..., favourable + 1 :]], -1)
    return outputs[..., favourable] - others.logsumexp(-1)


def group_sums(
    values: Float[Tensor, "E n"], groups: Int[Tensor, "E n"], where: Bool[Tensor, "E n"], num_groups: int
) -> tuple[Float[Tensor, "E G"], Float[Tensor, "E G"]]:
    """The sum of `values` and the number of examples in each group, among the examples `where`."""
    members = F.one_hot(groups, num_groups).to(values.dtype) * where[..., None]
    return (values[..., None] * members).sum(1), members.sum(1)


def group_counts(groups: Int[Tensor, "E n"], num_groups: int) -> Int[Tensor, "E G"]:
    """The number of examples of each group."""
    return F.one_hot(groups, num_groups).sum(1)
