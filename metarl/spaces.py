"""Observation and action spaces of the environment contract, and batches of observations.

A batch of observations is a tensor, or a dictionary of tensors if the space is one. `map_tensors` applies a function to
either, so that code which moves observations around does not ask which it is.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from torch import Tensor

from metarl.errors import UsageError

Observations: TypeAlias = Tensor | dict[str, Tensor]
"""A batch of observations: vectors `[..., D]` (float32), pictures `[..., H, W, C]` (uint8), or a dict of these."""

UNBOUNDED = 1e6
"""A bound of an action space that is at least this large counts as none."""


def is_picture(space: gym.Space) -> bool:
    """Whether `space` is a box of pictures: uint8 of shape `[H, W, C]`."""
    return isinstance(space, gym.spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def is_vector(space: gym.Space) -> bool:
    """Whether `space` is a box of flat vectors: float32 of shape `[D]`."""
    return isinstance(space, gym.spaces.Box) and space.dtype == np.float32 and len(space.shape) == 1


def check_observation_space(space: gym.Space, id: str) -> None:
    """Raises `UsageError` unless `space` holds vectors, pictures or a dictionary of these; `id` names the family."""
    if is_vector(space) or is_picture(space):
        return
    wanted = "float32 vectors [D], uint8 pictures [H, W, C], or a Dict of these"
    if not isinstance(space, gym.spaces.Dict):
        raise UsageError(f"{id}: observations must be {wanted}, not {space}")
    if not space.spaces:
        raise UsageError(f"{id}: observations must be {wanted}, not an empty Dict")
    for name, entry in space.spaces.items():
        if not (is_vector(entry) or is_picture(entry)):
            raise UsageError(f"{id}: observations must be {wanted}, but the entry {name!r} is {entry}")


def check_action_space(space: gym.Space, id: str) -> None:
    """Raises `UsageError` unless `space` is one of the contract's action spaces; `id` names the family.

    They are `Box` (float32, any shape), `Discrete`, `MultiDiscrete` and `MultiBinary` (of one dimension), and a `Tuple`
    of several of these, in which boxes are of one dimension too.
    """
    parts = space.spaces if isinstance(space, gym.spaces.Tuple) else (space,)
    for part in parts:
        if isinstance(part, gym.spaces.Discrete):
            continue
        if isinstance(part, gym.spaces.Box) and part.dtype == np.float32 and (part is space or len(part.shape) == 1):
            continue
        if isinstance(part, gym.spaces.MultiDiscrete | gym.spaces.MultiBinary) and len(part.shape) == 1:
            continue
        raise UsageError(
            f"{id}: actions must be a Box of float32, Discrete, MultiDiscrete [K], MultiBinary [K] or a Tuple of these,"
            f" not {part}"
        )
    if not parts:
        raise UsageError(f"{id}: actions must not be an empty Tuple")


def map_tensors(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """`function` of the tensors, or a dictionary of what it returns for the entries of dictionaries with equal keys.

    >>> from metarl.spaces import map_tensors
    >>> map_tensors(len, {"goal": torch.zeros(3, 2), "camera": torch.zeros(3, 8, 8, 3)})
    {'goal': 3, 'camera': 3}
    """
    if isinstance(first, dict):
        return {name: function(value, *(other[name] for other in others)) for name, value in first.items()}
    return function(first, *others)


def entries(space: gym.Space) -> dict[str, gym.spaces.Box]:
    """The entries of an observation space by name; a space that is no dictionary is the only one, "observation"."""
    return dict(space.spaces) if isinstance(space, gym.spaces.Dict) else {"observation": space}


def named(observations: Observations) -> dict[str, Tensor]:
    """A batch of observations as a dictionary with the names of `entries`."""
    return observations if isinstance(observations, dict) else {"observation": observations}


def batch_shape(observations: Observations, ndim: int = 2) -> tuple[int, ...]:
    """The first `ndim` sizes of a batch: `(M, N)` for observations `[M, N, ...]`."""
    one = next(iter(observations.values())) if isinstance(observations, dict) else observations
    return tuple(one.shape[:ndim])


def same_spaces(one: gym.Space, other: gym.Space) -> bool:
    """Whether two spaces hold values of the same structure, shapes and numbers of choices, whatever their bounds."""
    if type(one) is not type(other) or one.shape != other.shape:
        return False
    if isinstance(one, gym.spaces.Dict):
        return one.spaces.keys() == other.spaces.keys() and all(same_spaces(one[k], other[k]) for k in one.spaces)
    if isinstance(one, gym.spaces.Tuple):
        return len(one.spaces) == len(other.spaces) and all(map(same_spaces, one.spaces, other.spaces))
    if isinstance(one, gym.spaces.Discrete):
        return (int(one.n), int(one.start)) == (int(other.n), int(other.start))
    if isinstance(one, gym.spaces.MultiDiscrete):
        return np.array_equal(one.nvec, other.nvec) and np.array_equal(one.start, other.start)
    return one.dtype == other.dtype
