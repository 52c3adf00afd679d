"""How an adapted policy is measured. A family may define protocols of its own (`TaskDistribution.protocols`)."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from metarl.rollout import Policy, collect
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class Scores:
    """What a protocol measures of `K` tasks, or of `K` groups of tasks."""

    returns: Float[Tensor, "K"]
    """Mean undiscounted return of an episode."""
    success: Float[Tensor, "K"] | None
    """Share of episodes that succeeded at any step; None if the family defines no success."""
    tasks: Int[Tensor, "K"] | None = None
    """Which of the environment's tasks each row stands for; None if each for its own."""


Probe = Callable[[int], Policy]
"""Makes a fork of the adapted policy, with random numbers that depend on the given number: what the fork lives through
teaches the policy nothing."""

Protocol = Callable[[TaskVectorEnv, Probe, int], Scores]
"""`protocol(env, probe, seed)` measures forks: each episode that counts starts from what the adapted policy knows."""


def per_task(env: TaskVectorEnv, probe: Probe, seed: int) -> Scores:
    """Every task counts once: the mean over one episode in each of its environments."""
    trajectories = collect(env, probe(0), episodes=1, seed=seed)
    success = trajectories.episode_success()
    return Scores(trajectories.episode_returns().mean(1), None if success is None else success.float().mean(1))
