"""`metarl report`."""

import html
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.markup import escape
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
    pictures: set[str] = set()
    for place, kinds in kinds_by_place([RunRecord.open(path) for path in parsed.runs]).items():
        picture = _picture_name(place, pictures)
        try:
            save_figure(draw_curves(place, kinds), parsed.output / picture)
        except OSError as error:
            raise UsageError(f"cannot write {error.filename}: {error.strerror}") from None
        print_table(place, _table(kinds))
        parts += [f"## {_escaped(place)}\n", f"![{_escaped(place)}]({picture})\n", _markdown(kinds)]
    try:
        write_atomically(parsed.output / "report.md", "\n".join(parts))
    except OSError as error:
        raise UsageError(f"cannot write {error.filename}: {error.strerror}") from None
    print(parsed.output / "report.md")


def _table(kinds: Sequence[Kind]) -> Table:
    table = Table()
    for number, name in enumerate(header(kinds[0])):
        table.add_column(name, justify="right" if 0 < number < 4 else "left")
    for kind in kinds:
        table.add_row(*map(escape, kind.row()))
    return table


def _markdown(kinds: Sequence[Kind]) -> str:
    rows = [header(kinds[0]), *(kind.row() for kind in kinds)]
    lines = [[_escaped(cell) for cell in row] for row in rows]
    lines.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _picture_name(place: str, taken: set[str]) -> str:
    """A file's name for the curves of `place` that is not in `taken`, to which it is added."""
    stem = re.sub(r"[^\w.-]+", "-", place)[:100].lstrip(".")
    names = (f"{stem}.png" if number == 1 else f"{stem}-{number}.png" for number in itertools.count(1))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def _escaped(text: str) -> str:
    """`text` as it is shown on the page, whatever marks of Markdown or HTML are in it."""
    return re.sub(r"([\\\\`*_{}\[\]#|])", r"\\\1", html.escape(text, quote=False))
