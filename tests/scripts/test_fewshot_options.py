"""Learners, data sets and objectives share one command line."""

import itertools
from dataclasses import dataclass

import pytest

from metarl import UsageError, list_data, list_learners, list_objectives
from metarl.fewshot import LearnerConfig
from metarl.fewshot.data import data_class
from metarl.fewshot.learners import learner_class
from metarl.fewshot.objectives import objective_class
from metarl.fewshot.objectives.plain import ObjectiveConfig
from metarl.scripts.fewshot import _check_distinct


def test_every_learner_combines_with_every_data_set_and_objective_on_the_command_line() -> None:
    """No two of them have an option of one name."""
    for learner, data, objective in itertools.product(list_learners(), list_data(), list_objectives()):
        classes = learner_class(learner), data_class(data), objective_class(objective)
        _check_distinct([cls.config_class for cls in classes])


def test_two_options_of_one_name_are_refused() -> None:
    @dataclass(frozen=True)
    class Own(ObjectiveConfig):
        csv: int = 0

    with pytest.raises(UsageError, match="CsvConfig and Own both have the option csv: rename one"):
        _check_distinct([LearnerConfig, data_class("csv").config_class, Own])
