"""Actions of several parts, such as a steering angle and a gear, each with its own distribution."""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.nn.action_distribution import Head, Phi


class ProductHead:
    """Independent `parts`; actions are `[M, n, A]`, the numbers of the parts one after another, all floating-point.

    φ = (outputs of the parts `[M, n, size]`, log standard deviations of the Gaussian parts) or, if no part is Gaussian,
    (outputs,). log π, entropy and KL are sums over the parts, and derivatives stay within each part.

    >>> from metarl.nn.heads import CategoricalHead, GaussianHead, ProductHead
    >>> head = ProductHead([GaussianHead(2), CategoricalHead(3)])
    >>> phi = (torch.zeros(4, 5, 2 + 3), torch.zeros(4, 1, 2))
    >>> head.sample(phi, torch.Generator()).shape
    torch.Size([4, 5, 3])
    """

    discrete = False

    def __init__(self, parts: Sequence[Head]):
        self.parts = tuple(parts)
        self._sizes = [part.size for part in self.parts]
        self._scale_sizes = [part.scale_size for part in self.parts]
        self._widths = [math.prod(part.action_shape) for part in self.parts]
        self.size, self.scale_size = sum(self._sizes), sum(self._scale_sizes)
        self.action_shape: tuple[int, ...] = (sum(self._widths),)

    def features(self, actions: Float[Tensor, "... A"]) -> Float[Tensor, "... F"]:
        """The features of the parts, one after another."""
        return torch.cat([part.features(own) for part, own in self._actions(actions)], dim=-1)

    def blank(self, like: Float[Tensor, "B ..."]) -> Float[Tensor, "B A"]:
        return self._flat([part.blank(like) for part in self.parts], like)

    def sample(self, phi: Phi, generator: torch.Generator) -> Float[Tensor, "M n A"]:
        return self._flat([part.sample(own, generator) for part, own in self._phis(phi)], phi[0])

    def log_prob(self, phi: Phi, actions: Float[Tensor, "M n A"]) -> Float[Tensor, "M n"]:
        each = zip(self._phis(phi), self._actions(actions), strict=True)
        return _sum(part.log_prob(own, action) for (part, own), (_, action) in each)

    def entropy(self, phi: Phi) -> Float[Tensor, "M n"]:
        return _sum(part.entropy(own) for part, own in self._phis(phi))

    def kl(self, old: Phi, new: Phi) -> Float[Tensor, "M n"]:
        """KL(old ‖ new)."""
        pairs = zip(self._phis(old), self._phis(new), strict=True)
        return _sum(part.kl(own_old, own_new) for (part, own_old), (_, own_new) in pairs)

    def score(self, phi: Phi, actions: Float[Tensor, "M n A"]) -> Phi:
        each = zip(self._phis(phi), self._actions(actions), strict=True)
        return _joined([part.score(own, action) for (part, own), (_, action) in each])

    def score_derivative(self, phi: Phi, actions: Float[Tensor, "M n A"], r_phi: Phi) -> Phi:
        each = zip(self._phis(phi), self._actions(actions), self._phis(r_phi), strict=True)
        return _joined([part.score_derivative(own, a, r_own) for (part, own), (_, a), (_, r_own) in each])

    def fisher(self, phi: Phi, r_phi: Phi) -> Phi:
        pairs = zip(self._phis(phi), self._phis(r_phi), strict=True)
        return _joined([part.fisher(own, r_own) for (part, own), (_, r_own) in pairs])

    def _phis(self, phi: Phi) -> Iterator[tuple[Head, Phi]]:
        """Each part and its φ."""
        outputs = phi[0].split(self._sizes, -1)
        scales = phi[1].split(self._scale_sizes, -1) if self.scale_size else outputs
        for part, output, scale in zip(self.parts, outputs, scales, strict=True):
            yield part, (output, scale) if part.scale_size else (output,)

    def _actions(self, actions: Float[Tensor, "... A"]) -> Iterator[tuple[Head, Tensor]]:
        """Each part and its actions, in their own shape and dtype."""
        for part, flat in zip(self.parts, actions.split(self._widths, -1), strict=True):
            own = flat.reshape(*flat.shape[:-1], *part.action_shape)
            yield part, own.round().long() if part.discrete else own

    def _flat(self, actions: Sequence[Tensor], like: Float[Tensor, "..."]) -> Float[Tensor, "... A"]:
        """The inverse of `_actions`, in the dtype of `like`."""
        rows = [
            own.reshape(*own.shape[: own.ndim - len(part.action_shape)], width).to(like.dtype)
            for part, own, width in zip(self.parts, actions, self._widths, strict=True)
        ]
        return torch.cat(rows, dim=-1)


def _sum(values: Iterable[Float[Tensor, "M n"]]) -> Float[Tensor, "M n"]:
    return torch.stack(list(values)).sum(0)


def _joined(phis: Sequence[Phi]) -> Phi:
    """The φ of all parts as one."""
    outputs = torch.cat([phi[0] for phi in phis], dim=-1)
    scales = [phi[1] for phi in phis if len(phi) > 1]
    return (outputs, torch.cat(scales, dim=-1)) if scales else (outputs,)
