"""Objectives by id: requirements on predictions besides accuracy. Each module is imported on first use."""

from metarl.fewshot.objectives.plain import Objective
from metarl.registry import find_class


def objective_class(id: str) -> type[Objective]:
    """The objective class that `id`, or MODULE:NAME, names; raises `UsageError` if there is none."""
    return find_class("objective", id, Objective)
