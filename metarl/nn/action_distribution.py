"""The interface of a distribution over actions, as a function of a network's output."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

Phi = tuple[Tensor, ...]
"""The parameters φ of a distribution: the network's outputs, and `log_std` if the head has a scale."""


@runtime_checkable
class Head(Protocol):
    """A distribution π(a | φ) over actions, with the derivatives that meta-gradients need.

    φ is a tuple: the outputs of a network `[M, n, size]` and, if `scale_size` is not 0, `log_std`, broadcastable to
    `[M, n, scale_size]`. Actions are `[M, n, *action_shape]`. `score` is ∂ log π / ∂φ for each sample,
    `score_derivative` its derivative along R{φ}, `fisher` the Fisher matrix of π(· | φ) times R{φ}, `kl` is
    KL(old ‖ new).

    >>> from metarl.nn.heads import GaussianHead, Head
    >>> isinstance(GaussianHead(2), Head)
    True
    """

    size: int
    """Outputs of the network, and features of an action."""
    scale_size: int
    """Entries of the state-independent parameter `log_std`, one for each Gaussian number; 0 if there is none."""
    action_shape: tuple[int, ...]
    """Shape of one action."""
    discrete: bool
    """Whether actions are int64 rather than floating-point numbers."""

    def features(self, actions: Shaped[Tensor, "..."]) -> Float[Tensor, "... F"]:
        """Actions `[..., *action_shape]` as inputs `[..., size]` of a recurrent policy, of order one."""

    def blank(self, like: Float[Tensor, "B ..."]) -> Shaped[Tensor, "B ..."]:
        """Valid actions, one for each row of `like`: what a memory holds before the first action."""

    def sample(self, phi: Phi, generator: torch.Generator) -> Shaped[Tensor, "M n ..."]: ...
    def log_prob(self, phi: Phi, actions: Shaped[Tensor, "M n ..."]) -> Float[Tensor, "M n"]: ...
    def entropy(self, phi: Phi) -> Float[Tensor, "M n"]: ...
    def kl(self, old: Phi, new: Phi) -> Float[Tensor, "M n"]: ...
    def score(self, phi: Phi, actions: Shaped[Tensor, "M n ..."]) -> Phi: ...
    def score_derivative(self, phi: Phi, actions: Shaped[Tensor, "M n ..."], r_phi: Phi) -> Phi: ...
    def fisher(self, phi: Phi, r_phi: Phi) -> Phi: ...
