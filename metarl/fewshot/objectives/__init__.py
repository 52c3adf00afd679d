"""Objectives by id: what is asked of predictions besides being right. Imported when they are asked for."""

from metarl.fewshot.objectives.plain import Objective
from metarl.registry import find_class


def objective_class(id: str) -> type[Objective]:
    """The class of the objective that `id`, or MODULE:NAME, stands for; raises `UsageError` if there is none."""
    return find_class("objective", id, Objective)
