"""What `collect` asks of a policy."""

import copy
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
    """`[M, N]`: log-probability (density) of `actions`; None if the policy has none."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """Whatever else a learner wants recorded, each `[M, N, ...]`."""


@dataclass
class Transition:
    """One step of `M` tasks times `N` environments, as a policy is told of it."""

    observations: Float[Tensor, "M N D"]
    """What the policy acted on."""
    actions: Shaped[Tensor, "M N ..."]
    rewards: Float[Tensor, "M N"]
    terminated: Bool[Tensor, "M N"]
    truncated: Bool[Tensor, "M N"]
    next_observations: Float[Tensor, "M N D"]
    """What the step itself led to: at the end of an episode its last observation, not the first of the next one."""
    active: Bool[Tensor, "M N"] | None = None
    """False for an environment that has ended all its episodes and steps on only because others have not; None if all
    are active. A policy that remembers takes no notice of inactive ones."""

    @property
    def ended(self) -> Bool[Tensor, "M N"]:
        """Whether the step is the last of its episode, terminated or truncated."""
        return self.terminated | self.truncated


@runtime_checkable
class Policy(Protocol):
    """Acts for `M` tasks times `N` environments.

    Subclass it and write `act`; the other methods do nothing by default, which suits a policy without memory.

    >>> class Still(metarl.Policy):
    ...     def act(self, observations):
    ...         return metarl.PolicyStep(torch.zeros(*observations.shape[:2], 2))
    """

    def act(self, observations: Float[Tensor, "M N D"]) -> PolicyStep:
        """The actions for `observations`."""
        raise NotImplementedError

    def observe(self, transition: Transition) -> None:
        """Hears of what came of the last actions, after every step, the last of an episode included."""
        return None

    def begin_trial(self, mask: Bool[Tensor, "M N"]) -> None:
        """Forgets, for the environments in `mask`, all that it has seen of their task: a new trial begins there."""
        return None

    def fork(self) -> "Policy":
        """An independent copy: what happens to one of the two teaches the other nothing."""
        return copy.deepcopy(self)


class FunctionPolicy(Policy):
    """A plain function of flat observations `[B, D]` to actions `[B, A]` (or `[B]`) as a policy."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        self.function = function

    def act(self, observations: Float[Tensor, "M N D"]) -> PolicyStep:
        actions: Shaped[Tensor, "B ..."] = torch.as_tensor(self.function(observations.flatten(0, 1)))
        return PolicyStep(actions.unflatten(0, observations.shape[:2]))

    def fork(self) -> "FunctionPolicy":
        """A function remembers nothing: both call the same one."""
        return copy.copy(self)
