"""Evaluation protocols: how to measure an adapted policy. A family may add its own (`TaskDistribution.protocols`)."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from metarl.rollout import Policy, collect
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class Scores:
    """What a protocol measures: the scores of `K` tasks, or of `K` groups of tasks.

    >>> from metarl.protocols import Scores
    >>> Scores(returns=torch.tensor([1.0, 3.0]), success=None).returns.mean()
    tensor(2.)
    """

    returns: Float[Tensor, "K"]
    """Mean undiscounted return of an episode."""
    success: Float[Tensor, "K"] | None
    """Share of episodes with success at any step; None if the family defines no success."""
    tasks: Int[Tensor, "K"] | None = None
    """The index of the environment's task that each row stands for; None if row k is task k."""


Probe = Callable[[int], Policy]
"""`probe(number)` makes a fork of the adapted policy with random numbers that depend on `number`. Running the fork does
not change the policy."""

Protocol = Callable[[TaskVectorEnv, Probe, int], Scores]
"""`protocol(env, probe, seed)` measures forks, so that each counted episode starts from the adapted policy."""


def per_task(env: TaskVectorEnv, probe: Probe, seed: int) -> Scores:
    """Every task counts once: the score of a task is the mean over one episode in each of its environments."""
    trajectories = collect(env, probe(0), episodes=1, seed=seed)
    success = trajectories.episode_success()
    return Scores(trajectories.episode_returns().mean(1), None if success is None else success.float().mean(1))
