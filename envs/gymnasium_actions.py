"""Actions of any Gymnasium space as those of the contract, and back."""

import abc
import math
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from metarl.envs.gymnasium_answers import other_space
from metarl.errors import UsageError
from metarl.spaces import UNBOUNDED


class ActionCodec:
    """Turns actions of the contract's `space` into those of a Gymnasium space.

    - Boxes of floats keep their shape and become float32; boxes of whole numbers become float32 boxes whose actions are
      rounded. Both are clipped to the environment's own bounds. Bounds of a million and more are left out of `space`.
    - `Discrete` stays as it is. `MultiDiscrete` and `MultiBinary` of any shape become flat, `[K]`.
    - `Dict` and `Tuple` become one flat `Tuple`, whose actions are float32 `[A]`: the numbers of all parts one after
      another. One that holds a single part becomes that part.

    What the environment gets lies in its own action space: structure, shapes and dtypes are its own.

    Raises `UsageError` for other spaces.

    >>> codec = ActionCodec(gym.spaces.Dict(gear=Discrete(3), pedal=Box(0.0, 1.0, (1,), np.float64)), "Car-v0")
    >>> codec.decode(np.float32([[2.0, 0.5]]))
    [{'gear': np.int64(2), 'pedal': array([0.5])}]
    """

    def __init__(self, space: gym.Space, id: str):
        self._original = space
        self._parts = [_part(leaf, id) for leaf in _leaves(space)]
        if not self._parts:
            raise UsageError(f"{id}: the action space {space} is empty")
        self._single = self._parts[0] if len(self._parts) == 1 else None
        self._bare = not isinstance(space, gym.spaces.Dict | gym.spaces.Tuple)
        if self._single is not None:
            self.space: gym.Space = self._single.space
        else:
            self.space = gym.spaces.Tuple([part.flat for part in self._parts])
        sizes = [part.size for part in self._parts]
        self._ends = np.cumsum(sizes).tolist()
        self._starts = [end - size for end, size in zip(self._ends, sizes, strict=True)]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one action."""
        return (self._ends[-1],) if self._single is None else self._single.space.shape

    @property
    def dtype(self) -> type[np.generic]:
        """float32, or int64 if all of an action is discrete."""
        return np.float32 if self._single is None or isinstance(self._single, _Numbers) else np.int64

    def mismatch(self, space: gym.Space) -> str | None:
        """What keeps actions in `space` from being those made here, bounds included; None if nothing does."""
        with np.errstate(over="ignore"):  # bounds at the largest float
            same = space == self._original
        return None if same else other_space("action", space, self._original)

    def decode(self, actions: np.ndarray) -> list[Any]:
        """Actions `[n, *shape]` as a list of `n` actions for environments. It shares no memory with `actions`."""
        if self._single is not None:
            decoded = self._single.decode(actions)
            return decoded if self._bare else [_assemble(self._original, iter((value,))) for value in decoded]
        columns = [
            part.decode(actions[:, start:end].reshape(-1, *part.space.shape))
            for part, start, end in zip(self._parts, self._starts, self._ends, strict=True)
        ]
        return [_assemble(self._original, iter(values)) for values in zip(*columns, strict=True)]


class _Part(abc.ABC):
    """A part of an action that is no dictionary or tuple."""

    space: gym.Space
    """What stands for it if it is all of an action."""
    flat: gym.Space
    """What stands for it beside others: boxes of one dimension."""
    size: int

    @abc.abstractmethod
    def decode(self, actions: np.ndarray) -> list[Any]:
        """Actions `[n, *space.shape]` as `n` values that the environment's own space contains."""


class _Numbers(_Part):
    def __init__(self, space: Box):
        self._dtype = space.dtype
        self._low, self._high = space.low, space.high
        if space.dtype.kind in "iu":
            high = space.high.astype(np.float64)
            beyond = high.astype(object) > space.high.astype(object)  # 2**63 - 1 rounds up to what int64 cannot hold
            self._high = np.where(beyond, np.nextafter(high, 0.0), high)
        self._computes = np.float32 if space.dtype == np.float32 else np.float64
        self.size = math.prod(space.shape)
        low, high = (_known_bound(bound) for bound in (space.low, space.high))
        self.space = Box(low, high, dtype=np.float32)
        self.flat = Box(low.reshape(-1), high.reshape(-1), dtype=np.float32)

    def decode(self, actions: np.ndarray) -> list[Any]:
        values = actions.astype(self._computes, copy=False)
        if self._dtype.kind != "f":
            values = np.rint(values)
        values = np.minimum(np.maximum(values, self._low), self._high).astype(self._dtype, copy=False)
        return [values[i, ...] for i in range(len(values))]


class _Choice(_Part):
    def __init__(self, space: Discrete):
        self._dtype = space.dtype
        self.space = self.flat = space
        self.size = 1

    def decode(self, actions: np.ndarray) -> list[Any]:
        return list(_whole(actions).astype(self._dtype, copy=False))


class _Choices(_Part):
    """Multi-discrete or multi-binary."""

    def __init__(self, space: MultiDiscrete | MultiBinary):
        self._shape, self._dtype = space.shape, space.dtype
        self.size = math.prod(space.shape)
        if len(space.shape) == 1:
            self.space: gym.Space = space
        elif isinstance(space, MultiBinary):
            self.space = MultiBinary(self.size)
        else:
            self.space = MultiDiscrete(space.nvec.reshape(-1), start=space.start.reshape(-1))
        self.flat = self.space

    def decode(self, actions: np.ndarray) -> list[Any]:
        return list(_whole(actions).reshape(-1, *self._shape).astype(self._dtype))


def _part(space: gym.Space, id: str) -> _Part:
    if isinstance(space, Discrete):
        return _Choice(space)
    if isinstance(space, MultiDiscrete | MultiBinary):
        return _Choices(space)
    if isinstance(space, Box) and space.dtype.kind in "fiub":
        return _Numbers(space)
    raise UsageError(
        f"{id}: actions in {space} cannot be chosen here: want boxes, discrete spaces, or a Dict or Tuple of these"
    )


def _leaves(space: gym.Space) -> Iterator[gym.Space]:
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        entries = space.spaces.values() if isinstance(space, gym.spaces.Dict) else space.spaces
        for entry in entries:
            yield from _leaves(entry)
    else:
        yield space


def _assemble(space: gym.Space, values: Iterator[Any]) -> Any:
    """One action with the structure of `space` from the values of its leaves."""
    if isinstance(space, gym.spaces.Dict):
        return {name: _assemble(entry, values) for name, entry in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_assemble(entry, values) for entry in space.spaces)
    return next(values)


def _known_bound(bound: np.ndarray) -> np.ndarray:
    """A bound in float32, infinite where it is so large that it bounds nothing."""
    wide = bound.astype(np.float64)
    return np.where(np.abs(wide) >= UNBOUNDED, np.copysign(np.inf, wide), wide).astype(np.float32)


def _whole(actions: np.ndarray) -> np.ndarray:
    return actions if actions.dtype.kind in "iu" else np.rint(actions).astype(np.int64)
