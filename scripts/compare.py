"""`metarl compare`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.errors import UsageError
from metarl.experiment.comparison import Comparison, Contender, Source
from metarl.experiment.files import check_writable, write_atomically
from metarl.experiment.report import RunRecord, kinds_by_place
from metarl.experiment.report_tables import Table, escape_markdown
from metarl.parsing import printable
from metarl.scripts.arguments import parse
from metarl.scripts.evaluate import print_table
from metarl.scripts.report import shown
from metarl.statistics import Interval

HEADERS = {
    "name": "",
    "runs": "runs",
    "episodes": "episodes used",
    "mean": "mean",
    "iqm": "IQM",
    "median": "median",
    "optimality_gap": "optimality gap",
    "area_under_curve": "mean over adaptation",
    "episodes_to_threshold": "episodes to threshold",
    "reached": "reached it",
    "probability_of_improvement": "P(better than the first)",
    "difference": "difference to the first",
}
"""Column of a table by the statistic that it shows."""


@dataclass
class Arguments:
    """Compares agents by their evaluations on the same tasks: statistics with 95 % intervals over runs and tasks.

    Runs that differ only in their seeds are one agent. The first agent is the one that the others are compared with.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]RUN_OR_JSON ...")]
    """Run folders that have been evaluated, or files of `metarl evaluate --json`. All with the same NAME are one agent;
    a file without one is an agent by itself."""
    metric: Annotated[Literal["return", "success"] | None, tyro.conf.arg(metavar="{return,success}")] = None
    """What to compare: success if all have it, else the return, if not given."""
    episodes: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Compare after K episodes of adaptation; after the last of each agent if not given."""
    target: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """The score that the optimality gap is measured from: 1 for success if not given."""
    threshold: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """Also count the episodes of adaptation until this score is reached."""
    format: Literal["text", "markdown", "latex"] = "text"
    """How to print the table."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write all statistics, and performance profiles, to this file."""


def main(arguments: Sequence[str]) -> None:
    parsed = parse(Arguments, arguments, "metarl compare")
    if parsed.json is not None:
        check_writable(parsed.json)
    comparison = Comparison(
        find_contenders(parsed.runs),
        metric=parsed.metric,
        episodes=parsed.episodes,
        target=parsed.target,
        threshold=parsed.threshold,
    )
    rows = comparison.rows()
    table, lines = statistics_table(rows), notes(rows) + comparison.remarks
    if parsed.json is not None:
        write_atomically(parsed.json, comparison.to_json())
    if parsed.format == "text":
        print_table(comparison.title, shown(table), "\n".join(lines))
    elif parsed.format == "markdown":
        said = [escape_markdown(line) for line in lines]
        print(f"{escape_markdown(comparison.title)}\n\n{table.markdown()}" + "\n".join(said))
    else:
        title, *said = (f"% {printable(text)}" for text in (comparison.title, *lines))
        print(f"{title}\n{table.tabular()}" + "\n".join(said))


def find_contenders(named: Sequence[str]) -> list[Contender]:
    """The agents that `[NAME=]RUN_OR_JSON ...` stand for, in order of appearance; runs are sorted by their seeds."""
    found: dict[str, list[Source]] = {}
    unnamed: list[RunRecord] = []
    seen: set[Path] = set()
    for text in named:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = "", text
        place = Path(path)
        file = (place / "evaluation.json" if place.is_dir() else place).resolve()
        if file in seen:
            raise UsageError(f"{place} is named twice: a run counts once")
        seen.add(file)
        if place.is_dir():
            record = RunRecord.open(place)
            if not name:
                unnamed.append(record)
                found |= {str(place): []}  # keeps its place
                continue
            found.setdefault(name, []).append(_source(record))
        else:
            found.setdefault(name or place.stem, []).append(Source.read(place))
    for name, records in _kinds(unnamed).items():
        if name in found:
            raise UsageError(f"{name} is what runs without a name are called too: give all of them names")
        first, *others = [str(record.path) for record in records]
        found = {name if key == first else key: value for key, value in found.items() if key not in others}
        found[name] = [*found[name], *map(_source, records)]
    return [
        Contender(name, tuple(sorted(sources, key=lambda source: (source.seed is None, source.seed or 0))))
        for name, sources in found.items()
    ]


def statistics_table(rows: Sequence[dict[str, Any]]) -> Table:
    """A row for each agent, a column for each statistic that one of them has."""
    names = [name for name in HEADERS if any(name in row for row in rows)]
    return Table([HEADERS[name] for name in names], [[_cell(row.get(name)) for name in names] for row in rows])


def notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What readers of the table have to know, in lines."""
    spread = {row["name"]: row["mean"] for row in rows}
    found = [f"{name}: {'' if one.low is None else '95 % interval '}{one.over}" for name, one in spread.items()]
    pairs = [f"{row['name']} is compared with {rows[0]['name']} on the same {row['paired']}" for row in rows[1:]]
    if len({row["episodes"] for row in rows}) > 1:
        pairs.append("the agents were given different numbers of episodes: --episodes K compares them after the same")
    return found + pairs


def _kinds(records: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs that differ only in their seeds, by the name of their kind."""
    places = kinds_by_place(records)
    return {
        kind.label if len(places) == 1 else f"{kind.label} ({place})": kind.runs
        for place, kinds in places.items()
        for kind in kinds
    }


def _source(record: RunRecord) -> Source:
    if not record.of_agent:
        raise UsageError(f"{record.path} is a few-shot run: metarl report compares those")
    file = record.path / "evaluation.json"
    if not file.exists():
        raise UsageError(f"{record.path} has not been evaluated: metarl evaluate {record.path}")
    return Source.read(file, record.entries, record.remarks)


def _cell(value: Any) -> str:
    if isinstance(value, Interval):
        spread = "" if value.low is None or value.high is None else f" [{value.low:.3g}, {value.high:.3g}]"
        return f"{value.value:.3g}{spread}"
    if isinstance(value, float):
        return "never" if math.isinf(value) else f"{value:.3g}"
    return "–" if value is None else str(value)
