"""Objectives by name: what is asked of predictions besides being right. The module is imported when it is asked for."""

from metarl.fewshot.names import import_named
from metarl.fewshot.objectives.plain import Objective

OBJECTIVES = {
    "plain": "metarl.fewshot.objectives.plain:Objective",
    "fairness": "metarl.fewshot.objectives.fairness:Fairness",
    "adversarial": "metarl.fewshot.objectives.robust:Adversarial",
}
"""Name → class of objective."""


def objective_class(name: str) -> type[Objective]:
    """The class of the objective called `name`; raises `UsageError` for an unknown one."""
    return import_named(OBJECTIVES, name, "objective")
