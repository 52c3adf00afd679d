"""Numbers, dates and identifiers as people write them in tables: recognition of a whole column, never of one cell.

Each notation is a pattern. A column is read in the one notation that all its cells have. If several fit and give other
values, such as 1,234 with a decimal comma or with a thousands separator, nobody but the user can tell.
"""

import re
from dataclasses import dataclass
from typing import Literal

import polars as pl

Decimal = Literal[".", ","]


@dataclass(frozen=True)
class Notation:
    """A way to write numbers.

    >>> from metarl.fewshot.data.numerals import NOTATIONS
    >>> [notation.example for notation in NOTATIONS]
    ['1234.5', '1234,5', '1,234.5', '1.234,5', '1 234.5', '1 234,5']
    """

    example: str
    pattern: str
    decimal: Decimal
    thousands: str = ""
    """A class of characters that separate thousands; none if empty."""


def _grouped(thousands: str, decimal: str) -> str:
    return rf"[+-]?\d{{1,3}}(?:{thousands}\d{{3}})*(?:{decimal}\d+)?"


_SPACES = "[ '\u2019\u00a0\u202f]"
NOTATIONS = (
    Notation("1234.5", r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", "."),
    Notation("1234,5", r"[+-]?\d*,?\d+(?:[eE][+-]?\d+)?", ","),
    Notation("1,234.5", _grouped(",", r"\."), ".", ","),
    Notation("1.234,5", _grouped(r"\.", ","), ",", r"\."),
    Notation("1 234.5", _grouped(_SPACES, r"\."), ".", _SPACES),
    Notation("1 234,5", _grouped(_SPACES, ","), ",", _SPACES),
)
"""All notations, the plain one first."""

ISO_DATE = r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?"
"""Dates that can be read in one way only (ISO 8601)."""
OTHER_DATE = r"(?:\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}[./]\d{1,2}[./]\d{1,2})(?:[T ]\d{1,2}:\d{2}(?::\d{2})?)?"
"""Dates whose day and month may be swapped, or that no other row settles."""
CODE = r"[A-Za-z]{0,6}[-_ /]?\d+[A-Za-z]?"
"""What identifiers look like: P017, 2024-0815, A12b."""
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
"""A letter of a script that has no spaces between words."""
_NUMBER = r"[+-]?\d[\d.,' \x{a0}\x{202f}]*"
_CURRENCY = r"[$€£¥₹₩₽₺]"
_MEASURES = {
    "numbers with a currency": rf"{_CURRENCY} ?{_NUMBER}",
    "times of day": r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[AaPp]\.?[Mm]\.?)?",
    "pairs of numbers": r"\d+(?:[.,]\d+)? ?/ ?\d+(?:[.,]\d+)?",
    "months": r"\d{4}-(?:0[1-9]|1[0-2])",
}
_FIRST = 50
"""Cells that are tried first: most patterns do not fit one of them."""
_ID_NAME = re.compile(r"(?i:(?:^|[\W_])(?:id|uuid|guid|mrn|index|rownames))$|[a-z]I[dD]$")


def all_match(cells: pl.Series, pattern: str) -> bool:
    """Whether every cell is written as `pattern`."""
    whole = f"^(?:{pattern})$"
    first = cells.head(_FIRST)
    return bool(first.str.contains(whole).all()) and bool(cells.str.contains(whole).all())


def fitting_notations(cells: pl.Series, decimal: Decimal | None = None) -> list[Notation]:
    """The notations that all `cells` have, only those with the `decimal` mark if given. The plain one stands alone."""
    found = []
    for notation in NOTATIONS:
        if decimal in (None, notation.decimal) and all_match(cells, notation.pattern):
            if not notation.thousands and notation.decimal == (decimal or "."):
                return [notation]
            found.append(notation)
    return found


def measure(cells: pl.Series) -> str | None:
    """What different `cells` measure that are neither plain numbers nor words, such as "45 %"; None if nothing.

    >>> import polars as pl
    >>> from metarl.fewshot.data.numerals import measure
    >>> measure(pl.Series(["45 %", "7 %"])), measure(pl.Series(["8:30", "12:05"])), measure(pl.Series(["A1", "B2"]))
    ("numbers with the unit '%'", 'times of day', None)
    """
    for what, pattern in _MEASURES.items():
        if all_match(cells, pattern):
            return what
    unit = rf"^{_NUMBER}([^\d\s.,:/+-][^\d\s]*(?: [^\d\s]+)?)$"
    units = cells.head(_FIRST).str.extract(unit).unique()
    if len(units) != 1 or units[0] is None or units[0][0] in "eE" or cells.str.extract(unit).n_unique() != 1:
        return None
    return f"numbers with the unit {units[0]!r}"


def to_numbers(cells: pl.Series, notation: Notation) -> pl.Series:
    """The cells as numbers (float64); null for one that is not written in `notation`."""
    fits = cells.str.contains(f"^(?:{notation.pattern})$")
    text = cells.str.replace_all(notation.thousands, "") if notation.thousands else cells
    text = text.str.replace(",", ".", literal=True) if notation.decimal == "," else text
    return pl.select(pl.when(fits).then(text)).to_series().cast(pl.Float64, strict=False)


def to_days(cells: pl.Series) -> pl.Series:
    """ISO dates as days since 1970 (float64), in UTC if they name a zone; null for anything else."""
    fits = cells.str.contains(f"^(?:{ISO_DATE})$")
    day = cells.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Float64)
    hours = cells.str.extract(r"[T ](\d{2}):").cast(pl.Float64, strict=False).fill_null(0)
    minutes = cells.str.extract(r"[T ]\d{2}:(\d{2})").cast(pl.Float64, strict=False).fill_null(0)
    seconds = cells.str.extract(r"[T ]\d{2}:\d{2}:(\d{2}(?:\.\d+)?)").cast(pl.Float64, strict=False).fill_null(0)
    zone = [
        cells.str.extract(rf":\d{{2}}(?:\.\d+)?([+-]){part}$", 2) for part in (r"(\d{2}):?\d{2}", r"\d{2}:?(\d{2})")
    ]
    east = cells.str.extract(r":\d{2}(?:\.\d+)?([+-])\d{2}:?\d{2}$") != "-"
    ahead, more = (part.cast(pl.Float64, strict=False).fill_null(0) for part in zone)
    ahead = (ahead + more / 60) * (2.0 * east.fill_null(True).cast(pl.Float64) - 1)
    return pl.select(pl.when(fits).then(day + (hours - ahead) / 24 + minutes / 1440 + seconds / 86400)).to_series()


def named_like_an_identifier(name: str) -> bool:
    """Whether the name of a column says that it identifies something: id, patient_id, userId.

    >>> from metarl.fewshot.data.numerals import named_like_an_identifier
    >>> [named_like_an_identifier(name) for name in ("patient_id", "userId", "ID", "humid", "fluid")]
    [True, True, True, False, False]
    """
    return bool(_ID_NAME.search(name))
