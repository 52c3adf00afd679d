"""Time-major batches of experience."""

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metarl.spaces import Observations, map_tensors


@dataclass
class Trajectories:
    """`T` steps of `M` tasks times `N` environments. Every field is `[T, M, N, ...]` unless stated otherwise.

    Observations are vectors `[T, M, N, D]` (float32), pictures `[T, M, N, H, W, C]` (uint8) or a dictionary of these.

    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> env = family.make_env(num_tasks=2, envs_per_task=3)
    >>> env.set_tasks(family.sample(2, seed=0))
    >>> trajectories = metarl.collect(env, torch.zeros_like, num_steps=10)
    >>> trajectories.observations.shape, trajectories.episode_index.max()
    (torch.Size([10, 2, 3, 2]), tensor(1))
    """

    observations: Observations
    actions: Shaped[Tensor, "T M N ..."]
    rewards: Float[Tensor, "T M N"]
    terminated: Bool[Tensor, "T M N"]
    truncated: Bool[Tensor, "T M N"]
    episode_starts: Bool[Tensor, "T M N"]
    """Whether the step is the first of an episode."""
    trial_starts: Bool[Tensor, "T M N"]
    """Whether the step is the first of a trial: the memory of the policy is blank, or as it was passed to `collect`."""
    last_observations: Observations
    """`[E, ...]`: the true last observation of each episode that ended, in the order of `ended.nonzero()`."""
    after: Observations
    """`[M, N, ...]`: the observations returned by step `T`: the first one of the next episode if one has just ended."""
    log_probs: Float[Tensor, "T M N"] | None = None
    success: Bool[Tensor, "T M N"] | None = None
    """Whether the step succeeded; None if the family defines no success."""
    dense_rewards: Float[Tensor, "T M N"] | None = None
    """Rewards that training may learn from in place of sparse ones; None if the family has no others."""
    fault: Bool[Tensor, "T M N"] | None = None
    """Whether the step gave a number that is not finite, or its simulation broke down, which ended the episode."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """What the policy adds (`PolicyStep.extras`)."""

    @property
    def num_steps(self) -> int:
        """`T`."""
        return self.rewards.shape[0]

    @property
    def num_transitions(self) -> int:
        """Environment steps taken: `T * M * N`."""
        return self.rewards.numel()

    @cached_property
    def ended(self) -> Bool[Tensor, "T M N"]:
        """Whether the step is the last of its episode, terminated or truncated."""
        return self.terminated | self.truncated

    @property
    def final_observations(self) -> Observations:
        """The true next observation of each step, before any autoreset, to bootstrap from. Computed at every call."""

        def following(observations: Tensor, after: Tensor, last: Tensor) -> Tensor:
            shifted = torch.cat([observations[1:], after[None]])
            shifted[self.ended] = last
            return shifted

        return map_tensors(following, self.observations, self.after, self.last_observations)

    @cached_property
    def episode_index(self) -> Int[Tensor, "T M N"]:
        """Which episode of its environment a step belongs to, from 0."""
        return self.episode_starts.long().cumsum(0) - 1

    @property
    def in_sound_steps(self) -> Bool[Tensor, "T M N"]:
        """All steps except faults."""
        return self._sound(torch.ones_like(self.terminated))

    @cached_property
    def in_complete_episodes(self) -> Bool[Tensor, "T M N"]:
        """The steps of complete episodes: all but those of each environment's last, unfinished episode, and faults."""
        return self._sound(_up_to_last(self.ended))

    def in_complete_trials(self, episodes_per_trial: int) -> Bool[Tensor, "T M N"]:
        """The steps of complete trials: all but those of each environment's last, unfinished trial, and faults."""
        return self._sound(_up_to_last(self.ended & ((self.episode_index + 1) % episodes_per_trial == 0)))

    def in_first_episodes(self, count: int) -> Bool[Tensor, "T M N"]:
        """The steps of the first `count` episodes of each *task*, except faults.

        The episodes of a task are numbered round by round over its environments: the first episode of each of the `N`,
        then the second of each, and so on.
        """
        environment = torch.arange(self.rewards.shape[2], device=self.rewards.device)
        return self._sound(self.episode_index * self.rewards.shape[2] + environment < count)

    def _sound(self, mask: Bool[Tensor, "T M N"]) -> Bool[Tensor, "T M N"]:
        """`mask` without the steps that are faults: their rewards and last observations are not the environment's."""
        return mask if self.fault is None else mask & ~self.fault

    def episode_returns(self, episode: int = 0) -> Float[Tensor, "M N"]:
        """The undiscounted return of each environment's `episode`-th episode."""
        return (self.rewards * (self.episode_index == episode)).sum(0)

    def episode_success(self, episode: int = 0) -> Bool[Tensor, "M N"] | None:
        """Whether each environment's `episode`-th episode succeeded at any step."""
        return None if self.success is None else (self.success & (self.episode_index == episode)).any(0)

    def select_envs(self, envs: slice) -> "Trajectories":
        """The same steps of the chosen environments of each task."""

        def pick(name: str) -> Any:
            value = getattr(self, name)
            if name == "last_observations":
                chosen = torch.zeros_like(self.ended)
                chosen[:, :, envs] = True
                return map_tensors(lambda last: last[chosen[self.ended]], value)
            if name == "after":
                return map_tensors(lambda after: after[:, envs], value)
            return None if value is None else map_tensors(lambda tensor: tensor[:, :, envs], value)

        return Trajectories(**{f.name: pick(f.name) for f in fields(self)})


def _up_to_last(marks: Bool[Tensor, "T ..."]) -> Bool[Tensor, "T ..."]:
    """True at and before the last mark of each column."""
    return marks.flip(0).cumsum(0).flip(0) > 0


def success_metrics(trajectories: Trajectories, episode: int = 0) -> dict[str, float]:
    """The share of environments whose `episode` succeeded, as the metric `success_mean`; empty without success."""
    success = trajectories.episode_success(episode)
    return {} if success is None else {"success_mean": float(success.float().mean())}


def used_fraction(*masks: Bool[Tensor, "T M N"]) -> float:
    """The share of collected steps that an update uses, from masks of the used steps: the metric `used_fraction`."""
    return sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
