"""What evaluation.json has to hold for a report, which anyone may have written."""

from collections.abc import Mapping
from typing import Any

from metarl.errors import UsageError
from metarl.parsing import is_count, is_number, printable


def check_agent_evaluation(evaluation: Any, what: str) -> None:
    """Raises `UsageError`, naming the file as `what`, unless each stage of the summary has its numbers."""
    rows = _mapping(evaluation, what).get("summary")
    if not isinstance(rows, list) or not rows:
        raise UsageError(f"{what} is damaged: it has no summary")
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
