"""Gaussians squashed into a bounded box by tanh (Haarnoja et al. 2018, "Soft actor-critic", appendix C)."""

import math

import gymnasium as gym
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metarl.devices import Constant
from metarl.parallel import normal_like
from metarl.spaces import explored_range

LOG_STD_RANGE = (-20.0, 2.0)
"""The range of the logarithm of the standard deviation before squashing, as in the paper's implementation."""


class SquashedGaussian:
    """u ~ N(μ, σ²), a = tanh u: actions in the unit box (-1, 1), and their place in the box `space`.

    A network's outputs are `[..., 2A]`: μ, then log σ, clamped to `LOG_STD_RANGE`. Actions of `space` are
    `[..., *shape]` with `A` numbers each. `explored_range` says what stands for missing bounds.

        log π(a) = Σ log N(u; μ, σ²) − log(1 − tanh² u),   log(1 − tanh² u) = 2 (log 2 − u − softplus(−2u))

    >>> from gymnasium.spaces import Box
    >>> from metarl.nn.squashed_gaussian import SquashedGaussian
    >>> head = SquashedGaussian(Box(0, 4, (2,)))
    >>> actions, log_probs = head.sample(torch.zeros(5, head.outputs), torch.Generator())
    >>> actions.shape, log_probs.shape, head.to_box(torch.tensor([-1.0, 0.5]))
    (torch.Size([5, 2]), torch.Size([5]), tensor([0., 3.]))
    """

    def __init__(self, space: gym.spaces.Box):
        self.shape = space.shape
        self.size = math.prod(space.shape)
        self.outputs = 2 * self.size
        low, high = explored_range(*(torch.as_tensor(bound).reshape(self.size) for bound in (space.low, space.high)))
        self._centre, self._half_width = Constant((low + high) / 2), Constant((high - low) / 2)

    def sample(
        self, outputs: Float[Tensor, "... P"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "... A"], Float[Tensor, "..."]]:
        """Actions in the unit box and the logarithm of their density there, both differentiable in `outputs`."""
        mean, log_std = self._parameters(outputs)
        noise = normal_like(mean, generator)
        unsquashed = torch.addcmul(mean, noise, log_std.exp())
        return unsquashed.tanh(), self._log_density(noise, log_std, unsquashed)

    def mode(self, outputs: Float[Tensor, "... P"]) -> Float[Tensor, "... A"]:
        """tanh μ: the action, in the unit box, of a policy that does not explore."""
        return self._parameters(outputs)[0].tanh()

    def log_prob(self, outputs: Float[Tensor, "... P"], actions: Float[Tensor, "... A"]) -> Float[Tensor, "..."]:
        """The logarithm of the density in the unit box at `actions`, which must lie inside (-1, 1)."""
        mean, log_std = self._parameters(outputs)
        unsquashed = actions.atanh()
        return self._log_density((unsquashed - mean) * (-log_std).exp(), log_std, unsquashed)

    def to_box(self, actions: Float[Tensor, "... A"]) -> Float[Tensor, "..."]:
        """Actions in the unit box as actions of the space."""
        moved = torch.addcmul(self._centre.like(actions), actions, self._half_width.like(actions))
        return moved.reshape(*moved.shape[:-1], *self.shape)

    def from_box(self, actions: Float[Tensor, "..."]) -> Float[Tensor, "... A"]:
        """Actions of the space as actions in the unit box; 0 for numbers whose bounds coincide."""
        flat = actions.reshape(*actions.shape[: actions.ndim - len(self.shape)], self.size)
        width = self._half_width.like(flat)
        return (flat - self._centre.like(flat)) / torch.where(width > 0, width, 1.0)

    def _parameters(self, outputs: Float[Tensor, "... P"]) -> tuple[Float[Tensor, "... A"], Float[Tensor, "... A"]]:
        mean, log_std = outputs.chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def _log_density(
        self, noise: Float[Tensor, "... A"], log_std: Float[Tensor, "... A"], unsquashed: Float[Tensor, "... A"]
    ) -> Float[Tensor, "..."]:
        gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        slope = 2 * (math.log(2) - unsquashed - F.softplus(-2 * unsquashed))
        return (gaussian - slope).sum(-1)
