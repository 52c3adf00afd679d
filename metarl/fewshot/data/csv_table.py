"""A user's table: a CSV file with a header and one row per example.

One column is the label, and one may be the protected group, which is not a feature. The other columns are features:
numbers are standardised over the training rows, and words become one 0/1 feature each (one-hot).
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.data import DataConfig
from metarl.fewshot.data.tables import TEST_SHARE, Table, held_out_rows, split_pools, standardisation
from metarl.importing import near_matches
from metarl.randomness import make_generator

MAX_WORDS = 100
"""Most different words in a column: more are names or identifiers, which do not generalise to other rows."""
MIN_ROWS = 4
"""Fewest rows of a class: a support and a query example, in training and in the test."""


@dataclass(frozen=True)
class CsvConfig(DataConfig):
    """Options of a CSV file.

    >>> from metarl.fewshot.data.csv_table import CsvConfig
    >>> CsvConfig(csv="patients.csv", label="outcome").split_by
    'rows'
    """

    csv: str | None = None
    """CSV file. Its first line names the columns."""
    label: str | None = None
    """Column of the label: words or whole numbers."""
    group: str | None = None
    """Column of the protected group. With it, classes keep their sorted order: the later of two is label 1."""
    categorical: tuple[str, ...] = ()
    """Columns of numeric codes, to be treated as words."""
    ignore: tuple[str, ...] = ()
    """Columns to ignore."""
    split_by: Literal["rows", "classes"] = "rows"
    """Split train and test by rows, or by classes (for tables with many classes)."""


class CsvTable(Table):
    """A CSV file as a data set. `encode` converts further rows to the raw inputs that `Learner.predict` takes.

    >>> from pathlib import Path
    >>> from metarl.fewshot.data import open_data
    >>> rows = [f"{age},{outcome}" for age in range(20, 40) for outcome in ("well", "ill")]
    >>> _ = Path("patients.csv").write_text("\\n".join(["age,outcome", *rows]))
    >>> open_data("csv", {"csv": "patients.csv", "label": "outcome"}).classes
    ['ill', 'well']
    """

    config_class = CsvConfig
    config: CsvConfig

    def __init__(self, config: CsvConfig):
        super().__init__(config)
        if config.csv is None or config.label is None:
            raise UsageError("data csv needs a file and its label column: --csv FILE --label COLUMN")
        if config.group == config.label:
            raise UsageError(f"column {config.label!r} cannot be both label and group")
        table = Columns(Path(config.csv))
        used = [config.label, *([] if config.group is None else [config.group])]
        for name in (*used, *config.categorical, *config.ignore):
            table.check_column(name)
        features = [name for name in table.names if name not in {*used, *config.ignore}]
        if not features:
            raise UsageError(f"{config.csv} has no columns besides the label and those that are left out")
        self.features = [Feature.of(table, name, name in config.categorical) for name in features]
        """The columns that are inputs, in the file's order."""
        labels, self.classes = _labels(table, config.label)
        """The label, and what its values 0, 1, … stand for."""
        groups, self.groups = (None, []) if config.group is None else _codes(table.column(config.group))
        """The group, and what its values 0, 1, … stand for."""
        rows = self._encode(table)
        held_out = self._held_out(labels)
        numeric = torch.tensor([f.words is None for f in self.features for _ in range(f.width)])
        self.preprocessing = standardisation(rows[~held_out], numeric)
        self.pools = split_pools(rows, labels, held_out, Path(config.csv).name, groups)

    def encode(self, path: Path | str) -> Float[Tensor, "n D"]:
        """Reads another CSV file with the same feature columns as raw inputs; ignores other columns.

        Raises `UsageError` for a missing column or a word that the first file does not contain.
        """
        table = Columns(Path(path))
        for feature in self.features:
            table.check_column(feature.name)
        return self._encode(table)

    def _encode(self, table: "Columns") -> Float[Tensor, "n D"]:
        return torch.cat([feature.encode(table) for feature in self.features], 1)

    def _held_out(self, labels: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
        if self.config.split_by == "rows":
            return held_out_rows(labels, "csv")
        number = len(self.classes)
        if number < 4:
            raise UsageError(f"{self.config.csv} has {number} classes, too few to split by: leave --split-by out")
        test = torch.randperm(number, generator=make_generator("table classes"))[: max(2, round(TEST_SHARE * number))]
        return torch.isin(labels, test)


class Columns:
    """The cells of a CSV file as text, by column; raises `UsageError` unless it is a table without gaps."""

    def __init__(self, path: Path):
        self.path = path
        if not path.is_file():
            raise UsageError(f"there is no file {path}")
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, strict=True)
                lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
        except UnicodeDecodeError:
            raise UsageError(f"{path} is no CSV file: it is not text in UTF-8") from None
        except csv.Error as error:
            raise UsageError(f"{path} is no CSV file: {error}") from None
        if len(lines) < 2:
            raise UsageError(f"{path} has no rows: want a line of column names and a line for each example")
        (_, self.names), *self._lines = lines
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise UsageError(f"{path} names two columns {twice[0]!r}")
        for number, row in self._lines:
            if len(row) != len(self.names):
                raise UsageError(f"{path}, line {number}: {len(row)} cells, but {len(self.names)} columns are named")

    def __len__(self) -> int:
        return len(self._lines)

    def check_column(self, name: str) -> None:
        """Raises `UsageError` if there is no such column."""
        if name not in self.names:
            near = near_matches(name, self.names)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(self.names)}"
            raise UsageError(f"{self.path} has no column {name!r}; {hint}")

    def column(self, name: str) -> list[str]:
        """The cells; raises `UsageError` for an empty cell or NaN."""
        index = self.names.index(name)
        for number, row in self._lines:
            if row[index].lower() in ("", "nan"):
                what = "empty" if row[index] == "" else "NaN"
                raise UsageError(f"{self.path}, line {number}: column {name!r} is {what}; fill it in or drop the row")
        return [row[index] for _, row in self._lines]

    def numbers(self, name: str) -> list[float] | None:
        """The cells as numbers, or None if none is a number; raises `UsageError` for infinity or a mixture."""
        cells = self.column(name)
        values = [_number(cell) for cell in cells]
        if all(value is None for value in values):
            return None
        for (line, _), cell, value in zip(self._lines, cells, values, strict=True):
            if value is None:
                raise UsageError(
                    f"{self.path}, line {line}: column {name!r} has numbers, but here {cell!r}; "
                    f"correct it, or name the column under --categorical"
                )
            if not math.isfinite(value):
                raise UsageError(f"{self.path}, line {line}: column {name!r} is {cell}; correct it or drop the row")
        return [value for value in values if value is not None]


@dataclass(frozen=True)
class Feature:
    """A column that is used as an input."""

    name: str
    words: tuple[str, ...] | None
    """The words that its 0/1 features stand for; None for a column of numbers."""

    @classmethod
    def of(cls, table: Columns, name: str, categorical: bool) -> "Feature":
        """The feature for the column `name` of `table`, with the words that occur in it."""
        if not categorical and table.numbers(name) is not None:
            return cls(name, None)
        words = tuple(sorted(set(table.column(name))))
        if len(words) > MAX_WORDS:
            raise UsageError(
                f"{table.path}: column {name!r} has {len(words)} different words, more than {MAX_WORDS}; "
                f"leave it out with --ignore {name}"
            )
        return cls(name, words)

    @property
    def width(self) -> int:
        return 1 if self.words is None else len(self.words)

    def encode(self, table: Columns) -> Float[Tensor, "n W"]:
        """The column of `table` as numbers."""
        if self.words is None:
            values = table.numbers(self.name)
            if values is None:
                raise UsageError(f"{table.path}: column {self.name!r} has words, but numbers are needed")
            column = torch.tensor(values, dtype=torch.float32)[:, None]
            if not column.isfinite().all():
                raise UsageError(f"{table.path}: column {self.name!r} has numbers too large for float32")
            return column
        cells = table.column(self.name)
        unknown = sorted(set(cells) - set(self.words))
        if unknown:
            raise UsageError(f"{table.path}: column {self.name!r} has the word {unknown[0]!r}, unknown from training")
        return torch.eye(len(self.words))[[self.words.index(cell) for cell in cells]]


def _labels(table: Columns, name: str) -> tuple[Int[Tensor, "n"], list[str]]:
    """The labels and what they stand for; raises `UsageError` if they are not valid classes."""
    cells = table.column(name)
    for cell in cells:
        value = _number(cell)
        if value is not None and not (math.isfinite(value) and value == int(value)):
            raise UsageError(f"{table.path}: label column {name!r} holds {cell}; want words or whole numbers")
    labels, classes = _codes(cells)
    if len(classes) < 2:
        raise UsageError(f"{table.path}: label column {name!r} holds {classes[0]!r} alone; want two classes or more")
    smallest = int(labels.bincount().argmin())
    count = int(labels.bincount().min())
    if count < MIN_ROWS:
        raise UsageError(
            f"{table.path}: class {classes[smallest]!r} has {count} row(s); each class needs at least {MIN_ROWS}"
        )
    return labels, classes


def _codes(cells: Sequence[str]) -> tuple[Int[Tensor, "n"], list[str]]:
    """Each cell's index among the distinct cells, which are sorted by number if all are numbers, else by name."""
    different = sorted(set(cells))
    numbers = [_number(cell) for cell in different]
    if None not in numbers:
        different.sort(key=float)
    place = {cell: index for index, cell in enumerate(different)}
    return torch.tensor([place[cell] for cell in cells]), different


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
