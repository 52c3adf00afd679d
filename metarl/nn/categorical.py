"""Categorical actions: one choice, or several at once that are independent of each other."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from metarl.devices import Constant
from metarl.nn.action_distribution import Phi
from metarl.parallel import exponential_like

NEVER = -1e30
"""The logit of a choice that does not exist: its probability is 0, and 0 times its log-probability is 0, not NaN."""


class CategoricalHead:
    """One of `size` actions, the first of which has the number `start`; φ = (logits `[M, n, size]`,).

    >>> from metarl.nn.heads import CategoricalHead
    >>> head, phi = CategoricalHead(4), (torch.zeros(3, 5, 4),)
    >>> head.entropy(phi)[0, 0]  # log 4
    tensor(1.3863)
    """

    scale_size = 0
    action_shape: tuple[int, ...] = ()
    discrete = True

    def __init__(self, size: int, start: int = 0):
        self.size = size
        self.start = start

    def features(self, actions: Shaped[Tensor, "..."]) -> Float[Tensor, "... A"]:
        """One-hot."""
        return torch.nn.functional.one_hot(actions - self.start, self.size).float()

    def blank(self, like: Float[Tensor, "B ..."]) -> Int[Tensor, "B"]:
        return torch.full((len(like),), self.start, device=like.device)

    def sample(self, phi: Phi, generator: torch.Generator) -> Int[Tensor, "..."]:
        (logits,) = phi
        # argmax(logits + Gumbel noise) is a draw from the softmax.
        waits = exponential_like(logits, generator)
        return (logits - waits.log()).argmax(-1) + self.start

    def log_prob(self, phi: Phi, actions: Shaped[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        (logits,) = phi
        return logits.log_softmax(-1).gather(-1, (actions - self.start)[..., None])[..., 0]

    def entropy(self, phi: Phi) -> Float[Tensor, "..."]:
        log_p = phi[0].log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)

    def kl(self, old: Phi, new: Phi) -> Float[Tensor, "..."]:
        """KL(old ‖ new)."""
        old_log_p, log_p = old[0].log_softmax(-1), new[0].log_softmax(-1)
        return (old_log_p.exp() * (old_log_p - log_p)).sum(-1)

    def score(self, phi: Phi, actions: Shaped[Tensor, "..."]) -> Phi:
        """One-hot of the action minus the probabilities."""
        (logits,) = phi
        chosen = torch.nn.functional.one_hot(actions - self.start, self.size)
        return (chosen - logits.softmax(-1),)

    def score_derivative(self, phi: Phi, actions: Shaped[Tensor, "..."], r_phi: Phi) -> Phi:
        return tuple(-value for value in self.fisher(phi, r_phi))

    def fisher(self, phi: Phi, r_phi: Phi) -> Phi:
        """(diag p − p pᵀ) R{logits}."""
        p, (r_logits,) = phi[0].softmax(-1), r_phi
        return (p * (r_logits - (p * r_logits).sum(-1, keepdim=True)),)


class FactoredCategoricalHead:
    """`K` independent choices at once, choice k being one of `counts[k]` with numbers from `starts[k]` on.

    Actions are int64 `[M, n, K]`; φ = (logits `[M, n, ΣK counts]`,), the logits of the choices one after another.
    log π, entropy and KL are sums over the choices, and derivatives stay within each choice.

    >>> from metarl.nn.heads import FactoredCategoricalHead
    >>> head = FactoredCategoricalHead([2, 4])
    >>> head.entropy((torch.zeros(3, 5, 6),))[0, 0]  # log 2 + log 4
    tensor(2.0794)
    """

    scale_size = 0
    discrete = True

    def __init__(self, counts: Sequence[int], starts: Sequence[int] | None = None):
        self.size = sum(counts)
        self.action_shape: tuple[int, ...] = (len(counts),)
        # The choices as rows [K, max counts], the shorter ones filled up with logits that mean "never".
        column = torch.arange(max(counts))
        exists = column < torch.tensor(counts)[:, None]
        places = torch.zeros(exists.shape, dtype=torch.int64)
        places[exists] = torch.arange(self.size)
        self._width = len(column)
        self._padded = not bool(exists.all())
        self._places, self._missing = Constant(places.flatten()), Constant(~exists)
        self._back = Constant(exists.flatten().nonzero()[:, 0])
        self._starts = Constant(torch.tensor(starts if starts is not None else [0] * len(counts)))
        self._each = CategoricalHead(self._width)

    def features(self, actions: Shaped[Tensor, "... K"]) -> Float[Tensor, "... F"]:
        """The one-hots of the choices, one after another."""
        return self._flat(self._each.features(self._from_zero(actions)))

    def blank(self, like: Float[Tensor, "B ..."]) -> Int[Tensor, "B K"]:
        return self._starts.on(like.device).repeat(len(like), 1)

    def sample(self, phi: Phi, generator: torch.Generator) -> Int[Tensor, "M n K"]:
        logits = self._rows(phi[0], NEVER)
        waits = exponential_like(logits, generator)
        # A wait of 0 would let a choice win that does not exist: the noise does not reach these.
        scores = (logits - waits.log()).masked_fill(self._missing.on(logits.device), -torch.inf)
        return scores.argmax(-1) + self._starts.on(logits.device)

    def log_prob(self, phi: Phi, actions: Shaped[Tensor, "M n K"]) -> Float[Tensor, "M n"]:
        return self._each.log_prob(self._choices(phi), self._from_zero(actions)).sum(-1)

    def entropy(self, phi: Phi) -> Float[Tensor, "M n"]:
        return self._each.entropy(self._choices(phi)).sum(-1)

    def kl(self, old: Phi, new: Phi) -> Float[Tensor, "M n"]:
        """KL(old ‖ new)."""
        return self._each.kl(self._choices(old), self._choices(new)).sum(-1)

    def score(self, phi: Phi, actions: Shaped[Tensor, "M n K"]) -> Phi:
        """One-hots of the choices minus the probabilities."""
        (score,) = self._each.score(self._choices(phi), self._from_zero(actions))
        return (self._flat(score),)

    def score_derivative(self, phi: Phi, actions: Shaped[Tensor, "M n K"], r_phi: Phi) -> Phi:
        return tuple(-value for value in self.fisher(phi, r_phi))

    def fisher(self, phi: Phi, r_phi: Phi) -> Phi:
        """(diag p − p pᵀ) R{logits} of each choice."""
        (product,) = self._each.fisher(self._choices(phi), (self._rows(r_phi[0], 0.0),))
        return (self._flat(product),)

    def _from_zero(self, actions: Shaped[Tensor, "... K"]) -> Shaped[Tensor, "... K"]:
        return actions - self._starts.on(actions.device)

    def _choices(self, phi: Phi) -> Phi:
        return (self._rows(phi[0], NEVER),)

    def _rows(self, values: Float[Tensor, "... F"], missing: float) -> Float[Tensor, "... K C"]:
        """The values of each choice as a row, filled up with `missing`."""
        if not self._padded:
            return values.unflatten(-1, (-1, self._width))
        rows = values.index_select(-1, self._places.on(values.device)).unflatten(-1, (-1, self._width))
        return rows.masked_fill(self._missing.on(values.device), missing)

    def _flat(self, rows: Float[Tensor, "... K C"]) -> Float[Tensor, "... F"]:
        """The inverse of `_rows`."""
        flat = rows.flatten(-2)
        return flat.index_select(-1, self._back.on(flat.device)) if self._padded else flat
