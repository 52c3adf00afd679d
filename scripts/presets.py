"""`metarl presets`."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.table import Table

from metarl.presets import Preset
from metarl.registry import agent_class, list_agents, presets_of
from metarl.scripts.arguments import parse
from metarl.scripts.evaluate import print_table


@dataclass
class Arguments:
    """Lists presets: settings for `metarl train AGENT --env ID --preset NAME`, with their source and what to expect."""

    agent: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="AGENT")] = None
    """The agent whose presets to list; all agents if none is given."""
    json: bool = False
    """Print a JSON list, with all options, instead of a table."""


def main(arguments: Sequence[str]) -> None:
    parsed = parse(Arguments, arguments, "metarl presets")
    if parsed.agent is not None:
        agent_class(parsed.agent)  # which says so if there is none of that name
    agents = list_agents() if parsed.agent is None else [parsed.agent]
    found = [(agent, preset) for agent in agents for preset in presets_of(agent)]
    if parsed.json:
        print(json.dumps([{"agent": agent} | _entries(preset) for agent, preset in found], indent=2))
        return
    table = Table()
    for column in ("agent", "env", "name", "source", "expected"):
        table.add_column(column, no_wrap=column in ("agent", "env", "name"))
    for agent, preset in found:
        table.add_row(agent, preset.env, preset.name, preset.source, preset.expected)
    print_table(f"{len(found)} presets", table)


def _entries(preset: Preset) -> dict[str, object]:
    return dataclasses.asdict(preset) | {"env_options": dict(preset.env_options)}
