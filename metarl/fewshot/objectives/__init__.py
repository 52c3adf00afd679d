"""Objectives by id: requirements on predictions besides accuracy. Each module is imported on first use."""

from metarl.fewshot.objectives.plain import Objective
from metarl.registry import find_class


def objective_class(objective: str | type[Objective]) -> type[Objective]:
    """The objective class that an id, or MODULE:NAME, names, or a class itself; raises `UsageError` otherwise."""
    return find_class("objective", objective, Objective)
