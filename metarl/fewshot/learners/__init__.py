"""Learners by id. Each module has a `Learner` and its options, and is imported on first use."""

from metarl.fewshot.learner import Learner
from metarl.registry import find_class


def learner_class(learner: str | type[Learner]) -> type[Learner]:
    """The learner class that an id, or MODULE:NAME, names, or a class itself; raises `UsageError` if there is none."""
    return find_class("learner", learner, Learner)  # type: ignore[type-abstract]
