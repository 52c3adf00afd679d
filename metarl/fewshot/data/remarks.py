"""What people have to be told of a file that is read as those of the training were: what differs, in lines.

None of it can be refused: a new word, a missing value or a clinic of older patients may be just so. But a word written
in another way, or a column in other units, looks the same, and its predictions are worth nothing.
"""

from collections.abc import Mapping, Sequence

import polars as pl
from torch import Tensor

from metarl.fewshot.data.columns import NumberColumn, Reading, WordColumn
from metarl.fewshot.data.table_file import TextTable
from metarl.fewshot.preprocessing import Preprocessing

FAR = 5.0
"""Deviations of the training between its mean and the median of new rows, from which on these are far off."""
NARROW = 0.1
"""The deviation of new rows, in units of that of the training, below which they are narrow; above 1 / NARROW, wide."""
SHOWN = 5
"""Columns that are named, at most: embeddings have thousands."""
FEWEST = 10
"""Rows from which a deviation is measured."""


def table_remarks(table: TextTable, columns: Sequence[object], reading: Reading) -> list[str]:
    """Which words of `table` the training did not have, and which missing numbers its rows never miss.

    >>> from pathlib import Path
    >>> import polars as pl
    >>> from metarl.fewshot.data.columns import Reading, WordColumn
    >>> from metarl.fewshot.data.remarks import table_remarks
    >>> from metarl.fewshot.data.table_file import TextTable
    >>> table = TextTable(Path("new.csv"), pl.DataFrame({"city": ["Oslo", "rome"]}), range(1, 3))
    >>> table_remarks(table, [WordColumn("city", ("Oslo", "Rome"))], Reading())[0][:70]
    "new.csv, column 'city': 1 of 2 rows have a word that the training rows"
    """
    lines = []
    for column in columns:
        if isinstance(column, WordColumn):
            lines += _new_words(table, column, reading)
        elif isinstance(column, NumberColumn) and not column.has_missing:
            missing = int((~reading.present(table.cells(column.name))).sum())
            if missing:
                lines.append(
                    f"{table.path}, column {column.name!r}: {missing} of {len(table)} rows miss it, as no training row "
                    f"does: the median of the training, {column.median:g}, stands in"
                )
    return lines


def _new_words(table: TextTable, column: WordColumn, reading: Reading) -> list[str]:
    new = column.places(table, reading) == len(column.words)
    if not new.any():
        return []
    cells = table.cells(column.name).filter(pl.Series(new.numpy()))
    shown = ", ".join(repr(cell) if cell else "a missing one" for cell in cells.unique().sort().head(3))
    return [
        f"{table.path}, column {column.name!r}: {int(new.sum())} of {len(table)} rows have a word that the training "
        f"rows do not have, read as (other): {shown}"
    ]


def unlike_training(preprocessing: Preprocessing, raw: Tensor, features: Mapping[str, Sequence[int]]) -> list[str]:
    """Which numbers of the vectors `raw` `[n, D]` lie far from those of the training, or are much closer or wider.

    >>> from metarl.fewshot.data.remarks import unlike_training
    >>> from metarl.fewshot.preprocessing import Preprocessing
    >>> scaled = Preprocessing((1,), scale=(0.1,), shift=(-17.0,))  # heights of 170 ± 10
    >>> unlike_training(scaled, torch.tensor([[1.70], [1.82]]), {"height": [0]})[0][:59]
    'height: its median, 1.7, is 16.8 standard deviations of the'
    """
    mask = preprocessing.numeric or (True,) * preprocessing.shape[0]
    scaled = preprocessing(raw).double()
    lines = []
    for name, places in features.items():
        place = places[0]
        if not mask[place]:
            continue
        values = scaled[:, place]
        middle, wide = float(values.median()), float(values.std(correction=0))
        median = float(raw[:, place].median())
        if abs(middle) > FAR:
            lines.append(
                f"{name}: its median, {median:g}, is {abs(middle):.3g} standard deviations of the training "
                f"from the training's mean: is it in other units?"
            )
        elif len(values) >= FEWEST and len(values.unique()) > 2 and not NARROW <= wide <= 1 / NARROW:
            lines.append(
                f"{name}: its standard deviation is {wide:.3g} times that of the training: is it in other units?"
            )
    return lines


def all_remarks(
    preprocessing: Preprocessing, parts: Mapping[str, Tensor], features: Mapping[str, Sequence[int]] | None
) -> list[str]:
    """`unlike_training` of each of `parts`, the first lines; none for pictures, signals and what does not fit."""
    if len(preprocessing.shape) != 1 or any(tuple(part.shape[1:]) != preprocessing.shape for part in parts.values()):
        return []
    names = {f"input {i}": [i] for i in range(preprocessing.shape[0])} if features is None else features
    lines = []
    for what, part in parts.items():
        lines += unlike_training(preprocessing, part, {f"{name} of the {what}": at for name, at in names.items()})
    more = len(lines) - SHOWN
    return lines if more <= 0 else [*lines[:SHOWN], f"and {more} more columns of this kind"]
