"""What the actor-critics that PPO trains share: normalised values, a bounded spread, advantages over trials."""

import math

import gymnasium as gym
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.agents.ppo import PPOConfig
from metarl.errors import UsageError
from metarl.nn.heads import Head, Phi, head_for
from metarl.nn.normalization import RunningNorm
from metarl.rollout import Trajectories, gae

LOG_STD_RANGE = (-4.0, 1.0)


class ActorCritic(nn.Module):
    """A policy over `action_space` and a value, whose last layer `critic` a subclass makes.

    The value is in units of the running standard deviation of returns, and its last layer is rescaled whenever the
    statistics change (van Hasselt et al. 2016, PopArt). `keep_in_range` keeps the logarithm of a Gaussian policy's
    standard deviation within `LOG_STD_RANGE` after each optimizer step; an `initial_std` outside it is a `UsageError`.

    >>> from metarl.agents.actor_critic import ActorCritic
    >>> network = ActorCritic(metarl.make("PointNavigation-v0").action_space, initial_std=1.0)
    >>> network.critic = torch.nn.Linear(8, 1)
    >>> network.targets(torch.tensor([[2.0], [4.0]]), valid=torch.ones(2, 1, dtype=torch.bool))
    tensor([[-1.],
            [ 1.]])
    """

    critic: nn.Linear

    def __init__(self, action_space: gym.Space, initial_std: float):
        super().__init__()
        low, high = map(math.exp, LOG_STD_RANGE)
        if not low <= initial_std <= high:
            raise UsageError(f"initial_std must lie in [{low:.3f}, {high:.3f}], got {initial_std}")
        self.head: Head = head_for(action_space)
        self.log_std = nn.Parameter(torch.full((self.head.scale_size,), initial_std).log())
        self.return_norm = RunningNorm(1)

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """Moves `log_std` back into its range. Clamping it in the forward pass would set its gradient to 0 outside."""
        self.log_std.clamp_(*LOG_STD_RANGE)

    def phi(self, output: Float[Tensor, "... O"]) -> Phi:
        """The parameters of the action distribution, from the output of the policy's last layer."""
        return (output, self.log_std.expand(*[1] * (output.ndim - 1), -1)) if self.head.scale_size else (output,)

    def denormalize(self, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Converts normalised values to returns."""
        return values * self.return_norm.std + self.return_norm.mean

    def targets(self, returns: Float[Tensor, "..."], valid: Bool[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Adds the `valid` returns to the statistics, and converts all to targets of the normalised value."""
        self.update_return_norm(returns, valid)
        return (returns - self.return_norm.mean) / self.return_norm.std

    @torch.no_grad()
    def update_return_norm(self, returns: Float[Tensor, "..."], valid: Bool[Tensor, "..."]) -> None:
        """Adds `returns` and rescales the last layer of the value, so that denormalised values do not change."""
        mean, std = self.return_norm.mean.clone(), self.return_norm.std
        self.return_norm.update(returns[..., None], valid)
        self.critic.weight.mul_((std / self.return_norm.std)[:, None])
        self.critic.bias.mul_(std).add_(mean - self.return_norm.mean).div_(self.return_norm.std)


def trial_advantages(
    trajectories: Trajectories, values: Float[Tensor, "T B"], config: PPOConfig
) -> Float[Tensor, "T B"]:
    """Generalised advantage estimates over whole trials, across their episodes; nothing follows the end of a trial.

    `values` are the expected returns over the rest of each step's trial.
    """
    last = torch.ones_like(values, dtype=torch.bool)  # of its trial
    last[:-1] = trajectories.trial_starts.flatten(1)[1:]
    following = torch.cat([values[1:], torch.zeros_like(values[:1])])
    rewards = trajectories.rewards.flatten(1)
    return gae(rewards, values, following, last, last, discount=config.discount, gae_lambda=config.gae_lambda)
