"""What a run needs to read further files like those it was trained on; it travels with the run as plain values."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.options import build
from metarl.fewshot.data.columns import NumberColumn, Reading, WordColumn, numeral
from metarl.fewshot.data.table_file import TextTable, read_table


@runtime_checkable
class FileEncoder(Protocol):
    """Reads files as raw inputs for `Learner.predict`, and their labels as people wrote them.

    >>> from metarl.fewshot.data.encoder import FileEncoder, TableEncoder
    >>> isinstance(TableEncoder("outcome", ("ill", "well"), ()), FileEncoder)
    True
    """

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the data that the run was trained and tested on."""

    @property
    def favourable(self) -> str | None:
        """The favourable class, which is label 1; None if there is none."""

    def inputs(self, path: Path | str) -> Tensor:
        """The raw inputs of a file."""

    def labels(self, path: Path | str) -> list[str]:
        """The label of each example of a file."""

    def groups(self, path: Path | str) -> Tensor | None:
        """The protected group of each example of a file, counted from 0; None if it does not name them."""

    def features(self) -> Mapping[str, list[int]]:
        """The places of the inputs that belong together, such as those of one column, by name."""


@dataclass(frozen=True)
class TableEncoder:
    """The columns of a table and how they are written: CSV or Parquet.

    >>> from pathlib import Path
    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.data.encoder import open_encoder
    >>> rows = [f"{age},{outcome}" for age in range(20, 90, 2) for outcome in ("well", "ill")]
    >>> _ = Path("patients.csv").write_text("\\n".join(["age,outcome", *rows]))
    >>> encoder = open_encoder(open_data("csv", {"csv": "patients.csv", "label": "outcome"}).encoder())
    >>> encoder.classes, encoder.features(), encoder.inputs("patients.csv").shape
    (('ill', 'well'), {'age': [0]}, torch.Size([70, 1]))
    """

    label: str
    classes: tuple[str, ...]
    columns: tuple[NumberColumn | WordColumn, ...]
    favourable: str | None = None
    group: str | None = None
    group_names: tuple[str, ...] = ()
    reading: Reading = dataclasses.field(default_factory=Reading)
    delimiter: str | None = None
    encoding: str = "utf-8"

    def inputs(self, path: Path | str) -> Float[Tensor, "n D"]:
        """Raises `UsageError` for a missing column, or a cell that is no number in a column of numbers."""
        table = self._read(path)
        for column in self.columns:
            table.check_column(column.name)
        return torch.cat([column.encode(table, self.reading) for column in self.columns], 1)

    def labels(self, path: Path | str) -> list[str]:
        """The label column; numbers that are equal are one label. Raises `UsageError` for a missing label."""
        return self._names(self._read(path), self.label)

    def groups(self, path: Path | str) -> Int[Tensor, "n"] | None:
        """Raises `UsageError` for a group that the training does not know."""
        table = self._read(path)
        if self.group is None or self.group not in table.names:
            return None
        names = self._names(table, self.group)
        for row, name in enumerate(names):
            if name not in self.group_names:
                raise UsageError(
                    f"{table.place(row)}: group {self.group!r} is {name!r}; the run knows {', '.join(self.group_names)}"
                )
        return torch.tensor([self.group_names.index(name) for name in names])

    def features(self) -> dict[str, list[int]]:
        places, start = {}, 0
        for column in self.columns:
            places[column.name] = list(range(start, start + column.width))
            start += column.width
        return places

    def entries(self) -> dict[str, Any]:
        """As plain values, of which `open_encoder` makes it again."""
        columns = [{"role": column.role} | dataclasses.asdict(column) for column in self.columns]
        return {"kind": "table"} | dataclasses.asdict(self) | {"columns": columns}

    def _read(self, path: Path | str) -> TextTable:
        return read_table(Path(path), delimiter=self.delimiter, encoding=self.encoding)

    def _names(self, table: TextTable, name: str) -> list[str]:
        table.check_column(name)
        cells = table.cells(name)
        missing = ~self.reading.present(cells)
        if missing.any():
            row = int(missing.arg_max() or 0)
            raise UsageError(f"{table.place(row)}: column {name!r} is missing; fill it in or drop the row")
        names = cells.to_list()
        numbers = [numeral(cell) for cell in names]
        known = [number for number in numbers if number is not None]
        return [f"{number:.15g}" for number in known] if len(known) == len(names) else names


def open_encoder(entries: Mapping[str, Any] | None, owner: str = "the encoder") -> FileEncoder | None:
    """The encoder that `DataSet.encoder` described, None for None; raises `UsageError`, naming `owner`, if damaged."""
    if entries is None:
        return None
    if not isinstance(entries, Mapping) or entries.get("kind") not in _KINDS:
        raise UsageError(f"{owner} is damaged: it describes no reader of files")
    return _KINDS[entries["kind"]]({name: value for name, value in entries.items() if name != "kind"}, owner)


def label_codes(labels: Sequence[str], favourable: str | None) -> tuple[list[str], list[int]]:
    """The distinct labels in the order of their codes, and the code of each; a favourable one has the code 1.

    Raises `UsageError` if no label is the favourable one, for then code 1 would mean something else.

    >>> from metarl.fewshot.data.encoder import label_codes
    >>> label_codes(["yes", "no", "yes"], favourable="no")
    (['yes', 'no'], [0, 1, 0])
    """
    names = sorted(set(labels))
    if favourable is not None:
        if favourable not in names:
            raise UsageError(f"no support row is {favourable!r}, which is the run's favourable class")
        names.remove(favourable)
        names.insert(1, favourable)
    return names, [names.index(label) for label in labels]


def _table_encoder(entries: Mapping[str, Any], owner: str) -> TableEncoder:
    columns = entries.get("columns")
    if not isinstance(columns, list) or not all(isinstance(column, Mapping) for column in columns):
        raise UsageError(f"{owner} is damaged: columns are missing")
    made: list[NumberColumn | WordColumn] = []
    for column in columns:
        if column.get("role") == "word":
            made.append(build(WordColumn, {k: v for k, v in column.items() if k != "role"}, f"{owner}, a column"))
        else:
            made.append(build(NumberColumn, column, f"{owner}, a column"))
    others = {name: value for name, value in entries.items() if name != "columns"}
    return dataclasses.replace(build(TableEncoder, {"columns": []} | others, owner), columns=tuple(made))


_KINDS = {"table": _table_encoder}
"""The kind of an encoder → the function that makes it from its entries."""
