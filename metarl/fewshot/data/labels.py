"""Columns of a table that name classes, groups or owners: each value gets a number, counted from 0."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.data.columns import Reading
from metarl.fewshot.data.numerals import NOTATIONS, to_numbers
from metarl.fewshot.data.table_file import TextTable

MIN_ROWS = 4
"""Fewest rows of a class: a support and a query example, in training and in the test."""


_UNSEEN = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
"""Characters that nobody sees."""


@dataclass(frozen=True)
class Labels:
    """The number of each row's value, and the values in the order of their numbers.

    >>> from metarl.fewshot.data.labels import Labels
    >>> Labels(torch.tensor([1, 0]), ["ill", "well"]).names
    ['ill', 'well']
    """

    codes: Int[Tensor, "n"]
    names: list[str]


def read_labels(table: TextTable, name: str, reading: Reading) -> Labels:
    """The labels; raises `UsageError` if they are not valid classes."""
    different = table.cells(name).unique(maintain_order=True)
    for cell, value in zip(different, to_numbers(different, NOTATIONS[0]), strict=True):
        if value is not None and not (math.isfinite(value) and value == int(value)):
            raise UsageError(f"{table.path}: label column {name!r} holds {cell}; want words or whole numbers")
    labels = read_codes(table, name, reading)
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


def read_codes(table: TextTable, name: str, reading: Reading) -> Labels:
    """Each cell's index among the distinct cells, which are sorted by number if all are numbers, else by name.

    Numbers that are equal are one: 1 and 1.0. Raises `UsageError` for a missing cell.
    """
    cells = table.cells(name)
    check_present(table, name, reading)
    different = cells.unique().sort().to_list()
    check_case(different, f"{table.path}: column {name!r}")
    names = plain_names(different)
    ordered = sorted(set(names), key=float) if _are_numbers(different) else names
    index = {value: number for number, value in enumerate(ordered)}
    place = {cell: index[value] for cell, value in zip(different, names, strict=True)}
    codes = cells.replace_strict(place, return_dtype=pl.Int64).to_numpy(writable=True)
    return Labels(torch.from_numpy(codes), ordered)


def plain_names(cells: list[str]) -> list[str]:
    """The names of labels: numbers in one notation, 1 for 1.0, if all are numbers, else as they are written.

    Numbers of more than 15 digits are names too: as numbers, two of them could be one.

    >>> from metarl.fewshot.data.labels import plain_names
    >>> plain_names(["1", "1.0"]), plain_names(["310101199001011234"])
    (['1', '1'], ['310101199001011234'])
    """
    if not _are_numbers(cells):
        return cells
    return [f"{value:.15g}" for value in to_numbers(pl.Series(cells), NOTATIONS[0])]


def _are_numbers(cells: list[str]) -> bool:
    """Whether all cells are numbers that can be told apart as such."""
    series = pl.Series(cells, dtype=pl.String)
    long = series.str.replace_all(r"\D|[eE].*", "").str.len_chars() > 15
    return not to_numbers(series, NOTATIONS[0]).has_nulls() and not (long & ~series.str.contains(r"[.eE]")).any()


def check_present(table: TextTable, name: str, reading: Reading) -> None:
    """Raises `UsageError` if a cell is missing."""
    cells = table.cells(name)
    missing = ~reading.present(cells)
    if missing.any():
        row = int(missing.arg_max() or 0)
        what = "empty" if cells[row] == "" else f"missing ({cells[row]})"
        raise UsageError(f"{table.place(row)}: column {name!r} is {what}; fill it in or drop the row")


def check_case(different: list[str], what: str) -> None:
    """Raises `UsageError` if two values differ in case, in spaces, or in how the same letters are encoded, alone."""
    seen: dict[str, str] = {}
    for value in different:
        letters = unicodedata.normalize("NFKC", value).casefold().translate(_UNSEEN)
        other = seen.setdefault(" ".join(letters.split()), value)
        if other != value:
            one, two = map(repr if value.isascii() and other.isascii() else ascii, (other, value))
            raise UsageError(f"{what} has {one} and {two}: write them alike")


def check_several(columns: Mapping[str, Labels], path: str) -> None:
    """Raises `UsageError` for a column of groups with one value alone: it is unlike nothing."""
    for column, found in columns.items():
        if len(found.names) == 1:
            raise UsageError(
                f"{path}: column {column!r} has {found.names[0]!r} in every row, and fairness is between two or more "
                f"groups: name it under --ignore instead"
            )


def listed(names: Sequence[str]) -> str:
    """The first names in a line, and how many there are if these are not all."""
    return ", ".join(names[:8]) + (f", … ({len(names)})" if len(names) > 8 else "")
