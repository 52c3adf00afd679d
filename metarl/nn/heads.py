"""Distributions over actions, as functions of a network's output, with the derivatives that meta-gradients need.

Each head parametrises π(a | φ) by a tuple of tensors φ that the network outputs: mean and logarithm of the standard
deviation of a Gaussian, or the logits of a categorical distribution. `score` is ∂ log π / ∂φ for each sample,
`score_derivative` its derivative along R{φ}, `fisher` the Fisher matrix of π(· | φ) times R{φ}.
"""

import math
from typing import Protocol, runtime_checkable

import gymnasium as gym
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metarl.devices import Constant
from metarl.errors import UsageError

Phi = tuple[Tensor, ...]


@runtime_checkable
class Head(Protocol):
    """The interface of a distribution over actions. Every tensor of φ is broadcastable to `[M, n, size]`.

    >>> from metarl.nn.heads import GaussianHead, Head
    >>> isinstance(GaussianHead(2), Head)
    True
    """

    size: int
    """Outputs of the network."""
    scale_size: int
    """Entries of the state-independent parameter `log_std`; 0 if there is none."""

    def features(self, actions: Tensor) -> Float[Tensor, "... A"]: ...
    def sample(self, phi: Phi, generator: torch.Generator) -> Tensor: ...
    def log_prob(self, phi: Phi, actions: Tensor) -> Float[Tensor, "M n"]: ...
    def entropy(self, phi: Phi) -> Float[Tensor, "M n"]: ...
    def kl(self, old: Phi, new: Phi) -> Float[Tensor, "M n"]: ...
    def score(self, phi: Phi, actions: Tensor) -> Phi: ...
    def score_derivative(self, phi: Phi, actions: Tensor, r_phi: Phi) -> Phi: ...
    def fisher(self, phi: Phi, r_phi: Phi) -> Phi: ...


class GaussianHead:
    """Independent Gaussians; φ = (mean `[M, n, A]`, log standard deviation `[M, 1, A]` or `[M, n, A]`).

    φ is in units in which a bounded action space is [-1, 1]. An untrained network, whose outputs and standard
    deviations are of order one, thus explores the whole space, whatever the units of the environment.

    >>> from metarl.nn.heads import GaussianHead
    >>> head, phi = GaussianHead(2), (torch.zeros(3, 5, 2), torch.zeros(3, 1, 2))
    >>> head.log_prob(phi, head.sample(phi, torch.Generator())).shape
    torch.Size([3, 5])
    """

    def __init__(self, size: int, low: Tensor | None = None, high: Tensor | None = None):
        self.size = size
        self.scale_size = size
        centre, half_width = torch.zeros(size), torch.ones(size)
        if low is not None and high is not None:
            bounded = low.isfinite() & high.isfinite()
            centre = torch.where(bounded, (low + high) / 2, 0.0)
            half_width = torch.where(bounded, (high - low) / 2, 1.0)
        self._centre, self._half_width = Constant(centre), Constant(half_width)
        self._log_half_width = Constant(half_width.log())

    def features(self, actions: Float[Tensor, "... A"]) -> Float[Tensor, "... A"]:
        """Actions in the units of φ, which are also the inputs of recurrent policies."""
        return (actions - self._centre.like(actions)) / self._half_width.like(actions)

    def sample(self, phi: Phi, generator: torch.Generator) -> Float[Tensor, "M n A"]:
        mean, log_std = phi
        noise = torch.empty_like(mean).normal_(generator=generator)
        return self._centre.like(mean) + self._half_width.like(mean) * torch.addcmul(mean, noise, log_std.exp())

    def log_prob(self, phi: Phi, actions: Float[Tensor, "M n A"]) -> Float[Tensor, "M n"]:
        mean, log_std = phi
        z = (self.features(actions) - mean) * (-log_std).exp()
        volume = self._log_half_width.like(mean) + 0.5 * math.log(2 * math.pi)
        return (-0.5 * z.square() - log_std - volume).sum(-1)

    def entropy(self, phi: Phi) -> Float[Tensor, "M n"]:
        mean, log_std = phi
        constant = self._log_half_width.like(mean) + 0.5 * math.log(2 * math.pi * math.e)
        return (log_std + constant).expand_as(mean).sum(-1)

    def kl(self, old: Phi, new: Phi) -> Float[Tensor, "M n"]:
        """KL(old ‖ new)."""
        (old_mean, old_log_std), (mean, log_std) = old, new
        squares = (2 * old_log_std).exp() + (old_mean - mean).square()
        return (log_std - old_log_std + 0.5 * squares * (-2 * log_std).exp() - 0.5).sum(-1)

    def score(self, phi: Phi, actions: Float[Tensor, "M n A"]) -> Phi:
        """(z/σ, z² − 1) with z = (a − μ)/σ."""
        mean, log_std = phi
        inverse = (-log_std).exp()
        z = (self.features(actions) - mean) * inverse
        return z * inverse, z.square() - 1

    def score_derivative(self, phi: Phi, actions: Float[Tensor, "M n A"], r_phi: Phi) -> Phi:
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


class CategoricalHead:
    """One of `size` actions; φ = (logits `[M, n, size]`,).

    >>> from metarl.nn.heads import CategoricalHead
    >>> head, phi = CategoricalHead(4), (torch.zeros(3, 5, 4),)
    >>> head.entropy(phi)[0, 0]  # log 4
    tensor(1.3863)
    """

    scale_size = 0

    def __init__(self, size: int, start: int = 0):
        self.size = size
        self.start = start

    def features(self, actions: Shaped[Tensor, "..."]) -> Float[Tensor, "... A"]:
        """One-hot."""
        return torch.nn.functional.one_hot(actions - self.start, self.size).float()

    def sample(self, phi: Phi, generator: torch.Generator) -> Int[Tensor, "M n"]:
        (logits,) = phi
        # argmax(logits + Gumbel noise) is a draw from the softmax.
        waits = torch.empty_like(logits).exponential_(generator=generator)
        return (logits - waits.log()).argmax(-1) + self.start

    def log_prob(self, phi: Phi, actions: Shaped[Tensor, "M n"]) -> Float[Tensor, "M n"]:
        (logits,) = phi
        return logits.log_softmax(-1).gather(-1, (actions - self.start)[..., None])[..., 0]

    def entropy(self, phi: Phi) -> Float[Tensor, "M n"]:
        log_p = phi[0].log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)

    def kl(self, old: Phi, new: Phi) -> Float[Tensor, "M n"]:
        """KL(old ‖ new)."""
        old_log_p, log_p = old[0].log_softmax(-1), new[0].log_softmax(-1)
        return (old_log_p.exp() * (old_log_p - log_p)).sum(-1)

    def score(self, phi: Phi, actions: Shaped[Tensor, "M n"]) -> Phi:
        """One-hot of the action minus the probabilities."""
        (logits,) = phi
        chosen = torch.nn.functional.one_hot(actions - self.start, self.size)
        return (chosen - logits.softmax(-1),)

    def score_derivative(self, phi: Phi, actions: Shaped[Tensor, "M n"], r_phi: Phi) -> Phi:
        return tuple(-value for value in self.fisher(phi, r_phi))

    def fisher(self, phi: Phi, r_phi: Phi) -> Phi:
        """(diag p − p pᵀ) R{logits}."""
        p, (r_logits,) = phi[0].softmax(-1), r_phi
        return (p * (r_logits - (p * r_logits).sum(-1, keepdim=True)),)


def head_for(action_space: gym.Space) -> GaussianHead | CategoricalHead:
    """The head for `action_space`; raises `UsageError` for anything but a 1-D box or a discrete space."""
    if isinstance(action_space, gym.spaces.Discrete):
        return CategoricalHead(int(action_space.n), int(action_space.start))
    if isinstance(action_space, gym.spaces.Box) and len(action_space.shape) == 1:
        low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in (action_space.low, action_space.high))
        return GaussianHead(action_space.shape[0], low, high)
    raise UsageError(f"no policy for the action space {action_space}: want a 1-D Box or a Discrete space")
