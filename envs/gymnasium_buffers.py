"""The arrays through which environments and the process that steps them exchange actions and what steps give."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Dict

from metarl.envs.gymnasium_actions import ActionCodec
from metarl.envs.gymnasium_observations import ObservationCodec, Rows

_ALIGNMENT = 64


@dataclass
class Buffers:
    """Arrays with a row for each of `num_envs` environments. Pictures are uint8, vectors float32, flags bool.

    >>> codecs = ObservationCodec(Box(-1, 1, (3,)), "Id"), ActionCodec(Discrete(2), "Id")
    >>> Buffers.in_memory(*codecs, 4, bytearray(Buffers.size(*codecs, 4))).observations.shape
    (4, 3)
    """

    num_envs: int
    actions: np.ndarray
    observations: Rows
    final_observations: Rows
    rewards: np.ndarray
    flags: np.ndarray
    """`[5, B]`, the rows that follow: the main process copies them at once."""

    def __post_init__(self) -> None:
        self.terminated, self.truncated, self.faults, self.success, self.success_seen = self.flags
        self._pairs = list(zip(_arrays(self.observations), _arrays(self.final_observations), strict=True))

    @classmethod
    def size(cls, observations: ObservationCodec, actions: ActionCodec, num_envs: int) -> int:
        """The bytes that they need."""
        return sum(_padded_size(shape, dtype) for shape, dtype in _layout(observations, actions, num_envs))

    @classmethod
    def in_memory(cls, observations: ObservationCodec, actions: ActionCodec, num_envs: int, memory: Any) -> "Buffers":
        """Arrays in `memory`, which may be shared with other processes."""
        arrays, start = [], 0
        for shape, dtype in _layout(observations, actions, num_envs):
            arrays.append(np.frombuffer(memory, dtype, math.prod(shape), start).reshape(shape))
            start += _padded_size(shape, dtype)
        first, rest = arrays[0], iter(arrays[1:])

        def rows() -> Rows:
            space = observations.space
            return {name: next(rest) for name in space.spaces} if isinstance(space, Dict) else next(rest)

        return cls(num_envs, first, rows(), rows(), next(rest), next(rest))

    def part(self, first: int, count: int) -> "Buffers":
        """Views of the rows of some environments."""

        own = slice(first, first + count)

        def rows(array: Rows) -> Rows:
            return {name: value[own] for name, value in array.items()} if isinstance(array, dict) else array[own]

        final_observations = rows(self.final_observations)
        return Buffers(
            count, self.actions[own], rows(self.observations), final_observations, self.rewards[own], self.flags[:, own]
        )

    def last_observations(self) -> dict[str, np.ndarray]:
        """The current observations as entries of a saved state."""
        if isinstance(self.observations, dict):
            return {f"last_observation.{name}": array for name, array in self.observations.items()}
        return {"last_observation": self.observations}

    def rows_not_finite(self, rows: Rows, index: int | None = None) -> list[int]:
        """The environments, or environment `index` if it is one, whose observations hold NaN or infinity."""
        part = slice(None) if index is None else slice(index, index + 1)
        found: set[int] = set()
        for array in _arrays(rows):
            if array.dtype == np.float32 and not np.isfinite(array[part]).all():
                found.update(np.flatnonzero(~np.isfinite(array[part]).all(axis=1)).tolist())
        return sorted(found) if index is None else [index] * bool(found)

    def mark_fault(self, i: int) -> None:
        """Makes the step of environment `i` a fault, whose last observation is the one before."""
        self.faults[i], self.rewards[i], self.success[i] = True, 0.0, False
        self.terminated[i], self.truncated[i] = False, True
        for current, final in self._pairs:
            final[i] = current[i]

    def copy_final(self) -> None:
        """Makes the last observations the current ones, which holds wherever the episode goes on."""
        for current, final in self._pairs:
            current[...] = final


def _arrays(rows: Rows) -> list[np.ndarray]:
    return list(rows.values()) if isinstance(rows, dict) else [rows]


def _layout(
    observations: ObservationCodec, actions: ActionCodec, num_envs: int
) -> list[tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of each array, in the order of the fields."""
    space: Any = observations.space
    boxes = list(space.spaces.values()) if isinstance(space, Dict) else [space]
    shapes: list[tuple[tuple[int, ...], Any]] = [((num_envs, *actions.shape), actions.dtype)]
    shapes += [((num_envs, *box.shape), box.dtype) for box in boxes] * 2
    shapes += [((num_envs,), np.float32), ((5, num_envs), np.bool_)]
    return [(shape, np.dtype(dtype)) for shape, dtype in shapes]


def _padded_size(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """The bytes of an array, up to the next multiple of `_ALIGNMENT`."""
    return -(-math.prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
