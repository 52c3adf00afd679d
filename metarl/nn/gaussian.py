"""Gaussian actions, for boxes of any shape."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.devices import Constant
from metarl.nn.action_distribution import Phi
from metarl.parallel import normal_like
from metarl.spaces import explored_range


class GaussianHead:
    """Independent Gaussians; φ = (mean `[M, n, A]`, log standard deviation `[M, 1, A]` or `[M, n, A]`).

    Actions are `[M, n, *shape]` with `A` numbers each. φ is in units in which the box is [-1, 1]: an untrained network,
    whose outputs and standard deviations are of order one, thus explores the whole box, whatever the units of the
    environment. `explored_range` says what stands for missing bounds. Samples beyond the bounds are left to the
    environment, which clips them. A number whose bounds coincide has the unit 1.

    >>> from metarl.nn.heads import GaussianHead
    >>> head, phi = GaussianHead(2), (torch.zeros(3, 5, 2), torch.zeros(3, 1, 2))
    >>> head.log_prob(phi, head.sample(phi, torch.Generator())).shape
    torch.Size([3, 5])
    """

    discrete = False

    def __init__(self, shape: int | tuple[int, ...], low: Tensor | None = None, high: Tensor | None = None):
        self.action_shape: tuple[int, ...] = (shape,) if isinstance(shape, int) else shape
        self.size = self.scale_size = math.prod(self.action_shape)
        centre, half_width = torch.zeros(self.size), torch.ones(self.size)
        if low is not None and high is not None:
            low, high = explored_range(low.reshape(self.size), high.reshape(self.size))
            centre, half_width = (low + high) / 2, (high - low) / 2
            half_width = torch.where(half_width > 0, half_width, 1.0)
        self._centre, self._half_width = Constant(centre), Constant(half_width)
        self._is_unit = not bool(centre.any()) and bool((half_width == 1).all())
        """Whether φ's units are those of the actions, as for the box [-1, 1]."""
        self._log_half_width = Constant(half_width.log())

    def features(self, actions: Float[Tensor, "..."]) -> Float[Tensor, "... A"]:
        """Actions in the units of φ, which are also the inputs of recurrent policies."""
        flat = actions.reshape(*actions.shape[: actions.ndim - len(self.action_shape)], self.size)
        return flat if self._is_unit else (flat - self._centre.like(flat)) / self._half_width.like(flat)

    def blank(self, like: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        return like.new_zeros(len(like), *self.action_shape)

    def sample(self, phi: Phi, generator: torch.Generator) -> Float[Tensor, "M n ..."]:
        mean, log_std = phi
        noise = normal_like(mean, generator)
        flat = torch.addcmul(mean, noise, log_std.exp())
        if not self._is_unit:
            flat = self._centre.like(mean) + self._half_width.like(mean) * flat
        return flat.reshape(*flat.shape[:-1], *self.action_shape)

    def log_prob(self, phi: Phi, actions: Float[Tensor, "M n ..."]) -> Float[Tensor, "M n"]:
        mean, log_std = phi
        z = (self.features(actions) - mean) * (-log_std).exp()
        volume = self._log_half_width.like(mean) + 0.5 * math.log(2 * math.pi)
        return -0.5 * z.square().sum(-1) - (log_std + volume).sum(-1)

    def entropy(self, phi: Phi) -> Float[Tensor, "M n"]:
        mean, log_std = phi
        constant = self._log_half_width.like(mean) + 0.5 * math.log(2 * math.pi * math.e)
        return (log_std + constant).expand_as(mean).sum(-1)

    def kl(self, old: Phi, new: Phi) -> Float[Tensor, "M n"]:
        """KL(old ‖ new)."""
        (old_mean, old_log_std), (mean, log_std) = old, new
        scales = log_std - old_log_std + 0.5 * (2 * (old_log_std - log_std)).exp() - 0.5
        return scales.sum(-1) + 0.5 * ((old_mean - mean) * (-log_std).exp()).square().sum(-1)

    def score(self, phi: Phi, actions: Float[Tensor, "M n ..."]) -> Phi:
        """(z/σ, z² − 1) with z = (a − μ)/σ."""
        mean, log_std = phi
        inverse = (-log_std).exp()
        z = (self.features(actions) - mean) * inverse
        return z * inverse, z.square() - 1

    def score_derivative(self, phi: Phi, actions: Float[Tensor, "M n ..."], r_phi: Phi) -> Phi:
        """From R{z} = −R{μ}/σ − z R{log σ}."""
        (mean, log_std), (r_mean, r_log_std) = phi, r_phi
        inverse = (-log_std).exp()
        z = (self.features(actions) - mean) * inverse
        r_z = -r_mean * inverse - z * r_log_std
        return (r_z - z * r_log_std) * inverse, 2 * z * r_z

    def fisher(self, phi: Phi, r_phi: Phi) -> Phi:
        """Diagonal: 1/σ² for the mean, 2 for log σ."""
        (mean, log_std), (r_mean, r_log_std) = phi, r_phi
        return r_mean * (-2 * log_std).exp(), (2 * r_log_std).expand_as(mean)
