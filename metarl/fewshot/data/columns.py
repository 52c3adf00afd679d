"""What the columns of a table mean as inputs: numbers, dates, words; and what they are as network inputs.

A column is read as a whole. What can be read in two ways, or in none, is refused, and columns that only name their row
are left out: `Column.description` says how each column was read. Everything that is learned from the cells, such as the
median that stands in for a missing number, is learned from the training rows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.data.number_checks import check_precision, odd_values
from metarl.fewshot.data.numerals import (
    CODE,
    ISO_DATE,
    NOTATIONS,
    OTHER_DATE,
    UNSPACED,
    Decimal,
    Notation,
    all_match,
    fitting_notations,
    measure,
    named_like_an_identifier,
    to_numbers,
)
from metarl.fewshot.data.table_file import TextTable

MAX_WORDS = 100
"""Most different words in a column: more are names or texts, of which each stands for its row alone."""
MANY_CODES = 20
"""This many different codes in a column, or more, identify something."""
FEW_WORDS = 5
"""With fewer different cells, numbers with units may as well be words."""
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "NaT", "<NA>", "null", "NULL", "#N/A", "?")
"""Cells that mean a missing value."""
Role = Literal["number", "date", "word"]
_WHOLE = re.compile(r"^([+-]?\d+)\.0*$")
"""A whole number as programs write it that have no missing whole numbers."""


@dataclass(frozen=True)
class Reading:
    """How the user wants the cells of a table to be read.

    >>> from metarl.fewshot.data.columns import Reading
    >>> Reading(decimal=",").missing[1]
    'NA'
    """

    decimal: Decimal | None = None
    """The decimal mark of all numbers; recognised column by column if None."""
    missing: tuple[str, ...] = MISSING
    categorical: tuple[str, ...] = ()
    """Columns of codes, to be read as words."""
    numeric: tuple[str, ...] = ()
    """Columns of numbers, although they look like identifiers."""

    def present(self, cells: pl.Series) -> pl.Series:
        """A mask of the cells that are not missing. Empty ones are, whatever else is."""
        return ~cells.is_in(["", *self.missing])


@dataclass(frozen=True)
class NumberColumn:
    """Numbers, in one notation, or dates as days since 1970. A missing one is replaced by the median.

    >>> from metarl.fewshot.data.columns import NumberColumn
    >>> NumberColumn("age", "number", None, median=41.0, has_missing=True).width
    2
    """

    name: str
    role: Literal["number", "date"]
    notation: Notation | None
    """None for dates."""
    median: float
    """Of the training rows."""
    has_missing: bool
    """Whether training rows miss the value: then a second input is 1 for rows that do."""
    description: str = ""

    @property
    def width(self) -> int:
        """Inputs of the network."""
        return 2 if self.has_missing else 1

    @property
    def labels(self) -> list[str]:
        """What each input is."""
        return [self.name, f"{self.name} is missing"][: self.width]

    @property
    def is_numeric(self) -> list[bool]:
        """Whether each input is to be standardised."""
        return [True, False][: self.width]

    def encode(self, table: TextTable, reading: Reading) -> Float[Tensor, "n W"]:
        """The column of `table` as inputs; raises `UsageError` for a cell that is no number or date."""
        cells = table.cells(self.name)
        present = reading.present(cells)
        values = table.values(self.name, self.notation)
        _check_numbers(table, self.name, cells, present, values, self.role)
        numbers = torch.from_numpy(values.set(~present, self.median).to_numpy(writable=True)).float()
        if not numbers.isfinite().all():
            row = int((~numbers.isfinite()).nonzero()[0, 0])
            raise UsageError(f"{table.place(row)}: column {self.name!r} is {cells[row]}, too large for float32")
        missing = torch.from_numpy(~present.to_numpy()).float()
        return torch.stack([numbers, missing][: self.width], 1)


@dataclass(frozen=True)
class WordColumn:
    """Words: one 0/1 input each, and one for any word that the training rows do not have. Missing is a word.

    >>> from metarl.fewshot.data.columns import WordColumn
    >>> WordColumn("city", ("Oslo", "Rome")).labels
    ['city = Oslo', 'city = Rome', 'city = (other)']
    """

    role: ClassVar[Literal["word"]] = "word"
    name: str
    words: tuple[str, ...]
    """The words of the training rows, sorted; "" stands for a missing one."""
    description: str = ""

    @property
    def width(self) -> int:
        return len(self.words) + 1

    @property
    def labels(self) -> list[str]:
        return [f"{self.name} = {word or '(missing)'}" for word in (*self.words, "(other)")]

    @property
    def is_numeric(self) -> list[bool]:
        return [False] * self.width

    def encode(self, table: TextTable, reading: Reading) -> Float[Tensor, "n W"]:
        """The column of `table` as inputs."""
        return torch.eye(self.width)[self.places(table, reading)]

    def places(self, table: TextTable, reading: Reading) -> Int[Tensor, "n"]:
        """The place in `words` of each cell; their number for a word that is not there.

        A word that is not there as it is written may be there in another notation: 1.0 for 1, TRUE for True.
        """
        place = {word: index for index, word in enumerate(self.words)}
        same: dict[str, int] = {}
        for word, number in place.items():
            same.setdefault(_plain_word(word), number)
        words = _words(table.cells(self.name), reading)
        found = {word: place.get(word, same.get(_plain_word(word), len(self.words))) for word in words.unique()}
        index = words.replace_strict(found, return_dtype=pl.Int64)
        return torch.from_numpy(index.to_numpy(writable=True))


@dataclass(frozen=True)
class LeftOut:
    """A column that is no input.

    >>> from metarl.fewshot.data.columns import LeftOut
    >>> LeftOut("row", "left out, as it numbers the rows").name
    'row'
    """

    name: str
    description: str
    repeats: bool = field(default=False, compare=False)
    """Whether it looks like an identifier of which several rows have the same one, such as a patient with visits."""


Column = NumberColumn | WordColumn | LeftOut


def read_column(table: TextTable, name: str, training: Bool[Tensor, "n"], reading: Reading) -> Column:
    """What the column `name` is; `training` are the rows to learn its words and its median from.

    Raises `UsageError` if it can be read in two ways, mixes numbers with words, or has more than `MAX_WORDS` words.
    """
    cells = table.cells(name)
    present = reading.present(cells)
    given = cells.filter(present)
    if not len(given):
        return LeftOut(name, "left out, as all its cells are missing")
    if name in reading.categorical:
        return _word_column(table, name, training, reading)
    different = given.unique(maintain_order=True)  # what all cells are alike is seen from these
    found = fitting_notations(different, reading.decimal)
    if not found and name not in reading.numeric and len(different) >= MANY_CODES and is_free_text(given):
        raise UsageError(
            f"{table.path}: column {name!r} holds free text, such as {given[0][:40]!r}: read it with --text {name}, or "
            f"leave it out with --ignore {name}"
        )
    if not found and name not in reading.numeric:
        _check_measure(table, name, different)
    identifier = None if name in reading.numeric else _identifier(table, name, given, different)
    if identifier is not None:
        return identifier
    if found and name not in reading.numeric and different.str.contains(r"^0\d+$").any():
        example = different.filter(different.str.contains(r"^0\d+$"))[0]
        raise UsageError(
            f"{table.path}: column {name!r} has whole numbers that begin with 0, such as {example}, as codes do: say "
            f"--numeric {name} for numbers, --categorical {name} for codes, or --ignore {name}"
        )
    if all_match(different, ISO_DATE):
        return _number_column(table, name, training, reading, None)
    if not found and different.str.contains(f"^(?:{ISO_DATE})$").any():
        _check_numbers(table, name, cells, present, table.values(name, None), "date")
    if not found and all_match(different, OTHER_DATE):
        raise UsageError(
            f"{table.path}: column {name!r} holds dates such as {given[0]}, of which day and month may be swapped: "
            f"write them as 2024-12-31, or name the column under --ignore or --categorical"
        )
    notation = _notation(table, name, given, different, found, reading)
    if notation is None:
        return _word_column(table, name, training, reading)
    return _number_column(table, name, training, reading, notation)


def _notation(
    table: TextTable, name: str, given: pl.Series, different: pl.Series, found: Sequence[Notation], reading: Reading
) -> Notation | None:
    """The notation of a column of numbers, of those `found`; None for words.

    Raises `UsageError` for two notations or a mixture.
    """
    if len(found) == 1:
        return found[0]
    if found:
        values = [to_numbers(given, notation) for notation in found]
        if all(other.equals(values[0]) for other in values[1:]):
            return found[0]
        row = int((values[0] != values[1]).arg_max() or 0)
        read = " or ".join(f"{value[row]:.10g}" for value in values[:2])
        raise UsageError(
            f"{table.path}: column {name!r} holds {given[row]}, which is {read}: say which with --decimal . or "
            f"--decimal ,"
        )
    plain = NOTATIONS[0] if reading.decimal in (None, ".") else NOTATIONS[1]
    if all(to_numbers(different, each).is_null().all() for each in (plain, *NOTATIONS)):
        if name in reading.numeric:
            raise UsageError(f"{table.path}: column {name!r} has no number, but --numeric names it")
        return None
    numbers = max((table.values(name, each) for each in (plain, *NOTATIONS)), key=lambda v: v.is_not_null().sum())
    cells = table.cells(name)
    _check_numbers(table, name, cells, reading.present(cells), numbers, "number")
    raise UsageError(
        f"{table.path}: column {name!r} writes its numbers in several ways; correct it or use --categorical"
    )


def _check_numbers(
    table: TextTable, name: str, cells: pl.Series, present: pl.Series, values: pl.Series, role: Role
) -> None:
    """Raises `UsageError` for the first cell that is not missing and has no value."""
    wrong = present & values.is_null()
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise UsageError(
            f"{table.place(row)}: column {name!r} has {role}s, but here {cells[row]!r}; correct it, list it under "
            f"--missing, or name the column under --categorical"
        )


def _check_measure(table: TextTable, name: str, different: pl.Series) -> None:
    """Raises `UsageError` for numbers with units, times of day and the like, which are no words."""
    what = measure(different) if len(different) >= FEW_WORDS and not named_like_an_identifier(name) else None
    if what is not None:
        raise UsageError(
            f"{table.path}: column {name!r} has {what}, such as {different[0]!r}: write plain numbers, or name the "
            f"column under --categorical or --ignore"
        )


def _identifier(table: TextTable, name: str, given: pl.Series, distinct: pl.Series) -> LeftOut | None:
    """The column, left out, if it numbers the rows or looks like an identifier; `distinct` are its different cells."""
    different = len(distinct)
    integers = to_numbers(given, NOTATIONS[0]) if all_match(distinct, r"\d+(?:\.0+)?") else None
    if integers is not None and len(integers) == len(table) > 2 and (np.diff(integers.to_numpy()) == 1).all():
        return LeftOut(name, "left out, as it numbers the rows")
    named = named_like_an_identifier(name) and (integers is not None or different > 2)
    coded = integers is None and different >= MANY_CODES and all_match(distinct, CODE) and not _has_numbers(distinct)
    own = integers is None and different == len(given) >= MANY_CODES and not _has_numbers(distinct)
    if not (named or coded or own):
        return None
    if different == len(given):
        return LeftOut(name, "left out, as it identifies rows")
    hint = f"--split-by {name} keeps the rows of each on one side of the split"
    return LeftOut(name, f"left out, as it looks like an identifier, of {different} different; {hint}", repeats=True)


def is_free_text(given: pl.Series) -> bool:
    """Whether most cells have three words or more, or six letters of a script that has no spaces between words."""
    is_text = (given.str.count_matches(r"\pL+") >= 3) | (given.str.count_matches(UNSPACED) >= 6)
    return 2 * int(is_text.sum()) > len(given)


def _has_numbers(given: pl.Series) -> bool:
    """Whether any cell is a number or a date, so that the column is none of mere names."""
    patterns = [ISO_DATE, OTHER_DATE, *(notation.pattern for notation in NOTATIONS)]
    return any(given.str.contains(f"^(?:{pattern})$").any() for pattern in patterns)


def _number_column(
    table: TextTable, name: str, training: Bool[Tensor, "n"], reading: Reading, notation: Notation | None
) -> NumberColumn | LeftOut:
    cells = table.cells(name)
    present = reading.present(cells)
    values = table.values(name, notation)
    role: Literal["number", "date"] = "date" if notation is None else "number"
    _check_numbers(table, name, cells, present, values, role)
    learned = values.filter(pl.Series(training.numpy()) & present)
    if not len(learned):
        return LeftOut(name, "left out, as every training row misses it")
    missing = int((~present).sum())
    has_missing = bool((~present & pl.Series(training.numpy())).any())
    given = cells.filter(present)
    order = values.filter(present)
    if notation is not None:
        _check_digits(table, name, given)
    of = f"{table.path}: column {name!r}" + (" of dates, in days since 1970," if notation is None else "")
    check_precision(learned.to_numpy(), of)
    low, high = given[int(order.arg_min() or 0)], given[int(order.arg_max() or 0)]
    odd = odd_values(learned.to_numpy(), order.to_numpy())
    written = "" if notation is None or notation is NOTATIONS[0] else f", written as {notation.example}"
    absent = f", {missing} missing (the median stands in)" if missing else ""
    description = f"{role}s from {low} to {high}{written}{absent}{odd}"
    return NumberColumn(name, role, notation, float(learned.median()), has_missing, description)  # type: ignore[arg-type]


def _check_digits(table: TextTable, name: str, given: pl.Series) -> None:
    """Raises `UsageError` for whole numbers with more digits than a number of 64 bits has, of which two become one."""
    long = given.filter(given.str.contains(r"^[+-]?\d{16,}$")).unique(maintain_order=True)
    if len(long) > long.cast(pl.Float64).n_unique():
        raise UsageError(
            f"{table.path}: column {name!r} has whole numbers with too many digits to be told apart, such as "
            f"{long[0]}: subtract what they have in common, or name the column under --categorical or --ignore"
        )


def _word_column(table: TextTable, name: str, training: Bool[Tensor, "n"], reading: Reading) -> WordColumn:
    words = _words(table.cells(name), reading)
    written: dict[str, str] = {}  # the first notation of each word
    for word in words.unique().sort():
        written.setdefault(_plain_word(word), word)
    words = words.replace_strict({word: written[_plain_word(word)] for word in words.unique()}, return_dtype=pl.String)
    learned: Sequence[str] = words.filter(pl.Series(training.numpy())).unique().sort().to_list()
    if len(learned) > MAX_WORDS:
        raise UsageError(
            f"{table.path}: column {name!r} has {len(learned)} different words, more than {MAX_WORDS}; "
            f"leave it out with --ignore {name}, or read it as free text with --text {name}"
        )
    shown = " | ".join(word or "(missing)" for word in learned[:5]) + (" | …" if len(learned) > 5 else "")
    shown += "; all training rows have the same, so that it says nothing" if len(learned) == 1 else ""
    unseen = words.n_unique() - len(learned)
    other = f"; {unseen} more in the test rows alone, read as (other)" if unseen else ""
    return WordColumn(name, tuple(learned), f"{len(learned)} words: {shown}{other}")


def _plain_word(word: str) -> str:
    """A word without what programs change when they write it: 1.0 is 1, and TRUE is true."""
    lower = word.lower()
    return lower if lower in ("true", "false") else _WHOLE.sub(r"\1", word)


def _words(cells: pl.Series, reading: Reading) -> pl.Series:
    """The cells with "" for all that are missing."""
    return cells.set(~reading.present(cells), "")
