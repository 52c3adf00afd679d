"""Observations of any Gymnasium space as those of the contract: vectors, pictures, or a dictionary of these."""

import abc
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from metarl.envs.gymnasium_answers import WrongAnswer, describe, other_space
from metarl.errors import UsageError
from metarl.spaces import EXACT_WHOLE_NUMBERS, same_spaces

Rows: TypeAlias = np.ndarray | dict[str, np.ndarray]
"""Observations of many environments, `[B, ...]`: an array, or one for each entry of a dictionary."""

MOST_CHOICES = 2**16
"""Choices of a discrete observation that a vector can still hold, one number each."""
CHANNELS = (1, 3, 4)
SMALLEST_GREY = 8
"""Sides of a grey picture: smaller arrays of bytes are boards, or stacks of vectors."""


class ObservationCodec:
    """Turns the observations of a Gymnasium space into those of `space`, and checks them on the way.

    - A space without pictures becomes one float32 vector `[D]`, in the order and with the numbers of
      `gymnasium.spaces.flatten`: one number for each choice of a `Discrete`, the entries of a `Dict` one after another.
    - Boxes of uint8 with two dimensions or more are pictures, `[H, W, C]` uint8. Grey ones `[H, W]` get a channel.
      Channels that come first, and stacks of frames, go last. Boxes of uint8 with one dimension, such as Atari's RAM,
      and those with two of which one is below 8, such as boards and stacks of RAM, are vectors of the numbers 0 to 255:
      nothing is divided.
    - A space with pictures becomes a `Dict` with an entry for each leaf, named by its path (`"hand.camera"`), or the
      picture alone if that is all there is.

    Raises `UsageError` for texts, graphs, sequences and other spaces that have no fixed number of numbers.

    >>> codec = ObservationCodec(gym.spaces.Dict(camera=Box(0, 255, (64, 64), np.uint8), door=Discrete(2)), "Maze-v0")
    >>> codec.encode({"camera": np.zeros((64, 64), np.uint8), "door": 1})["door"]
    array([0., 1.], dtype=float32)
    """

    def __init__(self, space: gym.Space, id: str):
        self._original = space
        self._leaves = [_leaf(path, leaf, space, id) for path, leaf in _paths(space, ())]
        if not self._leaves:
            raise UsageError(f"{id}: the observation space {space} is empty")
        has_pictures = any(isinstance(leaf, _Picture) for leaf in self._leaves)
        self._single = self._leaves[0] if len(self._leaves) == 1 else None
        self._parts: list[tuple[int, int]] = []
        if self._single is not None:
            self.space: gym.Space = self._single.box
        elif has_pictures:
            names = [leaf.name for leaf in self._leaves]
            if len(set(names)) < len(names):
                raise UsageError(f"{id}: two entries of the observations have the same path among {', '.join(names)}")
            self.space = gym.spaces.Dict({leaf.name: leaf.box for leaf in self._leaves})
        else:
            ends = np.cumsum([leaf.box.shape[0] for leaf in self._leaves]).tolist()
            self._parts = list(zip([0, *ends[:-1]], ends, strict=True))
            bounds = [np.concatenate([getattr(leaf.box, end) for leaf in self._leaves]) for end in ("low", "high")]
            self.space = Box(*bounds, dtype=np.float32)

    def mismatch(self, space: gym.Space) -> str | None:
        """What keeps the observations of `space` from being written here, whatever its bounds; None if nothing does."""
        return None if same_spaces(space, self._original) else other_space("observation", space, self._original)

    def write(self, observation: Any, rows: Rows, index: int) -> None:
        """Puts one observation into row `index`; raises `WrongAnswer` if it is not of the original space."""
        if self._single is not None and self._single.path == ():
            return self._single.write(observation, rows[index])  # type: ignore[index]
        values = _values(self._original, observation, "observation")
        if self._single is not None:
            self._single.write(next(values), rows[index])  # type: ignore[index]
        elif isinstance(rows, dict):
            for leaf, value in zip(self._leaves, values, strict=True):
                leaf.write(value, rows[leaf.name][index])
        else:
            row = rows[index]
            for leaf, value, (start, end) in zip(self._leaves, values, self._parts, strict=True):
                leaf.write(value, row[start:end])

    def encode(self, observation: Any) -> Rows:
        """One observation, as an array or a dictionary of arrays."""
        if isinstance(self.space, gym.spaces.Dict):
            rows = {name: np.empty((1, *box.shape), box.dtype) for name, box in self.space.spaces.items()}
            self.write(observation, rows, 0)
            return {name: row[0] for name, row in rows.items()}
        row = np.empty((1, *self.space.shape), self.space.dtype)
        self.write(observation, row, 0)
        return row[0]


class _Leaf(abc.ABC):
    """A part of an observation that is no dictionary or tuple, and the box that it becomes."""

    box: Box

    def __init__(self, path: tuple[str, ...], space: gym.Space):
        self.path = path
        self.name = ".".join(path)
        self._space = space
        self._words = f"observation[{self.name!r}]" if path else "observation"

    @abc.abstractmethod
    def write(self, value: Any, row: np.ndarray) -> None:
        """Checks `value` and writes it into `row`, of the box's shape."""

    def _array(self, value: Any, kinds: str) -> np.ndarray:
        """`value` as an array of the space's shape whose dtype is of one of `kinds`."""
        try:
            array = np.asarray(value)
        except (TypeError, ValueError):  # ragged lists, tensors on a GPU
            raise self._refusal(value) from None
        if array.shape != self._space.shape or array.dtype.kind not in kinds:
            raise self._refusal(value)
        return array

    def _refusal(self, value: Any) -> WrongAnswer:
        return WrongAnswer(f"returned {describe(value)} as {self._words}, but its observation_space has {self._space}")


class _Numbers(_Leaf):
    """A box of numbers, flattened."""

    def __init__(self, path: tuple[str, ...], space: Box, id: str):
        super().__init__(path, space)
        self._id = id
        with np.errstate(over="ignore"):  # the largest float64 becomes infinity, as it should
            low, high = (bound.astype(np.float32).reshape(-1) for bound in (space.low, space.high))
        self.box = Box(low, high, dtype=np.float32)
        self._warned = False

    def write(self, value: Any, row: np.ndarray) -> None:
        if type(value) is not np.ndarray or value.shape != self._space.shape or value.dtype.kind not in "fiub":
            value = self._array(value, "fiub")
        if value.dtype == np.float32:
            row[:] = value.reshape(-1)
            return
        if not self._warned and value.dtype.kind in "iu" and value.size and _magnitude(value) > EXACT_WHOLE_NUMBERS:
            self._warned = True
            warnings.warn(
                f"{self._id}: {self._words} holds the whole number {_magnitude(value)}: as float32 it may become one "
                f"of its neighbours, as all beyond {EXACT_WHOLE_NUMBERS} do",
                stacklevel=3,
            )
        with np.errstate(over="ignore"):
            row[:] = value.reshape(-1)


class _Choices(_Leaf):
    """A discrete or multi-discrete space: one number for each choice, 1 for those taken."""

    def __init__(self, path: tuple[str, ...], space: Discrete | MultiDiscrete, id: str):
        super().__init__(path, space)
        counts = np.atleast_1d(space.n if isinstance(space, Discrete) else space.nvec).reshape(-1).astype(np.int64)
        if counts.sum() > MOST_CHOICES:
            raise UsageError(
                f"{id}: {self._words} is one of {int(counts.sum())} choices, too many for a vector of one number each: "
                "turn it into numbers with wrappers=[lambda env: gymnasium.wrappers.TransformObservation(…)]"
            )
        self._counts = counts
        self._starts = np.broadcast_to(np.asarray(space.start).reshape(-1), counts.shape).astype(np.int64)
        self._offsets = np.cumsum(counts) - counts
        self.box = Box(0.0, 1.0, (int(counts.sum()),), np.float32)

    def write(self, value: Any, row: np.ndarray) -> None:
        chosen = self._array(value, "iub").reshape(-1).astype(np.int64) - self._starts
        if ((chosen < 0) | (chosen >= self._counts)).any():
            raise WrongAnswer(f"returned {value} as {self._words}, which is not in {self._space}")
        row[:] = 0
        row[self._offsets + chosen] = 1


class _Bits(_Leaf):
    """A multi-binary space, flattened."""

    def __init__(self, path: tuple[str, ...], space: MultiBinary):
        super().__init__(path, space)
        self.box = Box(0.0, 1.0, (math.prod(space.shape),), np.float32)

    def write(self, value: Any, row: np.ndarray) -> None:
        array = self._array(value, "iub")
        if ((array != 0) & (array != 1)).any():
            raise WrongAnswer(f"returned {value} as {self._words}, which is not in {self._space}")
        row[:] = array.reshape(-1)


class _Picture(_Leaf):
    """A box of uint8 with two to four dimensions, as `[H, W, C]`."""

    def __init__(self, path: tuple[str, ...], space: Box):
        super().__init__(path, space)
        self.box = Box(0, 255, _as_picture(np.empty(space.shape, np.uint8)).shape, np.uint8)

    def write(self, value: Any, row: np.ndarray) -> None:
        array = self._array(value, "iu")  # floats in 0 … 1 would all become black
        if array.dtype != np.uint8 and array.size and (array.min() < 0 or array.max() > 255):
            raise WrongAnswer(f"returned numbers outside 0 … 255 as {self._words}, but its observation_space has uint8")
        row[...] = _as_picture(array)


def _as_picture(array: np.ndarray) -> np.ndarray:
    """`[H, W]`, `[H, W, C]`, `[C, H, W]`, or a stack `[S, ...]` of the last two, as `[H, W, C]` or `[H, W, S·C]`."""
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim == 3:
        first, *others = array.shape
        channels_first = first < min(others) and others[-1] not in CHANNELS
        return np.moveaxis(array, 0, -1) if channels_first else array
    frames = np.stack([_as_picture(frame) for frame in array], axis=2)
    return frames.reshape(*frames.shape[:2], -1)


def _is_like_a_picture(space: Box) -> bool:
    if space.dtype != np.uint8 or not 2 <= len(space.shape) <= 4:
        return False
    return len(space.shape) > 2 or min(space.shape) >= SMALLEST_GREY


def _leaf(path: tuple[str, ...], space: gym.Space, whole: gym.Space, id: str) -> _Leaf:
    if isinstance(space, Discrete | MultiDiscrete):
        return _Choices(path, space, id)
    if isinstance(space, MultiBinary):
        return _Bits(path, space)
    if isinstance(space, Box) and _is_like_a_picture(space):
        return _Picture(path, space)
    if isinstance(space, Box) and space.dtype.kind in "fiub":
        return _Numbers(path, space, id)
    kind = f"of the kind {type(space).__name__}"
    others = [] if not isinstance(whole, gym.spaces.Dict) else [name for name in whole.spaces if name != path[0]]
    if others:
        raise UsageError(
            f"{id}: the entry {'.'.join(path)!r} of the observations is {kind}, which no network here reads: "
            f"leave it out with wrappers=[lambda env: gymnasium.wrappers.FilterObservation(env, {others!r})]"
        )
    raise UsageError(
        f"{id}: the observations are {kind}, which no network here reads: turn them into boxes with "
        "wrappers=[lambda env: gymnasium.wrappers.TransformObservation(env, function, space)]"
    )


def _paths(space: gym.Space, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], gym.Space]]:
    """The leaves of nested dictionaries and tuples, each with the way to it, in the order of `_values`."""
    if isinstance(space, gym.spaces.Dict):
        for name, entry in space.spaces.items():
            yield from _paths(entry, (*path, str(name)))
    elif isinstance(space, gym.spaces.Tuple):
        for index, entry in enumerate(space.spaces):
            yield from _paths(entry, (*path, str(index)))
    else:
        yield path, space


def _values(space: gym.Space, value: Any, words: str) -> Iterator[Any]:
    """The values of the leaves of an observation, whose structure it checks."""
    if isinstance(space, gym.spaces.Dict):
        if not (isinstance(value, Mapping) and value.keys() == space.spaces.keys()):
            wanted = ", ".join(repr(name) for name in space.spaces)
            raise WrongAnswer(f"returned {describe(value)} as {words}, but its observation_space is a Dict of {wanted}")
        for name, entry in space.spaces.items():
            yield from _values(entry, value[name], f"{words}[{name!r}]")
    elif isinstance(space, gym.spaces.Tuple):
        if not (isinstance(value, tuple | list) and len(value) == len(space.spaces)):
            raise WrongAnswer(
                f"returned {describe(value)} as {words}, but its observation_space is a Tuple of {len(space.spaces)}"
            )
        for index, entry in enumerate(space.spaces):
            yield from _values(entry, value[index], f"{words}[{index}]")
    else:
        yield value


def _magnitude(value: np.ndarray) -> int:
    return max(abs(int(value.min())), abs(int(value.max())))
