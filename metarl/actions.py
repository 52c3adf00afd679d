"""Batches of actions: how those of an action space lie in a tensor, which of them are valid, and random ones."""

from typing import Any

import gymnasium as gym
import torch
from jaxtyping import Shaped
from torch import Tensor

from metarl.devices import Constant
from metarl.errors import UsageError
from metarl.parallel import draw_rows
from metarl.spaces import explored_range


class ActionFormat:
    """The tensors that hold the actions of `space`, one of the contract's action spaces.

    `shape` is that of one action. If actions are `discrete` (`Discrete`, `MultiDiscrete`, `MultiBinary`), they are
    int64, else float32. Those of a `Tuple` are the numbers of its parts one after another. `whole` marks the numbers
    that belong to discrete spaces: whole numbers from `low` to `high`. For the numbers of boxes, `low` and `high` are
    where to explore (`metarl.spaces.explored_range`). All three have `shape`.

    >>> from gymnasium.spaces import Box, Discrete, Tuple
    >>> from metarl.actions import ActionFormat
    >>> actions = ActionFormat(Tuple((Box(-1, 1, (2,)), Discrete(3))))
    >>> actions.draw((20, 10), torch.Generator()).shape
    torch.Size([20, 10, 3])
    """

    def __init__(self, space: gym.Space):
        self.space = space
        self.low, self.high = _range(space)
        self.shape = tuple(self.low.shape)
        self.whole = _whole(space)
        self.discrete = not self.low.dtype.is_floating_point
        self._low, self._high, self._whole = Constant(self.low), Constant(self.high), Constant(self.whole)

    def check(self, actions: Any, count: int) -> Shaped[Tensor, "B ..."]:
        """`actions` as they are, or as int64 if discrete; raises `UsageError` unless they are `count` valid ones.

        Values are checked on the CPU only: on a GPU the check would make the host wait at every step. A box has no
        wrong values but NaN and infinity: the environment clips the others.
        """
        if not isinstance(actions, Tensor):
            raise UsageError(f"actions must be a torch tensor, got {type(actions).__name__}")
        if tuple(actions.shape) != (count, *self.shape):
            raise UsageError(f"actions must have shape {[count, *self.shape]}, got {list(actions.shape)}")
        if self.discrete:
            if actions.dtype.is_floating_point or actions.dtype.is_complex or actions.dtype == torch.bool:
                raise UsageError(f"discrete actions must be integers, got {actions.dtype}")
            actions = actions.long()
        elif not actions.dtype.is_floating_point:
            raise UsageError(f"actions must be floating-point numbers, got {actions.dtype}")
        if actions.device.type == "cpu":
            self._check_values(actions)
        return actions

    def draw(self, batch: tuple[int, ...], generator: torch.Generator) -> Shaped[Tensor, "..."]:
        """Uniformly random actions `[*batch, *shape]` on the device of `generator`."""
        device = generator.device
        if isinstance(self.space, gym.spaces.Discrete):
            first = int(self.space.start)
            last = first + int(self.space.n)
            return draw_rows(
                batch, generator, lambda shape: torch.randint(first, last, shape, generator=generator, device=device)
            )
        precision = torch.float64 if self.discrete else torch.float32  # float32 cannot tell many choices apart
        share = draw_rows(
            (*batch, *self.shape),
            generator,
            lambda shape: torch.rand(*shape, generator=generator, device=device, dtype=precision),
        )
        low, high = self._low.like(share), self._high.like(share)
        choices = low + (share * (high - low + 1)).floor()
        drawn = torch.where(self._whole.on(device), choices, low + share * (high - low))
        drawn = drawn.minimum(high)  # rounding can lead beyond it
        return drawn.long() if self.discrete else drawn

    def _check_values(self, actions: Tensor) -> None:
        if not self.discrete and not bool(actions.isfinite().all()):
            raise UsageError("actions contain NaN or infinity")
        if isinstance(self.space, gym.spaces.Box):
            return
        wrong = self.whole & ((actions < self.low) | (actions > self.high) | (actions != actions.round()))
        if bool(wrong.any()):
            row, *column = wrong.nonzero()[0].tolist()
            place = tuple(column)
            which = f"actions[:, {column[0]}]" if column else "discrete actions"
            low, high = int(self.low[place]), int(self.high[place])
            found = actions[(row, *place)].item()
            raise UsageError(f"{which} must be whole numbers in [{low}, {high}], got {found}")


def _range(space: gym.Space) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each number of an action."""
    if isinstance(space, gym.spaces.Tuple):
        ranges = [_range(part) for part in space.spaces]
        low, high = (torch.cat([bounds[side].flatten().float() for bounds in ranges]) for side in (0, 1))
        return low, high
    if isinstance(space, gym.spaces.Box):
        return explored_range(torch.as_tensor(space.low), torch.as_tensor(space.high))
    if isinstance(space, gym.spaces.MultiBinary):
        return torch.zeros(space.shape, dtype=torch.int64), torch.ones(space.shape, dtype=torch.int64)
    assert isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete)
    count = space.n if isinstance(space, gym.spaces.Discrete) else space.nvec
    low = torch.as_tensor(space.start, dtype=torch.int64)
    return low, low + torch.as_tensor(count, dtype=torch.int64) - 1


def _whole(space: gym.Space) -> Tensor:
    """Whether each number of an action belongs to a discrete space."""
    if isinstance(space, gym.spaces.Tuple):
        return torch.cat([_whole(part).flatten() for part in space.spaces])
    return torch.full(tuple(space.shape or ()), not isinstance(space, gym.spaces.Box))
