"""Checks of the numbers that options take. NaN lies in no range: comparisons alone would let it through."""

import math
from typing import TypeAlias

from metarl.errors import UsageError
from metarl.task_spaces import is_number

Bound: TypeAlias = float | int | None


def check_range(
    name: str,
    value: object,
    *,
    above: Bound = None,
    least: Bound = None,
    below: Bound = None,
    most: Bound = None,
) -> None:
    """Raises `UsageError` unless `value` is a number in the range whose ends are given, excluded or included.

    Infinity has to be allowed by its name: `most=math.inf`.

    >>> import math
    >>> from metarl.ranges import check_range
    >>> check_range("discount", 0.99, least=0, most=1)
    >>> check_range("max_gradient_norm", math.inf, above=0, most=math.inf)
    >>> check_range("lr", float("nan"), above=0)
    Traceback (most recent call last):
    metarl.errors.UsageError: lr must be a finite number above 0, got nan
    """
    number = float(value) if is_number(value) else math.nan  # type: ignore[arg-type]
    if _lies_in(number, above, least, below, most):
        return
    kind = "a number " if most == math.inf else "a finite number "
    kind = "" if math.isfinite(number) else kind
    raise UsageError(f"{name} must {_words(kind, above, least, below, most)}, got {value!r}")


def _lies_in(value: float, above: Bound, least: Bound, below: Bound, most: Bound) -> bool:
    if not math.isfinite(value) and not (value == math.inf == most):
        return False
    beyond_low = (above is None or value > above) and (least is None or value >= least)
    return beyond_low and (below is None or value < below) and (most is None or value <= most)


def _words(kind: str, above: Bound, least: Bound, below: Bound, most: Bound) -> str:
    """The range as it is said: "lie in [0, 1)", "be at least 0"."""
    low, high = (least if above is None else above), (most if below is None else below)
    if low is not None and high is not None and high != math.inf:
        return f"lie in {'[' if above is None else '('}{low:g}, {high:g}{']' if below is None else ')'}"
    if low is not None:
        return f"be {kind}{'at least' if above is None else 'above'} {low:g}"
    if high is not None and high != math.inf:
        return f"be {kind}{'at most' if below is None else 'below'} {high:g}"
    return f"be {kind.strip() or 'a finite number'}"
