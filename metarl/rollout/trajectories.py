"""Time-major batches of experience."""

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass
class Trajectories:
    """`T` steps of `M` tasks times `N` environments: every field is `[T, M, N, ...]`."""

    observations: Float[Tensor, "T M N D"]
    actions: Shaped[Tensor, "T M N ..."]
    rewards: Float[Tensor, "T M N"]
    terminated: Bool[Tensor, "T M N"]
    truncated: Bool[Tensor, "T M N"]
    episode_starts: Bool[Tensor, "T M N"]
    """Whether the step is the first of an episode."""
    final_observations: Float[Tensor, "T M N D"]
    """What each step led to, before any autoreset: the observation to bootstrap from."""
    log_probs: Float[Tensor, "T M N"] | None = None
    success: Bool[Tensor, "T M N"] | None = None
    """Where the family defines success: whether the step succeeded."""
    fault: Bool[Tensor, "T M N"] | None = None
    """Where the family simulates physics: whether the simulation broke down in the step, which ended the episode."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """What the policy adds."""

    @property
    def num_steps(self) -> int:
        return self.rewards.shape[0]

    @property
    def num_transitions(self) -> int:
        """Environment steps taken: `T * M * N`."""
        return self.rewards.numel()

    @cached_property
    def ended(self) -> Bool[Tensor, "T M N"]:
        """Whether the step is the last of its episode, terminated or truncated."""
        return self.terminated | self.truncated

    @cached_property
    def episode_index(self) -> Int[Tensor, "T M N"]:
        """Which episode of its environment a step belongs to, from 0."""
        return self.episode_starts.long().cumsum(0) - 1

    def in_first_episodes(self, count: int) -> Bool[Tensor, "T M N"]:
        """The steps that belong to the first `count` episodes of each *task*.

        Episodes of a task are numbered round by round over its environments: the first episode of each of the `N`,
        then the second of each, and so on.
        """
        environment = torch.arange(self.rewards.shape[2], device=self.rewards.device)
        return self.episode_index * self.rewards.shape[2] + environment < count

    def episode_returns(self, episode: int = 0) -> Float[Tensor, "M N"]:
        """The undiscounted return of each environment's `episode`-th episode."""
        return (self.rewards * (self.episode_index == episode)).sum(0)

    def episode_success(self, episode: int = 0) -> Bool[Tensor, "M N"] | None:
        """Whether each environment's `episode`-th episode succeeded at any step."""
        return None if self.success is None else (self.success & (self.episode_index == episode)).any(0)

    def select_envs(self, envs: slice) -> "Trajectories":
        """The same steps of the chosen environments of each task."""

        def pick(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: tensor[:, :, envs] for name, tensor in value.items()}
            return value[:, :, envs] if isinstance(value, Tensor) else value

        return Trajectories(**{f.name: pick(getattr(self, f.name)) for f in fields(self)})


def fault_metrics(*parts: Trajectories) -> dict[str, int]:
    """How many simulations broke down in all of `parts`, as the metric `faults`; empty where there is no physics."""
    faults = [int(part.fault.sum()) for part in parts if part.fault is not None]
    return {"faults": sum(faults)} if faults else {}
