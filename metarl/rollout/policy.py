"""What `collect` asks of a policy."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor


@dataclass
class PolicyStep:
    """What a policy answers to a batch of observations `[M, N, D]`."""

    actions: Tensor
    """`[M, N, A]`, or integers `[M, N]` for a discrete action space."""
    log_probs: Tensor | None = None
    """`[M, N]`: log-probability (density) of `actions`; None where the policy has none."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """Whatever else a learner wants recorded, each `[M, N, ...]`."""


@runtime_checkable
class Policy(Protocol):
    """Acts for `M` tasks times `N` environments. One that remembers does so for one trial: the next needs a new one."""

    def act(self, observations: Float[Tensor, "M N D"]) -> PolicyStep:
        """The actions for `observations`."""

    def observe(
        self, rewards: Float[Tensor, "M N"], terminated: Bool[Tensor, "M N"], truncated: Bool[Tensor, "M N"]
    ) -> None:
        """What came of the last actions, told after every step, the last of an episode included."""


class FunctionPolicy:
    """A plain function of flat observations `[B, D]` to actions `[B, A]` (or `[B]`) as a policy."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        self.function = function

    def act(self, observations: Float[Tensor, "M N D"]) -> PolicyStep:
        actions: Shaped[Tensor, "B ..."] = torch.as_tensor(self.function(observations.flatten(0, 1)))
        return PolicyStep(actions.unflatten(0, observations.shape[:2]))

    def observe(self, rewards: Tensor, terminated: Tensor, truncated: Tensor) -> None:
        """A function remembers nothing."""
