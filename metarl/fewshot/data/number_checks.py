"""Numbers that cannot be learned from as they stand: too close for float32, with codes among them, or one far off."""

import numpy as np
from jaxtyping import Float, Int

from metarl.errors import UsageError

MOST_ROUNDED = 0.01
"""Most that float32 may change a number, in units of the deviation of its column."""
MOST_WHOLE = 2.0**53 - 1
"""The largest whole number that a float of 64 bits tells from its neighbours."""
LARGEST = float(np.finfo(np.float32).max)
"""The largest number that is encoded."""
CODES = (99.0, 999.0, 9999.0, 99999.0, 999999.0)
"""Numbers that stand for a missing value in many files, with either sign."""
_FAR = 5.0
"""Ranges of the other numbers between them and a code."""
_WIDE = 100.0
"""The deviation of a column with numbers far out, in ranges of most of its numbers."""


def check_precision(values: Float[np.ndarray, "n"], what: str) -> None:
    """Raises `UsageError` if numbers differ by so little for their size that float32 mixes them up.

    >>> import numpy as np
    >>> from metarl.fewshot.data.number_checks import check_precision
    >>> try:
    ...     check_precision(1.7e9 + np.arange(60.0), "column 'time'")
    ... except metarl.UsageError as error:
    ...     print(str(error)[:53])
    column 'time' has numbers near 1700000030 that differ
    """
    if not np.abs(values).max() <= LARGEST:
        return  # `encode` refuses it
    wide = float(values.std())
    if 0 < wide < float(np.finfo(np.float32).tiny):
        raise UsageError(f"{what} has numbers that differ by about {wide:.3g}, too small for float32: multiply them")
    is_constant = wide <= 1e-13 * abs(float(values.mean()))  # but for the rounding of whoever computed it
    if not is_constant and float(np.abs(values - values.astype(np.float32)).max()) > MOST_ROUNDED * wide:
        raise UsageError(
            f"{what} has numbers near {values.mean():.10g} that differ by about {wide:.3g}, which float32 cannot tell "
            f"apart: subtract {values.min():.10g} from all"
        )


def check_integers(columns: Int[np.ndarray, "n D"], what: str) -> None:
    """Raises `UsageError` for a column of integers of which a float of 64 bits makes two one."""
    if not columns.size or max(abs(int(columns.min())), int(columns.max())) <= MOST_WHOLE:
        return
    for place, column in enumerate(columns.T, 1):
        if len(np.unique(column)) > len(np.unique(column.astype(np.float64))):
            raise UsageError(
                f"{what}, column {place} has whole numbers near {column[0]} that floats cannot tell apart: subtract "
                f"{column.min()} from all"
            )


def whole_numbers(values: Float[np.ndarray, "n"], what: str) -> Int[np.ndarray, "n"]:
    """Labels that are floats as integers; raises `UsageError` for the first that is missing or no whole number.

    >>> import numpy as np
    >>> from metarl.fewshot.data.number_checks import whole_numbers
    >>> whole_numbers(np.array([1.0, 3.0]), "y").tolist()
    [1, 3]
    """
    odd = ~(np.isfinite(values) & (values == np.round(values)) & (np.abs(values) <= MOST_WHOLE))
    if odd.any():
        row = int(odd.argmax())
        why = ", missing: drop the row or name it" if np.isnan(values[row]) else ", and below 2**53 if they are floats"
        raise UsageError(f"{what}: labels must be whole numbers or words, that of row {row + 1} is {values[row]}{why}")
    return values.astype(np.int64)


def odd_values(learned: Float[np.ndarray, "n"], values: Float[np.ndarray, "m"]) -> str:
    """What is odd about the numbers of a column, in words that follow its description; empty if nothing is.

    `learned` are those of the training rows, `values` all. A range is that of the middle nine tenths.

    >>> import numpy as np
    >>> from metarl.fewshot.data.number_checks import odd_values
    >>> ages = np.array([31.0, 45.0, 28.0, -999.0, 60.0, 52.0])
    >>> odd_values(ages, ages)[:52]
    '; -999 looks like a code for a missing value: if so,'
    """
    if not np.abs(values).max() <= LARGEST:
        return ""  # `encode` refuses it
    if learned.min() == learned.max():
        return "; all training rows have the same, so that it has no effect"
    for code in (sign * code for code in CODES for sign in (-1, 1)):
        others = values[values != code]
        if 0 < len(others) < len(values):
            low, middle, high = np.quantile(others, [0.05, 0.5, 0.95])
            if high > low and not low <= code <= high and abs(code - middle) > _FAR * (high - low):
                return f"; {code:.10g} looks like a code for a missing value: if so, say --missing with all such cells"
    low, middle, high = np.quantile(learned, [0.05, 0.5, 0.95])
    if learned.std() > _WIDE * (high - low) > 0:
        far = learned[np.abs(learned - middle).argmax()]
        return f"; {far:.6g} is so far from the others that beside it they look alike: correct it if it is wrong"
    return ""
