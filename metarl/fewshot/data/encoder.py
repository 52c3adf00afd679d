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
from metarl.fewshot.data.columns import NumberColumn, Reading, WordColumn
from metarl.fewshot.data.labels import check_case, check_present, plain_names
from metarl.fewshot.data.remarks import table_remarks
from metarl.fewshot.data.table_file import TextTable, read_table
from metarl.fewshot.data.text_columns import TextColumn
from metarl.importing import import_named

Feature = NumberColumn | WordColumn | TextColumn
"""A column that is an input."""


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

    @property
    def fixed_classes(self) -> tuple[str, ...]:
        """The classes in the order of their labels, if these mean the same in every episode; else empty."""

    def inputs(self, path: Path | str) -> Tensor:
        """The raw inputs of a file."""

    def targets(self, path: Path | str) -> Tensor:
        """The values to learn of a file, in regression."""

    def labels(self, path: Path | str) -> list[str]:
        """The label of each example of a file."""

    def groups(self, path: Path | str) -> Tensor | None:
        """The protected group of each example of a file, counted from 0; None if it does not name them."""

    def features(self) -> Mapping[str, list[int]] | None:
        """The places of the inputs that belong together, such as those of one column, by name; None if none do."""

    def names(self, path: Path | str) -> list[str] | None:
        """What the examples of a file are called; None if they are numbered only."""

    def remarks(self, path: Path | str) -> list[str]:
        """What differs from the files of the training, in lines for people: new words, missing numbers."""


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

    label: str | None
    """The column of the label; None in regression."""
    classes: tuple[str, ...]
    columns: tuple[Feature, ...]
    target: NumberColumn | None = None
    """The column of the values to learn, in regression."""
    has_fixed_labels: bool = False
    """Whether the labels mean the same in every episode, as those of sites do."""
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

    @property
    def fixed_classes(self) -> tuple[str, ...]:
        return self.classes if self.has_fixed_labels else ()

    def targets(self, path: Path | str) -> Float[Tensor, "n 1"]:
        """The target column; raises `UsageError` for a cell that is no number."""
        assert self.target is not None
        table = self._read(path)
        table.check_column(self.target.name)
        check_present(table, self.target.name, self.reading)
        return self.target.encode(table, self.reading)

    def labels(self, path: Path | str) -> list[str]:
        """The label column; numbers that are equal are one label. Raises `UsageError` for a missing label."""
        assert self.label is not None
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

    def names(self, path: Path | str) -> None:
        return None

    def remarks(self, path: Path | str) -> list[str]:
        return table_remarks(self._read(path), self.columns, self.reading)

    def entries(self) -> dict[str, Any]:
        """As plain values, of which `open_encoder` makes it again."""
        columns = [{"role": column.role} | dataclasses.asdict(column) for column in self.columns]
        return {"kind": "table"} | dataclasses.asdict(self) | {"columns": columns}

    @classmethod
    def from_entries(cls, entries: Mapping[str, Any], owner: str) -> "TableEncoder":
        columns = entries.get("columns")
        if not isinstance(columns, list) or not all(isinstance(column, Mapping) for column in columns):
            raise UsageError(f"{owner} is damaged: columns are missing")
        made: list[Feature] = []
        for column in columns:
            kind: Any = _COLUMNS.get(column.get("role"), NumberColumn)
            own = column if kind is NumberColumn else {name: value for name, value in column.items() if name != "role"}
            made.append(build(kind, own, f"{owner}, a column"))
        others = {name: value for name, value in entries.items() if name != "columns"}
        return dataclasses.replace(build(cls, {"columns": []} | others, owner), columns=tuple(made))

    def _read(self, path: Path | str) -> TextTable:
        return read_table(Path(path), delimiter=self.delimiter, encoding=self.encoding)

    def _names(self, table: TextTable, name: str) -> list[str]:
        table.check_column(name)
        check_present(table, name, self.reading)
        check_case(table.cells(name).unique().sort().to_list(), f"{table.path}: column {name!r}")
        return plain_names(table.cells(name).to_list())


def open_encoder(entries: Mapping[str, Any] | None, owner: str = "the encoder") -> FileEncoder | None:
    """The encoder that `DataSet.encoder` described, None for None; raises `UsageError`, naming `owner`, if damaged."""
    if entries is None:
        return None
    if not isinstance(entries, Mapping) or entries.get("kind") not in _KINDS:
        raise UsageError(f"{owner} is damaged: it describes no reader of files")
    own = {name: value for name, value in entries.items() if name != "kind"}
    return import_named(_KINDS[entries["kind"]]).from_entries(own, owner)


def label_codes(
    labels: Sequence[str], favourable: str | None, fixed: Sequence[str] = ()
) -> tuple[list[str], list[int]]:
    """The distinct labels in the order of their codes, and the code of each; a favourable one has the code 1.

    If the codes are those of the training, of the classes `fixed`, there must be labels of each of them and no others.
    Raises `UsageError` if there are not, or if no label is the favourable one: a code would mean something else.

    >>> from metarl.fewshot.data.encoder import label_codes
    >>> label_codes(["yes", "no", "yes"], favourable="no")
    (['yes', 'no'], [0, 1, 0])
    """
    names = sorted(set(labels))
    if fixed:
        if names != sorted(fixed):
            raise UsageError(
                f"the support rows are of {', '.join(names)}; the run wants rows of each of its classes "
                f"{', '.join(fixed)}, and no others"
            )
        names = list(fixed)
    elif favourable is not None:
        if favourable not in names:
            raise UsageError(f"no support row is {favourable!r}, which is the run's favourable class")
        names.remove(favourable)
        names.insert(1, favourable)
    return names, [names.index(label) for label in labels]


_COLUMNS: Mapping[Any, type[WordColumn | TextColumn]] = {"word": WordColumn, "text": TextColumn}
"""The role of a column → its class, if that has one role only."""
_KINDS = {
    "table": "metarl.fewshot.data.encoder:TableEncoder",
    "arrays": "metarl.fewshot.data.arrays:ArrayEncoder",
    "pictures": "metarl.fewshot.data.folder:PictureEncoder",
}
"""The kind of an encoder → its class, imported on first use, whose `from_entries` makes it from plain values."""
