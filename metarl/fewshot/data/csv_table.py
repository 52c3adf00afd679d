"""A user's table: a CSV or Parquet file with named columns and one row per example.

One column is the label, and one may be the protected group, which is not a feature. The other columns are features:
numbers and dates are standardised over the training rows, and words become one 0/1 feature each (one-hot).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.data import DataConfig
from metarl.fewshot.data.columns import MISSING, LeftOut, NumberColumn, Reading, WordColumn, numeral, read_column
from metarl.fewshot.data.encoder import TableEncoder
from metarl.fewshot.data.numerals import Decimal
from metarl.fewshot.data.table_file import TextTable, read_table
from metarl.fewshot.data.tables import (
    TEST_SHARE,
    Table,
    held_out_rows,
    held_out_values,
    split_pools,
    standardisation,
)
from metarl.fewshot.preprocessing import Preprocessing
from metarl.randomness import make_generator

MIN_ROWS = 4
"""Fewest rows of a class: a support and a query example, in training and in the test."""


@dataclass(frozen=True)
class CsvConfig(DataConfig):
    """Options of a table.

    >>> from metarl.fewshot.data.csv_table import CsvConfig
    >>> CsvConfig(csv="patients.csv", label="outcome").split_by
    'rows'
    """

    csv: str | None = None
    """CSV file, whose first line names the columns, or Parquet file."""
    label: str | None = None
    """Column of the label: words or whole numbers."""
    group: str | None = None
    """Column of the protected group; it needs --favourable."""
    protected: tuple[str, ...] = ()
    """Further columns of protected groups, which are no features either; metarl evaluate --figures reports each. They
    need --favourable."""
    favourable: str | None = None
    """The favourable value of the label. It is label 1 of every episode."""
    categorical: tuple[str, ...] = ()
    """Columns of codes, to be read as words."""
    numeric: tuple[str, ...] = ()
    """Columns to be read as numbers although they look like identifiers."""
    ignore: tuple[str, ...] = ()
    """Columns to ignore."""
    split_by: str = "rows"
    """Split train and test by rows, by classes (for tables with many), or by a column, each of whose values, such as a
    patient, is then on one side."""
    delimiter: str | None = None
    """What separates cells; comma, semicolon, tab and | are recognised."""
    decimal: Decimal | None = None
    """Decimal mark of the numbers; recognised for each column if not given."""
    missing: tuple[str, ...] = MISSING
    """Cells that mean a missing value."""
    encoding: str = "utf-8"
    """Encoding of the text."""

    def __post_init__(self) -> None:
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise UsageError(f"delimiter must be one character, got {self.delimiter!r}")
        if (self.group is None and not self.protected) != (self.favourable is None):
            raise UsageError("--group COLUMN and --favourable LABEL go together: who is to be treated alike, and how")


@dataclass(frozen=True)
class _Labels:
    codes: Int[Tensor, "n"]
    names: list[str]


class CsvTable(Table):
    """A table as a data set. `encode` converts further rows to the raw inputs that `Learner.predict` takes.

    >>> from pathlib import Path
    >>> from metarl.fewshot.data import open_data
    >>> rows = [f"{age},{outcome}" for age in range(20, 90, 2) for outcome in ("well", "ill")]
    >>> _ = Path("patients.csv").write_text("\\n".join(["age,outcome", *rows]))
    >>> data = open_data("csv", {"csv": "patients.csv", "label": "outcome"})
    >>> data.classes, data.summary()[0]
    (['ill', 'well'], 'age: numbers from 20 to 88')
    """

    config_class = CsvConfig
    config: CsvConfig

    def __init__(self, config: CsvConfig):
        super().__init__(config)
        if config.csv is None or config.label is None:
            raise UsageError("data csv needs a file and its label column: --csv FILE --label COLUMN")
        if config.group == config.label:
            raise UsageError(f"column {config.label!r} cannot be both label and group")
        self._reading = Reading(config.decimal, config.missing, config.categorical, config.numeric)
        table = self._read(Path(config.csv))
        used = {config.label, config.group, self._split_column, *config.protected}
        for name in (*filter(None, used), *config.categorical, *config.numeric, *config.ignore):
            table.check_column(name)
        labels = _labels(table, config.label, self._reading)
        self.classes = labels.names
        """What the values 0, 1, … of the label stand for."""
        held_out, units, unit_name = self._held_out(table, labels.codes)
        columns = [
            read_column(table, name, ~held_out, self._reading)
            for name in table.names
            if name not in used and name not in config.ignore
        ]
        self.features: list[NumberColumn | WordColumn] = [c for c in columns if not isinstance(c, LeftOut)]
        """The columns that are inputs, in the file's order."""
        self.left_out = [column for column in columns if isinstance(column, LeftOut)]
        """Columns that are no inputs, beside those that the user ignores."""
        if not self.features:
            why = "".join(f"; {column.name} is {column.description}" for column in self.left_out)
            keep = f"; --numeric {self.left_out[0].name} keeps it" if self.left_out else ""
            raise UsageError(f"{config.csv} has no columns besides the label and those that are left out{why}{keep}")
        groups = None if config.group is None else _codes(table, config.group, self._reading)
        self.groups: list[str] = [] if groups is None else groups.names
        """What the values 0, 1, … of the group stand for."""
        self._protected = {name: _codes(table, name, self._reading) for name in config.protected}
        rows = self._encode(table)
        numeric = torch.tensor([numeric for feature in self.features for numeric in feature.is_numeric])
        self.preprocessing: Preprocessing = standardisation(rows[~held_out], numeric)
        name, codes = Path(config.csv).name, None if groups is None else groups.codes
        self.pools = split_pools(rows, labels.codes, held_out, name, codes, self._favourable, units, unit_name)

    def encode(self, path: Path | str) -> Float[Tensor, "n D"]:
        """Reads another file with the same feature columns as raw inputs; ignores other columns.

        A word that the training rows do not have is an input of its own, `(other)`. Raises `UsageError` for a missing
        column or a cell that is no number in a column of numbers.
        """
        table = self._read(Path(path))
        for feature in self.features:
            table.check_column(feature.name)
        return self._encode(table)

    def summary(self) -> list[str]:
        """How each column was read, a line each, and what the split is by."""
        config = self.config
        lines = [f"{column.name}: {column.description}" for column in (*self.features, *self.left_out)]
        lines += [f"{name}: ignored" for name in config.ignore]
        lines += [f"{name}: protected, {_listed(labels.names)}" for name, labels in self._protected.items()]
        lines.append(f"{config.label}: the label, {_listed(self.classes)}")
        if config.group is not None:
            lines.append(f"{config.group}: the group, {_listed(self.groups)}; favourable is {config.favourable}")
        sizes = ", ".join(f"{len(pool)} {split}" for split, pool in self.pools.items())
        lines.append(f"split by {self.config.split_by}: {sizes} rows")
        return lines

    def facts(self) -> dict[str, Any]:
        config = self.config
        facts: dict[str, Any] = {"split_by": config.split_by}
        if config.group is not None:
            facts |= {"group": config.group, "groups": self.groups}
        if config.protected:
            facts["protected"] = list(config.protected)
        if config.favourable is not None:
            facts["favourable"] = config.favourable
        return facts

    def class_names(self, split: str) -> list[str]:
        return [self.classes[value] for value in self.pools[split].classes.tolist()]

    def group_names(self) -> list[str]:
        return self.groups

    def protected(self) -> dict[str, tuple[list[str], Int[Tensor, "n"]]]:
        return {name: (labels.names, labels.codes) for name, labels in self._protected.items()}

    def encoder(self) -> dict[str, Any]:
        config = self.config
        assert config.label is not None
        return TableEncoder(
            config.label,
            tuple(self.classes),
            tuple(self.features),
            favourable=config.favourable,
            group=config.group,
            group_names=tuple(self.groups),
            reading=self._reading,
            delimiter=config.delimiter,
            encoding=config.encoding,
        ).entries()

    @property
    def _split_column(self) -> str | None:
        return None if self.config.split_by in ("rows", "classes") else self.config.split_by

    @property
    def _favourable(self) -> int | None:
        favourable = self.config.favourable
        if favourable is None:
            return None
        if favourable not in self.classes:
            raise UsageError(f"--favourable {favourable}: {self.config.label!r} has {_listed(self.classes)}")
        return self.classes.index(favourable)

    def _read(self, path: Path) -> TextTable:
        return read_table(path, delimiter=self.config.delimiter, encoding=self.config.encoding)

    def _encode(self, table: TextTable) -> Float[Tensor, "n D"]:
        return torch.cat([feature.encode(table, self._reading) for feature in self.features], 1)

    def _held_out(
        self, table: TextTable, labels: Int[Tensor, "n"]
    ) -> tuple[Bool[Tensor, "n"], Int[Tensor, "n"] | None, str]:
        """The mask of the test rows, and the units that they are split by, None if by rows, with their name."""
        path, column = self.config.csv, self._split_column
        if column is not None:
            owners = _codes(table, column, self._reading).codes
            return held_out_values(labels, owners, f"{path}, column {column!r}"), owners, f"values of {column}"
        if self.config.split_by == "rows":
            return held_out_rows(labels, "csv"), None, "rows"
        number = len(self.classes)
        if number < 4:
            raise UsageError(f"{path} has {number} classes, too few to split by: leave --split-by out")
        test = torch.randperm(number, generator=make_generator("table classes"))[: max(2, round(TEST_SHARE * number))]
        return torch.isin(labels, test), labels, "classes"


def _labels(table: TextTable, name: str, reading: Reading) -> _Labels:
    """The labels; raises `UsageError` if they are not valid classes."""
    for cell in table.cells(name).unique(maintain_order=True):
        value = numeral(cell)
        if value is not None and not (math.isfinite(value) and value == int(value)):
            raise UsageError(f"{table.path}: label column {name!r} holds {cell}; want words or whole numbers")
    labels = _codes(table, name, reading)
    if len(labels.names) < 2:
        raise UsageError(
            f"{table.path}: label column {name!r} holds {labels.names[0]!r} alone; want two classes or more"
        )
    counts = labels.codes.bincount()
    smallest = int(counts.argmin())
    if counts[smallest] < MIN_ROWS:
        raise UsageError(
            f"{table.path}: class {labels.names[smallest]!r} has {int(counts[smallest])} row(s); each class needs at "
            f"least {MIN_ROWS}"
        )
    return labels


def _codes(table: TextTable, name: str, reading: Reading) -> _Labels:
    """Each cell's index among the distinct cells, which are sorted by number if all are numbers, else by name.

    Numbers that are equal are one: 1 and 1.0. Raises `UsageError` for a missing cell.
    """
    cells = table.cells(name)
    missing = ~reading.present(cells)
    if missing.any():
        row = int(missing.arg_max() or 0)
        what = "empty" if cells[row] == "" else f"missing ({cells[row]})"
        raise UsageError(f"{table.place(row)}: column {name!r} is {what}; fill it in or drop the row")
    different = cells.unique().sort().to_list()
    _check_case(table, name, different)
    numbers = {cell: numeral(cell) for cell in different}
    if None not in numbers.values():
        names = {cell: f"{value:.15g}" for cell, value in numbers.items()}
        ordered = sorted(dict.fromkeys(names.values()), key=float)
    else:
        names, ordered = {cell: cell for cell in different}, different
    place = {cell: ordered.index(names[cell]) for cell in different}
    codes = cells.replace_strict(place, return_dtype=pl.Int64).to_numpy(writable=True)
    return _Labels(torch.from_numpy(codes), ordered)


def _check_case(table: TextTable, name: str, different: list[str]) -> None:
    """Raises `UsageError` if two values differ in case alone."""
    lower: dict[str, str] = {}
    for value in different:
        other = lower.setdefault(value.casefold(), value)
        if other != value:
            raise UsageError(f"{table.path}: column {name!r} has {other!r} and {value!r}: write them alike")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f", … ({len(names)})" if len(names) > 8 else "")
