"""Test tasks that were training tasks: an agent's score on them does not show how it adapts to unseen ones."""

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.tasks import SPLITS, Tasks


def check_unseen(trained_on: TaskDistribution, tasks: Tasks, family: TaskDistribution) -> None:
    """Raises `UsageError` if some of `tasks` of `family` are training tasks of `trained_on`, as `seen_tasks` says."""
    seen = seen_tasks(trained_on, tasks, family)
    if bool(seen.any()):
        raise UsageError(
            f"{int(seen.sum())} of {len(tasks)} test tasks of {family.id} are training tasks of the agent "
            f"({trained_on.id}): choose others, or say that it is meant (allow_training_tasks=True, "
            "--allow-training-tasks)"
        )


def seen_tasks(trained_on: TaskDistribution, tasks: Tasks, family: TaskDistribution | None = None) -> Bool[Tensor, "M"]:
    """Which of `tasks`, which are of `family` (default: `trained_on`), leak from the train split of `trained_on`.

    Tasks are the same if all their parameters are equal. Those that both families have in both splits, such as the two
    directions of a cheetah, are no leak. Families that do not list their tasks are not examined: to draw the same
    values twice is next to impossible if they are continuous, and belongs to the family if they are not.

    >>> from metarl.seen_tasks import seen_tasks
    >>> family = metarl.make("HalfCheetahDir-v0")
    >>> seen_tasks(family, family.all_tasks("train"))
    tensor([False, False])
    """
    seen = torch.zeros(len(tasks), dtype=torch.bool)
    if tasks.parameters.keys() != trained_on.task_space.keys():
        return seen
    train = _all_tasks(trained_on, "train")
    if train is None:
        return seen
    seen = _among(tasks, train)
    if bool(seen.any()):
        lists = [_all_tasks(trained_on, "test"), *(_all_tasks(family or trained_on, split) for split in SPLITS)]
        in_all = [_among(tasks, listed) for listed in lists if listed is not None]
        if len(in_all) == len(lists):
            seen &= ~torch.stack(in_all).all(0)
    return seen


def num_shared(family: TaskDistribution) -> int:
    """How many of the family's test tasks are training tasks too; 0 if it does not list them."""
    train, test = (_all_tasks(family, split) for split in SPLITS)
    return 0 if train is None or test is None else int(_among(test, train).sum())


def _all_tasks(family: TaskDistribution, split: str) -> Tasks | None:
    """None if the family does not list its tasks."""
    try:
        return family.all_tasks(split)
    except UsageError:
        return None


def _among(tasks: Tasks, others: Tasks) -> Bool[Tensor, "M"]:
    """Which of `tasks` are among `others`."""
    rows, known = _rows(tasks, list(others.parameters)), _rows(others, list(others.parameters))
    if rows.shape[1] != known.shape[1]:
        return torch.zeros(len(tasks), dtype=torch.bool)
    listed = set(map(tuple, known.tolist()))
    return torch.tensor([tuple(row) in listed for row in rows.tolist()])


def _rows(tasks: Tasks, names: list[str]) -> Float64[Tensor, "M K"]:
    """All parameters of a task in a row. Floats are rounded to 32 bits, which a task may have had on its way."""
    values = [tasks.parameters[name].cpu().reshape(len(tasks), -1) for name in names]
    return torch.cat([(value.float() if value.is_floating_point() else value).double() for value in values], dim=1)
