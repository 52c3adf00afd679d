"""Tables in files, as text: CSV with any delimiter, and Parquet. `metarl.fewshot.data.columns` says what it means."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from metarl.errors import UsageError
from metarl.fewshot.data import parquet_child
from metarl.fewshot.data.numerals import Notation, to_days, to_numbers
from metarl.importing import near_matches

DELIMITERS = (",", ";", "\t", "|")
"""Delimiters that are recognised."""
_SAMPLE = 50
"""Rows by which the delimiter is recognised."""
MOST_CELLS = 10**7
"""Cells that a Parquet file may have in any case; beyond them, as many as 8 a byte."""
PARQUET_MEMORY = 2**31
"""Bytes that reading a Parquet file may take in any case; beyond them, 50 times the size of the file."""
PARQUET_SECONDS = 120.0
"""Seconds after which reading a small Parquet file is given up."""
PARQUET_SPEED = 2.0e5
"""Bytes of a larger one for a second more."""
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are text without surrounding spaces; a missing value of a Parquet file is "".

    >>> from pathlib import Path
    >>> from metarl.fewshot.data.table_file import read_table
    >>> _ = Path("people.csv").write_text("age;city\\n31;Rome\\n")
    >>> read_table(Path("people.csv")).cells("city").to_list()
    ['Rome']
    """

    path: Path
    frame: pl.DataFrame
    """One column of strings for each name."""
    lines: range | list[int]
    """The line of the file on which each row ends; its number if the file has no lines."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Columns of a Parquet file whose cells are no text, such as lists: what they are, and what to do about it."""
    _values: dict[tuple[str, Notation | None], pl.Series] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def names(self) -> list[str]:
        return [*self.frame.columns, *self.unreadable]

    def __len__(self) -> int:
        return len(self.frame)

    def check_column(self, name: str) -> None:
        """Raises `UsageError` if there is no such column."""
        if name not in self.names:
            near = near_matches(name, self.names)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(self.names)}"
            raise UsageError(f"{self.path} has no column {name!r}; {hint}")

    def cells(self, name: str) -> pl.Series:
        """The cells of a column; raises `UsageError` if they are no single numbers, words or dates."""
        if name in self.unreadable:
            raise UsageError(
                f"{self.path}: column {name!r} holds {self.unreadable[name]}, or leave it out with --ignore {name}"
            )
        return self.frame[name]

    def values(self, name: str, notation: Notation | None) -> pl.Series:
        """The cells of a column as numbers, or as days if there is no notation; null for one that is neither.

        They are parsed once, though they are read twice: to find out what the column is, and as inputs.
        """
        if (name, notation) not in self._values:
            cells = self.cells(name)
            self._values[name, notation] = to_days(cells) if notation is None else to_numbers(cells, notation)
        return self._values[name, notation]

    def place(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.path}, line {self.lines[row]}"


def read_table(path: Path, *, delimiter: str | None = None, encoding: str = "utf-8") -> TextTable:
    """Reads a table; raises `UsageError` unless it has named columns and as many cells in every row.

    A name that ends in .parquet or .pq is a Parquet file, any other a CSV file (RFC 4180) whose first line names the
    columns. Without `delimiter`, it is the one of `DELIMITERS` that gives the most columns.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    table = _read_parquet(path) if path.suffix.lower() in _PARQUET else _read_csv(path, delimiter, encoding)
    if not len(table):
        raise UsageError(f"{path} has no rows: want a line of column names and a line for each example")
    return table


def _read_parquet(path: Path) -> TextTable:
    """Reads in a process of its own, because a damaged file makes polars end the process, or wait forever."""
    size = path.stat().st_size
    memory = PARQUET_MEMORY + 50 * size
    bounds = [str(max(MOST_CELLS, 8 * size)), str(memory)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "POLARS_MAX_THREADS": "2"}
    try:
        done = subprocess.run(
            [sys.executable, parquet_child.__file__, str(path), *bounds],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PARQUET_SECONDS + size / PARQUET_SPEED,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"{path} is no Parquet file, or is damaged: reading it does not end") from None
    if done.returncode == parquet_child.REFUSED:
        raise UsageError(f"{path} {done.stderr.decode(errors='replace').splitlines()[-1]}")
    if done.returncode != 0:
        raise UsageError(f"{path} is no Parquet file, is damaged, or takes more than {memory / 2**30:.0f} GiB")
    text = pl.read_ipc_stream(io.BytesIO(done.stdout))
    return TextTable(path, text, range(1, len(text) + 1), json.loads(done.stderr.splitlines()[-1]))


def _read_csv(path: Path, delimiter: str | None, encoding: str) -> TextTable:
    try:
        text = path.read_bytes().decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError:
        raise UsageError(
            f"{path} is no CSV file in {encoding.upper()}; name its encoding with --encoding, such as cp1252"
        ) from None
    except LookupError:
        raise UsageError(f"there is no encoding {encoding!r}; utf-8, cp1252 and latin-1 are in common use") from None
    if "\0" in text:
        raise UsageError(f"{path} is no CSV file: it is not text")
    source = io.StringIO(text, newline="")
    delimiter = delimiter or _recognise(path, source)
    rows = _rows(path, source, delimiter)
    _, names = next(rows, (0, []))
    if not names:
        raise UsageError(f"{path} has no rows: want a line of column names and a line for each example")
    names = [name.strip() or f"column {number}" for number, name in enumerate(names, 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{path} names two columns {twice[0]!r}")
    plain = _split(text, names, delimiter)
    if plain is not None:
        return TextTable(path, *plain)
    cells: list[str] = []  # one after another: a list for each row would keep Python's garbage collector busy
    lines = []
    for line, row in rows:
        if len(row) != len(names):
            raise UsageError(f"{path}, line {line}: {len(row)} cells, but {len(names)} columns are named")
        cells += row
        lines.append(line)
    columns = [pl.Series(name, cells[index :: len(names)], pl.String) for index, name in enumerate(names)]
    return TextTable(path, pl.DataFrame(columns).select(pl.all().str.strip_chars()), lines)


def _split(text: str, names: list[str], delimiter: str) -> tuple[pl.DataFrame, list[int]] | None:
    """Cells and line numbers of a text without quotation marks, several times as fast as the general way.

    None if it has some, or rows of other sizes, about which the general way complains.
    """
    text = text.replace("\r\n", "\n")
    if '"' in text or "\r" in text:
        return None
    lines = pl.Series([text]).str.split("\n").explode()
    given = lines != ""
    rows = lines.filter(given)[1:]  # the first names the columns
    if not len(rows) or (rows.str.count_matches(delimiter, literal=True) != len(names) - 1).any():
        return None
    cells = rows.str.split_exact(delimiter, len(names) - 1).struct.unnest()
    cells.columns = names
    return cells.select(pl.all().str.strip_chars()), (given.arg_true() + 1)[1:].to_list()


def _rows(path: Path, source: io.StringIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, with the lines they end on."""
    source.seek(0)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise UsageError(f"{path} is no CSV file: {error}") from None


def _recognise(path: Path, source: io.StringIO) -> str:
    """The delimiter that splits the first rows into several columns, if possible as many in each, if possible many."""
    found = {}
    for delimiter in DELIMITERS:
        try:
            sizes = [len(row) for (_, row), _ in zip(_rows(path, source, delimiter), range(_SAMPLE), strict=False)]
        except UsageError:
            continue
        if sizes:
            found[delimiter] = (sizes[0] > 1, len(set(sizes)) == 1, sizes[0])
    return max(found, key=lambda delimiter: found[delimiter], default=",")
