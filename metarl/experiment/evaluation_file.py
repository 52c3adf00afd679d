"""evaluation.json of an agent: how it is written, and what it has to hold for a report, since anyone may write one."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from metarl.errors import UsageError
from metarl.evaluation import Evaluation
from metarl.parsing import is_count, is_number, printable


def agent_evaluation_text(evaluation: Evaluation, *, iteration: int, unlike_training: Sequence[str]) -> str:
    """The JSON text of an evaluation with the iteration whose checkpoint was measured, and what was measured unlike the
    training, in words: a run folder keeps its last evaluation, and its figures mean nothing without these.

    >>> from metarl.experiment.evaluation_file import agent_evaluation_text
    >>> tasks = metarl.make("PointNavigation-v0").sample(2, seed=0)
    >>> evaluation = metarl.Evaluation(torch.zeros(2, 1), None, [0], tasks)
    >>> text = agent_evaluation_text(evaluation, iteration=7, unlike_training=["horizon 10 instead of 100"])
    >>> '"iteration": 7' in text
    True
    """
    told = {"iteration": iteration, "unlike_training": list(unlike_training)}
    return json.dumps(json.loads(evaluation.to_json()) | told, indent=2)


def check_agent_evaluation(evaluation: Any, what: str) -> None:
    """Raises `UsageError`, naming the file as `what`, unless each stage of the summary has its numbers."""
    rows = _mapping(evaluation, what).get("summary")
    if not isinstance(rows, list) or not rows:
        raise UsageError(f"{what} is damaged: it has no summary")
    # Both are missing in files of earlier versions and in what Evaluation.to_json writes.
    iteration, unlike = evaluation.get("iteration", 0), evaluation.get("unlike_training", [])
    if not is_count(iteration):
        raise UsageError(f"{what} is damaged: iteration is {_shown(iteration)}")
    if not isinstance(unlike, list) or not all(isinstance(difference, str) for difference in unlike):
        raise UsageError(f"{what} is damaged: unlike_training is {_shown(unlike)}")
    for row in rows:
        if not is_count(_mapping(row, what).get("episodes_used")):
            raise UsageError(f"{what} is damaged: episodes_used is {_shown(row.get('episodes_used'))}")
        for name in ("return", *(("success",) if "success_mean" in row else ())):
            _check(row, f"{name}_mean", what, unknown=False)
            for end in ("low", "high"):
                _check(row, f"{name}_{end}", what)
            if (row[f"{name}_low"] is None) != (row[f"{name}_high"] is None):
                raise UsageError(f"{what} is damaged: {name} has one end of an interval")


def check_learner_evaluation(evaluation: Any, what: str) -> None:
    """Raises `UsageError`, naming the file as `what`, unless the score and the objective's metrics are numbers."""
    found = _mapping(evaluation, what)
    for name in ("accuracy" if "accuracy" in found else "mse", "ci95"):
        _check(found, name, what)
    for metric in _mapping(found.get("metrics", {}), what).values():
        for name in ("mean", "ci95"):
            _check(_mapping(metric, what), name, what)


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{what} is damaged: {_shown(value)} stands in the place of named values")
    return value


def _check(row: Mapping[str, Any], name: str, what: str, unknown: bool = True) -> None:
    """Raises `UsageError` unless `row` has a number of this name, or None if it may be `unknown`."""
    if name not in row or not (is_number(row[name]) or (unknown and row[name] is None)):
        raise UsageError(f"{what} is damaged: {name} is {_shown(row.get(name))}, which is no number")


def _shown(value: Any) -> str:
    return printable(repr(value), 60)
