"""The predictions of a learner for many episodes, kept for figures: scores, truth, groups and classes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.faults import check_finite
from metarl.fewshot.data import DataSet
from metarl.fewshot.episodes import Episodes, EpisodeShape, Members
from metarl.fewshot.learner import Learner
from metarl.randomness import derive_seed
from metarl.tasks import check_count

BATCH = 10
"""Test episodes at a time."""


@dataclass(frozen=True)
class Predictions:
    """The predictions for the queries of E episodes of N classes, on the CPU.

    If every episode has all classes of the data, their columns are in the order of the classes, and so is `y`: a label
    then means the same in every episode. If not, the labels of each episode are its own.

    >>> from metarl.fewshot.predictions import Predictions
    >>> found = Predictions(torch.tensor([[[0.0, 2.0], [1.0, 0.0]]]), torch.tensor([[1, 0]]))
    >>> found.chosen.tolist(), found.fixed
    ([[1, 0]], False)
    """

    scores: Float[Tensor, "E Q N"]
    """Their softmax are the probabilities."""
    y: Int[Tensor, "E Q"]
    groups: Int[Tensor, "E Q"] | None = None
    members: Members | None = None
    """The units of the pool that the examples come from, for intervals."""
    names: tuple[str, ...] | None = None
    """The classes of the data by their place in `Members.query_classes`; None if they have no names."""
    fixed: bool = False
    """Whether a label means the same in every episode."""
    favourable: int | None = None
    """The label of the favourable class."""
    group_names: tuple[str, ...] = ()

    @property
    def probabilities(self) -> Float[Tensor, "E Q N"]:
        return self.scores.double().softmax(-1)

    @property
    def chosen(self) -> Int[Tensor, "E Q"]:
        """The predicted labels."""
        return self.scores.argmax(-1)


@torch.no_grad()
def collect_predictions(
    learner: Learner,
    data: DataSet,
    *,
    episodes: int,
    shape: EpisodeShape | None = None,
    split: str = "test",
    seed: int = 0,
    favourable: int | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Predictions:
    """The predictions for `episodes` episodes of `split`, the same ones that `evaluate` tests with this seed.

    `favourable` is the label of the favourable class, if the labels of all episodes have one. Raises `UsageError` for
    regression.
    """
    check_count("episodes", episodes)
    if learner.spec.kind != "classification":
        raise UsageError("figures are for classification: a regression has its squared error")
    shape, parts, scores = shape or learner.spec.shape, list[Episodes](), list[Tensor]()
    for start in range(0, episodes, BATCH):
        batch = data.episodes(split, min(BATCH, episodes - start), shape, seed=derive_seed("evaluate", seed, start))
        moved = batch.to(learner.device)
        outputs = learner.adapt(moved.support)(moved.query.x)
        check_finite("a prediction", outputs)
        scores.append(outputs.cpu())
        parts.append(batch)
        report(start + len(batch))
    groups = [part.query.groups for part in parts if part.query.groups is not None]
    members = [part.members for part in parts if part.members is not None]
    names = data.class_names(split)
    found = Predictions(
        torch.cat(scores),
        torch.cat([part.query.y for part in parts]),
        torch.cat(groups) if groups else None,
        Members.joined(members) if members else None,
        None if names is None else tuple(names),
        favourable=favourable,
        group_names=tuple(data.group_names()),
    )
    return _in_the_order_of_classes(found, torch.cat([part.support.y for part in parts]))


def _in_the_order_of_classes(found: Predictions, support_y: Int[Tensor, "E S"]) -> Predictions:
    """Gives every class the same label in all episodes, if each episode has all classes."""
    ways = found.scores.shape[-1]
    if found.members is None or found.names is None or len(found.names) != ways:
        return found
    class_of = torch.zeros(len(support_y), ways, dtype=torch.int64)
    class_of.scatter_(1, support_y, found.members.support_classes)
    if not torch.equal(class_of.sort(1).values, torch.arange(ways).expand_as(class_of)):
        return found
    scores = found.scores.gather(2, class_of.argsort(1)[:, None].expand_as(found.scores))
    favourable = found.favourable
    if favourable is not None:
        same = class_of[:, favourable].unique()
        favourable = int(same[0]) if len(same) == 1 else None
    return Predictions(
        scores,
        class_of.gather(1, found.y),
        found.groups,
        found.members,
        found.names,
        True,
        favourable,
        found.group_names,
    )
