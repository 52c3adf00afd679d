"""The policy interface that `collect` runs."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from metarl.errors import UsageError
from metarl.spaces import Observations, batch_shape, map_tensors


@dataclass
class PolicyStep:
    """A policy's answer to a batch of observations `[M, N, ...]`.

    >>> step = metarl.PolicyStep(actions=torch.zeros(20, 10, 2), extras={"values": torch.zeros(20, 10)})
    >>> step.log_probs is None
    True
    """

    actions: Tensor
    """`[M, N, ...]`, as `TaskVectorEnv` says for each action space."""
    log_probs: Tensor | None = None
    """`[M, N]`: log-probability (density) of `actions`; None if the policy has none."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """Anything else that a learner wants recorded, each `[M, N, ...]`."""


@dataclass
class Transition:
    """One step of `M` tasks times `N` environments, as `Policy.observe` receives it.

    >>> flags, observations = torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 3, 4)
    >>> actions, rewards = torch.zeros(2, 3, 1), torch.ones(2, 3)
    >>> metarl.Transition(observations, actions, rewards, ~flags, flags, observations).ended.all()
    tensor(True)
    """

    observations: Observations
    """What the policy acted on, `[M, N, ...]`."""
    actions: Shaped[Tensor, "M N ..."]
    rewards: Float[Tensor, "M N"]
    terminated: Bool[Tensor, "M N"]
    truncated: Bool[Tensor, "M N"]
    next_observations: Observations
    """The true next observations: at the end of an episode its last observation, not the first of the next episode."""
    active: Bool[Tensor, "M N"] | None = None
    """False for an environment that has ended all its episodes and keeps stepping only because others have not; None if
    all are active. A policy with memory must ignore inactive environments."""

    @property
    def ended(self) -> Bool[Tensor, "M N"]:
        """Whether the step is the last of its episode, terminated or truncated."""
        return self.terminated | self.truncated


@runtime_checkable
class Policy(Protocol):
    """Acts for `M` tasks times `N` environments.

    Subclass it and implement `act`. By default `begin_rollout`, `observe` and `begin_trial` do nothing, which suits a
    policy without memory, and `fork` makes a deep copy. A policy around another one has to pass all of them on, as
    `PolicyWrapper` does: subclass that.

    >>> class Still(metarl.Policy):
    ...     def act(self, observations):
    ...         return metarl.PolicyStep(torch.zeros(*observations.shape[:2], 2))
    >>> Still().act(torch.zeros(20, 10, 3)).actions.shape
    torch.Size([20, 10, 2])
    """

    def act(self, observations: Observations) -> PolicyStep:
        """The actions for `observations`: vectors `[M, N, D]`, pictures `[M, N, H, W, C]`, or a dict of these."""
        raise NotImplementedError

    def begin_rollout(self) -> None:
        """All environments have been reset: a new episode begins, even if the one before did not end."""
        return None

    def observe(self, transition: Transition) -> None:
        """Receives the outcome of the last actions. Called after every step, including the last of an episode."""
        return None

    def begin_trial(self, mask: Bool[Tensor, "M N"]) -> None:
        """Forgets everything about the task of each environment in `mask`, where a new trial begins."""
        return None

    def fork(self) -> "Policy":
        """An independent copy: running one of the two does not change the other."""
        return copy.deepcopy(self)


Drawing = TypeVar("Drawing", bound="DrawingPolicy")


class DrawingPolicy(Policy):
    """A policy that draws from a `generator`, and that replaces its own tensors instead of writing to them.

    >>> from metarl.agents.random import RandomPolicy
    >>> policy = RandomPolicy(metarl.make("PointNavigation-v0").action_space, torch.Generator())
    >>> policy.fork().actions is policy.actions, policy.fork().generator is policy.generator
    (True, False)
    """

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def fork(self: Drawing) -> Drawing:
        """A copy that shares all but the generator: networks, which acting does not change, and what is remembered."""
        return self.drawing_from(copy.deepcopy(self.generator))

    def drawing_from(self: Drawing, generator: torch.Generator) -> Drawing:
        """A copy as `fork` makes it, with another generator."""
        copied = copy.copy(self)
        copied.generator = generator
        return copied


class PolicyWrapper(Policy):
    """Acts as `policy` does, and passes on to it all that it hears. A subclass adds to that.

    >>> from metarl.rollout import FunctionPolicy
    >>> from metarl.rollout.policy import PolicyWrapper
    >>> PolicyWrapper(FunctionPolicy(torch.tanh)).act(torch.zeros(20, 10, 2)).actions.shape
    torch.Size([20, 10, 2])
    """

    def __init__(self, policy: Policy):
        self.policy = policy

    def act(self, observations: Observations) -> PolicyStep:
        return self.policy.act(observations)

    def begin_rollout(self) -> None:
        self.policy.begin_rollout()

    def observe(self, transition: Transition) -> None:
        self.policy.observe(transition)

    def begin_trial(self, mask: Bool[Tensor, "M N"]) -> None:
        self.policy.begin_trial(mask)


def check_batch(what: str, known: Sequence[int], batch: Sequence[int]) -> None:
    """Raises `UsageError` if a policy that keeps something for a batch of `known` size is asked to act for another.

    >>> from metarl.rollout.policy import check_batch
    >>> check_batch("tasks", (3,), (4,))
    Traceback (most recent call last):
    metarl.errors.UsageError: the policy is adapted to 3 tasks and is to act for 4: adapt the agent to these
    """
    if tuple(known) != tuple(batch):
        old, new = (" x ".join(map(str, sizes)) for sizes in (known, batch))
        raise UsageError(f"the policy is adapted to {old} {what} and is to act for {new}: adapt the agent to these")


class FunctionPolicy(Policy):
    """A plain function from a flat batch of observations `[B, ...]` to actions `[B, ...]`, as a policy.

    >>> from metarl.rollout import FunctionPolicy
    >>> FunctionPolicy(torch.tanh).act(torch.zeros(20, 10, 2)).actions.shape
    torch.Size([20, 10, 2])
    """

    def __init__(self, function: Callable[..., Tensor]):
        self.function = function

    def act(self, observations: Observations) -> PolicyStep:
        batch = batch_shape(observations)
        flat = map_tensors(lambda value: value.flatten(0, 1), observations)
        actions: Shaped[Tensor, "B ..."] = torch.as_tensor(self.function(flat))
        return PolicyStep(actions.unflatten(0, batch))

    def fork(self) -> "FunctionPolicy":
        """A function has no memory, so both policies call the same one."""
        return copy.copy(self)
