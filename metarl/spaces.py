"""Observation and action spaces of the environment contract, and batches of observations.

A batch of observations is a tensor, or a dictionary of tensors if the space is one. `map_tensors` applies a function to
either, so that code which moves observations around does not ask which it is.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.errors import UsageError

Observations: TypeAlias = Shaped[Tensor, "..."] | dict[str, Tensor]
"""A batch of observations: vectors `[..., D]` (float32), pictures `[..., H, W, C]` (uint8), or a dict of these."""

UNBOUNDED = 1e6
"""A bound of an action space that is at least this large counts as none."""

EXACT_WHOLE_NUMBERS = 2**24
"""Float32 holds every whole number up to this one."""


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
    of several of these, in which boxes are of one dimension too. A box must reach within `UNBOUNDED` of 0.
    """
    parts = space.spaces if isinstance(space, gym.spaces.Tuple) else (space,)
    if not parts:
        raise UsageError(f"{id}: actions must not be an empty Tuple")
    for part in parts:
        name = " ".join(str(part).split())  # the bounds of large boxes fill several lines
        if not _is_action_space(part, alone=part is space):
            raise UsageError(
                f"{id}: actions must be a Box of float32, Discrete, MultiDiscrete [K], MultiBinary [K] or a Tuple of "
                f"these (with boxes [A]), not {name}"
            )
        if 0 in (part.shape or ()):
            raise UsageError(f"{id}: an action must hold one number or more, but {name} has none")
        if isinstance(part, gym.spaces.Box):
            if (part.low >= UNBOUNDED).any() or (part.high <= -UNBOUNDED).any():
                raise UsageError(
                    f"{id}: {name} lies beyond ±{UNBOUNDED:.0f}, which no policy explores: "
                    "rescale it (gymnasium.wrappers.RescaleAction)"
                )
        elif part is not space and not _exact_in_float32(part):
            raise UsageError(
                f"{id}: {name} in a Tuple has numbers beyond ±{EXACT_WHOLE_NUMBERS}, which float32 actions cannot tell "
                "apart: let it start at 0"
            )


def _is_action_space(space: gym.Space, alone: bool) -> bool:
    if isinstance(space, gym.spaces.Box):
        return space.dtype == np.float32 and (alone or len(space.shape) == 1)
    if isinstance(space, gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
        return len(space.shape) == 1
    return isinstance(space, gym.spaces.Discrete)


def _exact_in_float32(space: gym.Space) -> bool:
    if isinstance(space, gym.spaces.MultiBinary):
        return True
    assert isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete)
    first = np.asarray(space.start, np.float64)
    last = first + (space.n if isinstance(space, gym.spaces.Discrete) else space.nvec) - 1
    return bool((np.abs([first, last]) <= EXACT_WHOLE_NUMBERS).all())


def explored_range(
    low: Float[Tensor, "*shape"], high: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Where policies explore a box with these bounds, for each number: between its bounds, if it has both.

    A bound of at least `UNBOUNDED` counts as none. With one bound, the range is 2 wide from there; with none, it is
    [-1, 1].

    >>> from metarl.spaces import explored_range
    >>> explored_range(torch.tensor([0.0, 5.0, -1e38]), torch.tensor([0.3, torch.inf, 1e38]))
    (tensor([ 0.,  5., -1.]), tensor([0.3000, 7.0000, 1.0000]))
    """
    has_low, has_high = low.abs() < UNBOUNDED, high.abs() < UNBOUNDED
    bottom = torch.where(has_low, low, torch.where(has_high, high - 2, -1.0))
    top = torch.where(has_high, high, torch.where(has_low, low + 2, 1.0))
    return bottom, top


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
