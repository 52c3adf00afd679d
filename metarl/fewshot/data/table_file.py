"""Tables in files, as text: CSV with any delimiter, and Parquet. `metarl.fewshot.data.columns` says what it means."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from metarl.errors import UsageError
from metarl.importing import near_matches

DELIMITERS = (",", ";", "\t", "|")
"""Delimiters that are recognised."""
_SAMPLE = 50
"""Rows by which the delimiter is recognised."""
MOST_CELLS = 10**7
"""Cells that a Parquet file may have in any case; beyond them, as many as 8 a byte."""
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

    @property
    def names(self) -> list[str]:
        return self.frame.columns

    def __len__(self) -> int:
        return len(self.frame)

    def check_column(self, name: str) -> None:
        """Raises `UsageError` if there is no such column."""
        if name not in self.names:
            near = near_matches(name, self.names)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(self.names)}"
            raise UsageError(f"{self.path} has no column {name!r}; {hint}")

    def cells(self, name: str) -> pl.Series:
        """The cells of a column."""
        return self.frame[name]

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
    try:
        columns, rows = len(pl.read_parquet_schema(path)), pl.scan_parquet(path).select(pl.len()).collect().item()
        if columns * rows > max(MOST_CELLS, 8 * path.stat().st_size):
            raise UsageError(f"{path} claims {rows} rows of {columns} columns, too many for a file of its size")
        frame = pl.read_parquet(path)
        text = frame.select(pl.all().cast(pl.String).str.strip_chars().fill_null(""))
    except UsageError:
        raise
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise UsageError(f"{path} is no Parquet file of numbers and words: {_first_line(error)}") from None
    except pl.exceptions.PanicException as error:
        raise UsageError(f"{path} is no Parquet file: {_first_line(error)}") from None
    return TextTable(path, text, range(1, len(text) + 1))


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
    rows = _rows(path, source, delimiter or _recognise(path, source))
    _, names = next(rows, (0, []))
    if not names:
        raise UsageError(f"{path} has no rows: want a line of column names and a line for each example")
    names = [name.strip() or f"column {number}" for number, name in enumerate(names, 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{path} names two columns {twice[0]!r}")
    cells: list[str] = []  # one after another: a list for each row would keep Python's garbage collector busy
    lines = []
    for line, row in rows:
        if len(row) != len(names):
            raise UsageError(f"{path}, line {line}: {len(row)} cells, but {len(names)} columns are named")
        cells += row
        lines.append(line)
    columns = [pl.Series(name, cells[index :: len(names)], pl.String) for index, name in enumerate(names)]
    return TextTable(path, pl.DataFrame(columns).select(pl.all().str.strip_chars()), lines)


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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
