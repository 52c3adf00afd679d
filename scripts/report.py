"""`metarl report`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from metarl.errors import UsageError
from metarl.experiment.files import write_atomically
from metarl.experiment.plots import save_figure
from metarl.experiment.report import Kind, RunRecord, draw_curves, header, kinds_by_place
from metarl.scripts.arguments import parse
from metarl.scripts.evaluate import print_table


@dataclass
class Arguments:
    """Compares runs of agents and few-shot learners: a table and a plot for each environment or data set.

    Runs that differ only in their seeds become one row and one curve: the mean, with the range from the lowest to the
    highest. Prints the tables, and writes report.md with tables and plots.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Run folders."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("report")
    """Folder to write to. An existing report is replaced."""


def main(arguments: Sequence[str]) -> None:
    parsed = parse(Arguments, arguments, "metarl report")
    if not parsed.runs:
        raise UsageError("name the run folders, such as: metarl report runs/*")
    parts = ["# Report\n"]
    for place, kinds in kinds_by_place([RunRecord.open(path) for path in parsed.runs]).items():
        picture = f"{place.replace('/', '-')}.png"
        try:
            save_figure(draw_curves(place, kinds), parsed.output / picture)
        except OSError as error:
            raise UsageError(f"cannot write {error.filename}: {error.strerror}") from None
        print_table(place, _table(kinds))
        rows = [header(kinds[0]), *(kind.row() for kind in kinds)]
        parts += [f"## {place}\n", f"![{place}]({picture})\n", markdown(rows)]
    write_atomically(parsed.output / "report.md", "\n".join(parts))
    print(parsed.output / "report.md")


def _table(kinds: Sequence[Kind]) -> Table:
    table = Table()
    for number, name in enumerate(header(kinds[0])):
        table.add_column(name, justify="right" if 0 < number < 4 else "left")
    for kind in kinds:
        table.add_row(*kind.row())
    return table


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, of which the first row is the header."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
