"""`metarl envs`."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Annotated, Any

import tyro
from gymnasium.spaces import Discrete
from rich.table import Table

from metarl.actions import ActionFormat
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.importing import near_matches
from metarl.registry import list_distributions, make
from metarl.scripts.arguments import parse
from metarl.scripts.evaluate import print_table

FOLDED = 20
"""Ids with the same beginning, up to the first hyphen, that are a line of their own, at most."""


@dataclass
class Arguments:
    """Lists the task distributions: id, spaces, horizon and backends, preferred first.

    Many of one name, such as the fifty ML1-..., are one line, unless a pattern asks for them.
    """

    pattern: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PATTERN")] = None
    """List each one whose id contains this, or matches it if it has *, ? or [...], in whatever case."""
    json: bool = False
    """Print a JSON list, with a line for each one, instead of a table."""


def main(arguments: Sequence[str]) -> None:
    parsed = parse(Arguments, arguments, "metarl envs")
    ids = list_distributions() if parsed.pattern is None else matching(parsed.pattern)
    if parsed.json:
        print(json.dumps([describe(make(id), id) for id in ids], indent=2))
        return
    shown = fold(ids) if parsed.pattern is None else {id: id for id in ids}
    rows = [describe(make(id), name) for name, id in shown.items()]
    table = Table()
    for column in ("id", "observation", "action", "horizon", "backends"):
        table.add_column(column, no_wrap=column == "id")
    for row in rows:
        actions = f"{row['num_actions']} actions" if row["num_actions"] else str(row["action_shape"])
        cells = [row["id"], str(row["observation_shape"]), actions, str(row["horizon"]), ", ".join(row["backends"])]
        table.add_row(*cells)
    folded = None if len(rows) == len(ids) else "metarl envs PATTERN lists each, as in: metarl envs ML1-door"
    print_table(f"{len(ids)} task distribution{'s' * (len(ids) != 1)}", table, folded)


def matching(pattern: str) -> list[str]:
    """The ids that contain `pattern` or match it; raises `UsageError` if there is none."""
    glob = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    ids = [id for id in list_distributions() if fnmatch(id.lower(), glob.lower())]
    if not ids:
        near = near_matches(pattern, list_distributions())
        hint = f"did you mean {' or '.join(near)}?" if near else "metarl envs lists all"
        raise UsageError(f"no task distribution has {pattern!r} in its id; {hint}")
    return ids


def fold(ids: Sequence[str]) -> dict[str, str]:
    """Name of a line → an id that stands for it: itself, or the first of many with the same beginning."""
    beginnings = Counter(id.split("-")[0] for id in ids)
    lines: dict[str, str] = {}
    for id in ids:
        beginning = id.split("-")[0]
        count = beginnings[beginning]
        lines.setdefault(f"{beginning}-... ({count})" if count > FOLDED else id, id)
    return lines


def describe(distribution: TaskDistribution, id: str) -> dict[str, Any]:
    """A registered distribution as values for JSON; `num_actions` is None unless the action space is Discrete."""
    action_space = distribution.action_space
    return {
        "id": id,
        "observation_shape": list(distribution.observation_space.shape),
        "action_shape": list(ActionFormat(action_space).shape),
        "num_actions": int(action_space.n) if isinstance(action_space, Discrete) else None,
        "horizon": distribution.horizon,
        "backends": list(distribution.backends),
    }
