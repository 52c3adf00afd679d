"""`metarl report`."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import rich.table
import tyro
from rich.markup import escape

from metarl.errors import UsageError
from metarl.experiment.files import write_atomically
from metarl.experiment.plots import save_figure
from metarl.experiment.report import RunRecord, draw_curves, kinds_by_place
from metarl.experiment.report_page import page
from metarl.experiment.report_sections import Section, section
from metarl.experiment.report_tables import Table, escape_markdown
from metarl.parsing import printable
from metarl.scripts.arguments import parse
from metarl.scripts.evaluate import print_table


@dataclass
class Arguments:
    """Compares runs of agents and few-shot learners, each environment or data set by itself.

    Runs that differ only in their seeds become one row and one curve: the mean, with the range from the lowest to the
    highest. Prints the tables and writes report.html, one page that needs no network: curves over steps and time,
    adaptation, heat maps of the tasks, paths, the films in the runs' videos/, and the settings that differ. report.md
    and report.tex have the tables for other documents, the first with a picture of the curves.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Run folders."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("report")
    """Folder to write to. An existing report is replaced."""


def main(arguments: Sequence[str]) -> None:
    parsed = parse(Arguments, arguments, "metarl report")
    if not parsed.runs:
        raise UsageError("name the run folders, such as: metarl report runs/*")
    once = {path.resolve(): path for path in reversed(parsed.runs)}  # however a folder is written
    places = kinds_by_place([RunRecord.open(path) for path in reversed(once.values())])
    sections = [section(place, kinds) for place, kinds in places.items()]
    pictures = _pictures(sections)
    pages = {
        "report.html": page(sections, parsed.output),
        "report.md": "\n".join(["# Report\n", *map(_markdown, sections, pictures)]),
        "report.tex": "% Wants \\usepackage{booktabs}\n" + "\n".join(map(_latex, sections)),
    }
    try:
        for part, picture in zip(sections, pictures, strict=True):
            save_figure(draw_curves(part.place, part.kinds), parsed.output / picture)
        for name, text in pages.items():
            write_atomically(parsed.output / name, text)
    except OSError as error:
        raise UsageError(f"cannot write {error.filename}: {error.strerror}") from None
    for part in sections:
        print_table(part.place, shown(part.results), "\n".join(part.remarks) or None)
    print(parsed.output / "report.html")


def _pictures(sections: Sequence[Section]) -> list[str]:
    """A file's name for the curves of each section."""
    names: list[str] = []
    for part in sections:
        stem = re.sub(r"[^\w.-]+", "-", part.place)[:100].lstrip(".")
        choices = (f"{stem}.png" if number == 1 else f"{stem}-{number}.png" for number in itertools.count(1))
        names.append(next(name for name in choices if name not in names))
    return names


def shown(results: Table) -> rich.table.Table:
    """The table for a terminal."""
    table = rich.table.Table()
    for name, numeric in zip(results.header, results.numeric, strict=True):
        table.add_column(name, justify="right" if numeric else "left")
    for row in results.rows:
        table.add_row(*map(escape, row))
    return table


def _markdown(part: Section, picture: str) -> str:
    place = escape_markdown(part.place)
    parts = [f"## {place}\n", f"![{place}]({picture})\n", part.results.markdown()]
    parts += [f"- {escape_markdown(remark)}" for remark in part.remarks] + [""] * bool(part.remarks)
    if part.settings is not None:
        parts += ["Settings that differ:\n", part.settings.markdown()]
    return "\n".join(parts)


def _latex(part: Section) -> str:
    tables = ["".join(f"% {printable(remark, 1000)}\n" for remark in part.remarks) + part.results.latex(part.place)]
    if part.settings is not None:
        tables.append(part.settings.latex(f"{part.place}: settings that differ"))
    return "\n".join(tables)
