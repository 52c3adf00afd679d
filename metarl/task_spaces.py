"""Spaces of single task parameters: which values there are, how `Tasks` store them, and what an environment gets.

A parameter's space is a `Box`, `Discrete`, `MultiDiscrete` or `MultiBinary` of Gymnasium, a `LogUniform` or a `Choice`.
`Tasks` store values as tensors of the space's dtype; names are stored as their positions in `Choice.values`.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from metarl.errors import UsageError

INTEGERS = gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary
SHOWN = 8
"""The longest list of values that a message shows in full."""
_KINDS = {"U": "names", "b": "truth values", "i": "numbers", "u": "numbers", "f": "numbers"}


class Choice(gym.Space):
    """One of the listed values: numbers, arrays of one shape, truth values or names. Repeated values count once.

    `values` are the values as Python objects, `rows` `[n, ...]` the same as `Tasks` store them: float64, int64 or bool,
    and the positions 0 … n − 1 if the values are names (`named`, `positions`). Raises `UsageError` for an empty list,
    values of different kinds or shapes, and numbers that are not finite.

    >>> from metarl.task_spaces import Choice
    >>> Choice(["moon", "earth"]), Choice([0.5, 1, 2]).values
    (Choice(['moon', 'earth']), (0.5, 1.0, 2.0))
    """

    def __init__(self, values: Iterable[Any]):
        listed = list(values)
        if not listed:
            raise UsageError("want at least one value, got an empty list")
        kinds = sorted({_kind(value) for value in listed})
        if len(kinds) > 1:
            raise UsageError(f"want values of one kind, got {' and '.join(kinds)} in one list")
        self.named = kinds == ["names"]
        self.values: tuple[Any, ...]
        if self.named:
            self.values = tuple(dict.fromkeys(str(value) for value in listed))
            self.rows = np.arange(len(self.values))
        else:
            rows = _rows(listed)
            self.rows = rows[np.sort(np.unique(rows.reshape(len(rows), -1), axis=0, return_index=True)[1])]
            self.values = tuple(self.rows.tolist())
        self.rows.flags.writeable = False
        self.positions = {value: i for i, value in enumerate(self.values)} if self.named else {}
        self._keys = {row_key(row) for row in self.rows}
        super().__init__(self.rows.shape[1:], self.rows.dtype)

    def holds(self, row: np.ndarray | np.generic) -> bool:
        """Whether `row`, one value as `Tasks` store it, is of this space."""
        return row_key(row) in self._keys

    def contains(self, x: Any) -> bool:
        """Whether `x`, as a user writes it, is one of the values."""
        try:
            encode(self, x)
        except UsageError:
            return False
        return True

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> Any:
        """One of the values, all equally likely."""
        if mask is not None or probability is not None:
            raise UsageError("a Choice is sampled without mask or probability")
        return self.values[int(self.np_random.integers(len(self.values)))]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Choice) and (self.values, self.dtype) == (other.values, other.dtype)

    def __repr__(self) -> str:
        return f"Choice({list(self.values)})"


class LogUniform(gym.spaces.Box):
    """A positive number (float64) whose logarithm is uniform between those of `low` and `high`.

    Raises `UsageError` unless 0 < low <= high < ∞.

    >>> metarl.LogUniform(0.001, 10.0)
    LogUniform(0.001, 10.0)
    """

    def __init__(self, low: float | int, high: float | int):
        if not (is_number(low) and is_number(high) and 0 < low <= high < math.inf):
            raise UsageError(f"a log-uniform range needs 0 < low <= high, both finite, got ({low!r}, {high!r})")
        super().__init__(low, high, (), np.float64)

    def sample(self, mask: None = None, probability: None = None) -> np.ndarray:
        low, high = np.log(self.low), np.log(self.high)
        return np.asarray(np.clip(np.exp(self.np_random.uniform(low, high)), self.low, self.high))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LogUniform) and super().__eq__(other)

    def __repr__(self) -> str:
        return f"LogUniform({self.low.item()}, {self.high.item()})"


def bounds(space: gym.Space) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value of each number, both inclusive, as arrays of the space's shape and dtype."""
    if isinstance(space, gym.spaces.Discrete):
        low, high = space.start, space.start + space.n - 1
    elif isinstance(space, gym.spaces.MultiDiscrete):
        low, high = space.start, space.start + space.nvec - 1
    elif isinstance(space, gym.spaces.MultiBinary):
        low, high = np.zeros(space.shape), np.ones(space.shape)
    elif isinstance(space, gym.spaces.Box):
        low, high = space.low, space.high
    else:
        raise UsageError(f"{space} is no space of numbers")
    return np.asarray(low, space.dtype), np.asarray(high, space.dtype)


def is_bounded(space: gym.Space) -> bool:
    """Whether values can be drawn evenly: neither bound is infinite or the largest of its dtype, nor is the width.

    Gymnasium turns infinite bounds of whole numbers into the largest ones; those of up to 16 bits may be meant.
    """
    low, high = bounds(space)
    if low.dtype.kind in "iu":
        largest = np.iinfo(low.dtype)
        return low.dtype.itemsize < 4 or not ((low == largest.min) | (high == largest.max)).any()
    most = np.finfo(low.dtype).max
    with np.errstate(over="ignore", invalid="ignore"):
        width = high.astype(np.float64) - low
    return bool(((-most < low) & (high < most) & np.isfinite(width)).all())


def encode(space: gym.Space, value: Any) -> np.ndarray:
    """`value`, as a user or JSON writes it, as one row of `Tasks`.

    Raises `UsageError` for a wrong type or shape, and if a `Choice` does not list it. Ranges are left to `outside`.
    """
    row = _as_row(space, value)
    if row is None or (isinstance(space, Choice) and not space.holds(row)):
        raise UsageError(f"want {describe(space)}, got {value!r}")
    return row


def outside(space: gym.Space, rows: np.ndarray) -> Any | None:
    """A value in `rows` `[M, *space.shape]` that the space does not have; None if there is none."""
    if isinstance(space, Choice):
        return next((row.tolist() for row in rows if not space.holds(row)), None)
    low, high = bounds(space)
    inside = (rows >= low) & (rows <= high) & np.isfinite(rows)  # False for NaN
    if low.dtype.kind in "iu" and rows.dtype.kind == "f":
        inside &= rows == np.floor(rows)
    return None if inside.all() else rows[~inside].ravel()[0]


def decode(spaces: Mapping[str, gym.Space], row: Mapping[str, Any]) -> dict[str, Any]:
    """What an environment gets for one task of `Tasks`: names, Python numbers, arrays if a parameter has a shape."""
    return {name: _decode(spaces[name], value) for name, value in row.items()}


def describe(space: gym.Space) -> str:
    """What is wanted, for messages: "a number in [0, 1]", "one of 'moon', 'earth'"."""
    if isinstance(space, Choice):
        shown = ", ".join(map(repr, space.values[:SHOWN]))
        return f"one of {shown}" + (f", … ({len(space.values)} values)" if len(space.values) > SHOWN else "")
    low, high = bounds(space)
    whole = low.dtype.kind in "iu"
    if space.shape:
        kind = f"shape {space.shape}" + (" of whole numbers" if whole else "")
    else:
        kind = "a whole number" if whole else "a number"
    lowest, highest = np.unique(low), np.unique(high)
    if len(lowest) == len(highest) == 1:
        return f"{kind} in [{lowest[0]:g}, {highest[0]:g}]"
    return f"{kind} between {low.tolist()} and {high.tolist()}" if low.size <= SHOWN else kind


def is_number(value: Any) -> bool:
    """Whether `value` is one number of Python or NumPy; a truth value is none."""
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def exact_text(space: gym.Space) -> str:
    """A text that differs if the values do: Gymnasium's own rounds the bounds of arrays."""
    if isinstance(space, Choice | LogUniform):
        return repr(space)
    low, high = bounds(space)
    return f"{type(space).__name__}({low.tolist()}, {high.tolist()}, {space.dtype})"


def num_values(space: gym.Space) -> float:
    """The number of values; infinity for every `Box`, whose values are drawn one by one."""
    if isinstance(space, Choice):
        return float(len(space.values))
    if isinstance(space, gym.spaces.Box):
        return math.inf
    low, high = bounds(space)
    return math.prod((high.astype(np.float64) - low + 1).ravel().tolist())


def grid(space: gym.Space) -> np.ndarray:
    """Every value of a space of whole numbers, `[n, *space.shape]`, in the order of `itertools.product`."""
    low, high = bounds(space)
    sides = [range(int(a), int(b) + 1) for a, b in zip(low.flat, high.flat, strict=True)]
    return np.array(list(itertools.product(*sides)), low.dtype).reshape(-1, *low.shape)


def uniform(space: gym.Space, count: int, generator: torch.Generator) -> Tensor:
    """`count` values `[count, *space.shape]`, uniform, or log-uniform; bounds of integers are inclusive."""
    low, high = (torch.as_tensor(bound) for bound in bounds(space))
    share = torch.rand(count, *low.shape, generator=generator, dtype=torch.float64)
    if isinstance(space, LogUniform):
        return (low.log() + share * (high.log() - low.log())).exp().clamp(low, high)
    if low.dtype.is_floating_point:
        return (low + share * (high.double() - low)).to(low.dtype).clamp(low, high)
    return (low + (share * (high.double() - low + 1)).floor()).to(low.dtype)


def row_key(row: np.ndarray | np.generic) -> Any:
    """`row` as a hashable value, equal for equal numbers of any dtype."""
    return row.item() if row.ndim == 0 else tuple(row.ravel().tolist())


def _decode(space: gym.Space, value: Any) -> Any:
    if isinstance(space, Choice) and space.named:
        return space.values[int(value)]
    array = np.asarray(value)
    if np.dtype(space.dtype).kind in "iub":  # tasks made by hand may hold 1.0
        array = array.astype(space.dtype)
    return array.item() if array.ndim == 0 else array


def _as_row(space: gym.Space, value: Any) -> np.ndarray | None:
    """`value` in the space's dtype; None if it is not made of such numbers. A `Choice` also wants its own shape."""
    if isinstance(space, Choice) and space.named:
        return np.asarray(space.positions[value]) if isinstance(value, str) and value in space.positions else None
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # ragged
        return None
    dtype = np.dtype(space.dtype)
    if array.dtype.kind not in ("b" if dtype.kind == "b" else "iuf"):
        return None
    if isinstance(space, Choice) and array.shape != space.shape:
        return None
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are no whole numbers
        row = array.astype(dtype)
    return row if dtype.kind == "f" or bool((row == array).all()) else None


def _kind(value: Any) -> str:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # ragged
        array = np.empty(0)
    kind = _KINDS.get(array.dtype.kind)
    if kind is None or not array.size or (kind == "names" and array.ndim):
        raise UsageError(f"want numbers, names, truth values or arrays of one shape, got {value!r} in a list")
    return kind


def _rows(values: list[Any]) -> np.ndarray:
    arrays = [np.asarray(value) for value in values]
    shapes = list(dict.fromkeys(array.shape for array in arrays))
    if len(shapes) > 1:
        raise UsageError(f"want values of one shape, got {' and '.join(map(str, shapes))} in one list")
    kinds = {array.dtype.kind for array in arrays}
    dtype: type = np.bool_ if kinds == {"b"} else np.float64 if "f" in kinds else np.int64
    rows: np.ndarray = np.stack([array.astype(dtype) for array in arrays])
    if not np.isfinite(rows).all():
        raise UsageError(f"want finite numbers, got {rows[~np.isfinite(rows)][0]} in a list")
    if not all((row == array).all() for row, array in zip(rows, arrays, strict=True)):
        raise UsageError("want whole numbers below 2**63 in a list")
    return rows
