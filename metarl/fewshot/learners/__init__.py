"""Learners by id. Each module has a `Learner` and its options, and is imported on first use."""

from metarl.fewshot.learner import Learner
from metarl.registry import find_class


def learner_class(id: str) -> type[Learner]:
    """The learner class that `id`, or MODULE:NAME, names; raises `UsageError` if there is none."""
    return find_class("learner", id, Learner)  # type: ignore[type-abstract]
