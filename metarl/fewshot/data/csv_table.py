"""A user's table: a CSV or Parquet file with named columns and one row per example.

One column is the label, or the target of a regression, and one may be the protected group, which is not a feature. The
other columns are features: numbers and dates are standardised over the training rows, words become one 0/1 feature each
(one-hot), and texts hashed words. With a column of sites, each site is a task.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.data import DataConfig
from metarl.fewshot.data.columns import MISSING, LeftOut, NumberColumn, Reading, read_column
from metarl.fewshot.data.encoder import Feature, TableEncoder
from metarl.fewshot.data.labels import Labels, check_present, check_several, listed, read_codes, read_labels
from metarl.fewshot.data.numerals import Decimal
from metarl.fewshot.data.sites import held_out_sites, large_enough, site_pools
from metarl.fewshot.data.table_file import TextTable, read_table
from metarl.fewshot.data.tables import (
    Table,
    held_out_classes,
    held_out_rows,
    held_out_values,
    split_pools,
    standardisation,
)
from metarl.fewshot.data.text_columns import read_text
from metarl.fewshot.preprocessing import Preprocessing
from metarl.tasks import check_count


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
    target: str | None = None
    """Column of the numbers to predict, instead of a label: regression."""
    task_column: str | None = None
    """Column of sites, such as clinics or schools: each is a task with the same classes, and whole sites are held out
    for the test."""
    task_rows: int = 10
    """Fewest rows of each class at a site; sites with fewer are left out."""
    text: tuple[str, ...] = ()
    """Columns of free text, to be read as hashed words; needs scikit-learn."""
    text_inputs: int = 512
    """Inputs of the network for each column of free text."""
    text_by: Literal["words", "characters"] = "words"
    """Hash words, or n-grams of characters, for languages without spaces or with many forms of a word."""
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
        check_count("task_rows", self.task_rows)
        check_count("text_inputs", self.text_inputs)
        if self.csv is not None and (self.label is None) == (self.target is None):
            raise UsageError("data csv needs the column to predict: --label COLUMN of classes, or --target COLUMN")
        if self.target is not None and (self.favourable is not None or self.split_by == "classes"):
            raise UsageError("--target is regression, without classes: leave --group and --split-by classes out")
        if self.task_column is not None and self.split_by != "rows":
            raise UsageError("--task-column holds out whole sites: leave --split-by out")


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
        if config.csv is None:
            raise UsageError("data csv needs a file and the column to predict: --csv FILE --label COLUMN")
        self._reading = Reading(config.decimal, config.missing, config.categorical, config.numeric)
        table = self._read(Path(config.csv))
        used = self._used(table)
        if config.label is None:
            self.kind = "regression"
            labels = Labels(torch.zeros(len(table), dtype=torch.int64), ["all"])
        else:
            labels = read_labels(table, config.label, self._reading)
        self._target: NumberColumn | None = None
        self._skipped: list[str] = []
        table, labels, sites = self._with_sites(table, labels)
        self.classes = [] if config.label is None else labels.names
        """What the values 0, 1, … of the label stand for."""
        if sites is not None and self._favourable is not None:
            labels = self._favourable_second(labels)
            self.classes = labels.names
        held_out, units, unit_name = self._held_out(table, labels.codes, sites)
        columns = [self._column(table, name, ~held_out) for name in table.names if name not in used]
        self.features: list[Feature] = [column for column in columns if not isinstance(column, LeftOut)]
        """The columns that are inputs, in the file's order."""
        self.left_out = [column for column in columns if isinstance(column, LeftOut)]
        """Columns that are no inputs, beside those that the user ignores."""
        if not self.features:
            why = "".join(f"; {column.name} is {column.description}" for column in self.left_out)
            keep = f"; --numeric {self.left_out[0].name} keeps it" if self.left_out else ""
            raise UsageError(f"{config.csv} has no columns besides the label and those that are left out{why}{keep}")
        groups = None if config.group is None else read_codes(table, config.group, self._reading)
        self.groups: list[str] = [] if groups is None else groups.names
        """What the values 0, 1, … of the group stand for."""
        self._protected = {name: read_codes(table, name, self._reading) for name in config.protected}
        compared = dict(self._protected) | ({} if groups is None else {str(config.group): groups})
        check_several(compared, str(config.csv))
        rows = self._encode(table)
        numeric = torch.tensor([numeric for feature in self.features for numeric in feature.is_numeric])
        self.preprocessing: Preprocessing = standardisation(rows[~held_out], numeric)
        name, codes = Path(config.csv).name, None if groups is None else groups.codes
        if config.target is not None or sites is not None:
            values = None if config.target is None else self._target_values(table, ~held_out)
            where = torch.zeros_like(labels.codes) if sites is None else sites.codes
            self.pools = site_pools(rows, labels.codes, where, held_out, name, codes, values, units, unit_name)
        else:
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
        lines += [f"{name}: protected, {listed(labels.names)}" for name, labels in self._protected.items()]
        if config.label is not None:
            lines.append(f"{config.label}: the label, {listed(self.classes)}")
        if self.targets is not None:
            mean, deviation = (float(value) for value in self.targets.invert(torch.tensor([[0.0], [1.0]]))[:, 0])
            lines.append(
                f"{config.target}: the target; errors are in units of its variance over the training rows (mean "
                f"{mean:.6g}, standard deviation {deviation - mean:.6g})"
            )
        if config.group is not None:
            lines.append(f"{config.group}: the group, {listed(self.groups)}; favourable is {config.favourable}")
        sizes = ", ".join(f"{len(pool)} {split}" for split, pool in self.pools.items())
        lines += [*self._about_sites(), f"split by {config.task_column or config.split_by}: {sizes} rows"]
        return [*lines, *self.copies]

    def facts(self) -> dict[str, Any]:
        config = self.config
        facts: dict[str, Any] = {"split_by": config.task_column or config.split_by}
        if config.task_column is not None:
            facts |= {"task_column": config.task_column, "sites_left_out": len(self._skipped)}
        if config.target is not None:
            facts |= {"target": config.target}
        if config.group is not None:
            facts |= {"group": config.group, "groups": self.groups}
        if config.protected:
            facts["protected"] = list(config.protected)
        if config.favourable is not None:
            facts["favourable"] = config.favourable
        return facts

    def group_names(self) -> list[str]:
        return self.groups

    def protected(self) -> dict[str, tuple[list[str], Int[Tensor, "n"]]]:
        return {name: (labels.names, labels.codes) for name, labels in self._protected.items()}

    def encoder(self) -> dict[str, Any]:
        config = self.config
        return TableEncoder(
            config.label,
            tuple(self.classes),
            tuple(self.features),
            target=self._target,
            has_fixed_labels=config.task_column is not None and config.label is not None,
            favourable=config.favourable,
            group=config.group,
            group_names=tuple(self.groups),
            reading=self._reading,
            delimiter=config.delimiter,
            encoding=config.encoding,
        ).entries()

    def _used(self, table: TextTable) -> set[str]:
        """The columns that are no features; raises `UsageError` for one that is not there or has two meanings."""
        config = self.config
        roles = {"label": config.label, "target": config.target, "group": config.group}
        roles |= {"--task-column": config.task_column, "--split-by": self._split_column}
        named = {role: column for role, column in roles.items() if column is not None}
        for column in (
            *named.values(),
            *config.protected,
            *config.categorical,
            *config.numeric,
            *config.text,
            *config.ignore,
        ):
            table.check_column(column)
        meaning: dict[str, str] = {}
        for role, column in named.items():
            if column in meaning and {role, meaning[column]} != {"group", "--split-by"}:
                raise UsageError(f"column {column!r} cannot be both {meaning[column]} and {role}")
            meaning[column] = role
        for column in config.protected:
            if meaning.get(column, "group") not in ("group", "--split-by"):
                raise UsageError(f"column {column!r} cannot be both {meaning[column]} and --protected")
        used = {*meaning, *config.protected, *config.ignore}
        for column in config.text:
            if column in (*used, *config.categorical, *config.numeric):
                raise UsageError(f"column {column!r} cannot be both --text and something else")
        return used

    def _column(self, table: TextTable, name: str, training: Bool[Tensor, "n"]) -> Feature | LeftOut:
        config = self.config
        if name in config.text:
            return read_text(table, name, config.text_inputs, config.text_by)
        return read_column(table, name, training, self._reading)

    def _with_sites(self, table: TextTable, labels: Labels) -> tuple[TextTable, Labels, Labels | None]:
        """Table and labels without the sites that are too small, and the sites; these are None if there is no column.

        Raises `UsageError` if fewer than two are left.
        """
        config = self.config
        if config.task_column is None:
            return table, labels, None
        sites = read_codes(table, config.task_column, self._reading)
        kept, self._skipped = large_enough(labels.codes, sites.codes, config.task_rows, sites.names, labels.names)
        table = TextTable(
            table.path,
            table.frame.filter(pl.Series(kept.numpy())),
            [table.lines[row] for row in kept.nonzero()[:, 0].tolist()],
            table.unreadable,
        )
        if len(sites.codes[kept].unique()) < 2:
            raise UsageError(
                f"{config.csv}, column {config.task_column!r}: {len(sites.codes[kept].unique())} of {len(sites.names)} "
                f"sites have {config.task_rows} rows{' of each class' if config.label else ''}, and two are needed: "
                f"--task-rows takes fewer"
            )
        return table, Labels(labels.codes[kept], labels.names), Labels(sites.codes[kept], sites.names)

    def _favourable_second(self, labels: Labels) -> Labels:
        """With sites, labels are the same in every episode: the favourable class is to be label 1, as it always is."""
        names = [name for name in labels.names if name != self.config.favourable]
        names.insert(1, str(self.config.favourable))
        place = torch.tensor([names.index(name) for name in labels.names])
        return Labels(place[labels.codes], names)

    def _target_values(self, table: TextTable, training: Bool[Tensor, "n"]) -> Float[Tensor, "n 1"]:
        """The values to learn, with mean 0 and variance 1 over the training rows."""
        name = str(self.config.target)
        check_present(table, name, self._reading)
        reading = dataclasses.replace(self._reading, numeric=(*self._reading.numeric, name))
        column = read_column(table, name, training, reading)
        if not isinstance(column, NumberColumn) or column.role != "number":
            raise UsageError(f"{table.path}: target column {name!r} has no numbers: use --label for classes")
        values = column.encode(table, reading)
        if float(values[training].std(correction=0)) == 0:
            raise UsageError(f"{table.path}: target column {name!r} is {values[0, 0]:g} in every training row")
        self._target, self.targets = column, standardisation(values[training])
        return self.targets(values)

    def _about_sites(self) -> list[str]:
        config = self.config
        if config.task_column is None:
            if config.target is None:
                return []
            return [
                "every episode is the same task, some rows of one table: what a support set adds to all training rows "
                "is little; --task-column COLUMN makes each site a task"
            ]
        kept = ", ".join(f"{len(pool.units.unique())} {split}" for split, pool in self.pools.items())
        lines = [f"{config.task_column}: the sites, each a task: {kept}"]
        if self._skipped:
            each = "of a class" if config.label is not None else "in all"
            lines.append(
                f"{len(self._skipped)} sites left out, with fewer than {config.task_rows} rows {each}: "
                f"{listed(self._skipped)}"
            )
        return lines

    @property
    def _split_column(self) -> str | None:
        return None if self.config.split_by in ("rows", "classes") else self.config.split_by

    @property
    def _favourable(self) -> int | None:
        favourable = self.config.favourable
        if favourable is None:
            return None
        if favourable not in self.classes:
            raise UsageError(f"--favourable {favourable}: {self.config.label!r} has {listed(self.classes)}")
        return self.classes.index(favourable)

    def _read(self, path: Path) -> TextTable:
        return read_table(path, delimiter=self.config.delimiter, encoding=self.config.encoding)

    def _encode(self, table: TextTable) -> Float[Tensor, "n D"]:
        return torch.cat([feature.encode(table, self._reading) for feature in self.features], 1)

    def _held_out(
        self, table: TextTable, labels: Int[Tensor, "n"], sites: Labels | None
    ) -> tuple[Bool[Tensor, "n"], Int[Tensor, "n"] | None, str]:
        """The mask of the test rows, and the units that they are split by, None if by rows, with their name."""
        path, column = self.config.csv, self._split_column
        if sites is not None:
            return held_out_sites(sites.codes, f"{path}, column {self.config.task_column!r}"), sites.codes, "sites"
        if column is not None:
            owners = read_codes(table, column, self._reading).codes
            return held_out_values(labels, owners, f"{path}, column {column!r}"), owners, f"values of {column}"
        if self.config.split_by == "rows":
            return held_out_rows(labels, "csv"), None, "rows"
        return held_out_classes(labels, str(path)), labels, "classes"
