"""`metarl envs`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gymnasium.spaces import Discrete
from rich.table import Table

from metarl.actions import ActionFormat
from metarl.distribution import TaskDistribution
from metarl.registry import list_distributions, make
from metarl.scripts.arguments import parse
from metarl.scripts.evaluate import print_table


@dataclass
class Arguments:
    """Lists the task distributions: id, spaces, horizon and backends, preferred first."""

    json: bool = False
    """Print a JSON list instead of a table."""


def main(arguments: Sequence[str]) -> None:
    parsed = parse(Arguments, arguments, "metarl envs")
    rows = [describe(make(id), id) for id in list_distributions()]
    if parsed.json:
        print(json.dumps(rows, indent=2))
        return
    table = Table()
    for column in ("id", "observation", "action", "horizon", "backends"):
        table.add_column(column, no_wrap=column == "id")
    for row in rows:
        actions = f"{row['num_actions']} actions" if row["num_actions"] else str(row["action_shape"])
        cells = [row["id"], str(row["observation_shape"]), actions, str(row["horizon"]), ", ".join(row["backends"])]
        table.add_row(*cells)
    print_table(f"{len(rows)} task distributions", table)


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
