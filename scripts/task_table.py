"""The table of `metarl evaluate --per-task`: every task with its scores, the worst first, and which of them fail."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from metarl.distribution import TaskDistribution
from metarl.evaluation import Evaluation

WIDEST = 60
"""Characters of a task's parameters that are shown."""


def task_rows(result: Evaluation, family: TaskDistribution) -> list[dict[str, Any]]:
    """A row for each distinct task, the worst first: by success after the last stage, if there is one, then by return.

    Keys: `task` (parameters by name), `returns` and `success` (by stage; None if the family defines none) and `fails`,
    why the agent fails at this task, or None: success in less than half of the episodes after the last stage; without
    success, a return that adaptation has not raised, if there are several stages.
    """
    returns = result.pooled(result.returns)
    success = None if result.success is None else result.pooled(result.success)
    last = returns[:, -1]
    order = np.lexsort((last,) if success is None else (last, success[:, -1]))
    values = family.task_values(result.distinct())
    return [
        {
            "task": values[index],
            "returns": returns[index].tolist(),
            "success": None if success is None else success[index].tolist(),
            "fails": _failure(returns[index], None if success is None else success[index]),
        }
        for index in order
    ]


def task_table(rows: Sequence[dict[str, Any]], episodes_used: Sequence[int]) -> Table:
    """The rows as a table, with the first and the last stage."""
    table = Table()
    table.add_column("task")
    stages = [0, -1] if len(episodes_used) > 1 else [-1]
    scored = ["returns"] if rows[0]["success"] is None else ["returns", "success"]
    for name in scored:
        for stage in stages:
            shown, used = {"returns": "return"}.get(name, name), episodes_used[stage]
            table.add_column(f"{shown}, {used} episode{'s' * (used != 1)}", justify="right")
    table.add_column("")
    for row in rows:
        cells = [f"{row[name][stage]:.3g}" for name in scored for stage in stages]
        table.add_row(_shown(row["task"]), *cells, row["fails"] or "")
    return table


def failures(rows: Sequence[dict[str, Any]]) -> str:
    """How many tasks fail, in words."""
    failed = [row for row in rows if row["fails"]]
    return f"{len(failed)} of {len(rows)} tasks fail" + (f": {failed[0]['fails']}" if failed else "")


def _failure(returns: np.ndarray, success: np.ndarray | None) -> str | None:
    if success is not None:
        return "success below 0.5" if success[-1] < 0.5 else None
    return "adaptation did not help" if len(returns) > 1 and returns[-1] <= returns[0] else None


def _shown(task: dict[str, Any]) -> str:
    text = ", ".join(f"{name}={_rounded(value)}" for name, value in task.items())
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _rounded(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_rounded, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
