"""Learners by id. Each is a `Learner` with its options beside it; the module is imported when it is asked for."""

from metarl.fewshot.learner import Learner
from metarl.registry import find_class


def learner_class(id: str) -> type[Learner]:
    """The class of the learner that `id`, or MODULE:NAME, stands for; raises `UsageError` if there is none."""
    return find_class("learner", id, Learner)  # type: ignore[type-abstract]
