"""Actor-critics that PPO trains: what they share, and one without memory."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import gymnasium as gym
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.agents.ppo import Inputs, PPOConfig
from metarl.errors import UsageError
from metarl.nn.entries import EntryEncoder
from metarl.nn.heads import Head, Phi, head_for
from metarl.nn.mlp import tanh_
from metarl.nn.normalization import RunningNorm
from metarl.parallel import Ranks
from metarl.rollout import Trajectories, gae
from metarl.spaces import Observations, check_observation_space, entries, is_picture, is_vector, named

LOG_STD_RANGE = (-4.0, 1.0)
VALUES = "values"
"""The name under which a policy records the normalised values of what it saw."""
_OBSERVATION = "observation."


class _ObservationNorm(Protocol):
    """What turns observations into numbers of order one, `[..., F]`: a `RunningNorm` or an `EntryEncoder`."""

    def __call__(self, observations: Any, /) -> Tensor: ...
    def update(self, observations: Any, valid: Tensor, ranks: Ranks | None, /) -> None: ...


class ActorCritic(nn.Module):
    """A policy over `action_space` and a value: what is the same whatever they read.

    The value is in units of the running standard deviation of returns, and its last layer, by default `critic`, is
    rescaled whenever the statistics change (van Hasselt et al. 2016, PopArt). `keep_in_range` keeps the logarithm of a
    Gaussian policy's standard deviation within `LOG_STD_RANGE` after each optimizer step; an `initial_std` outside it
    is a `UsageError`.

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
        """φ of the action distribution, from the outputs of the policy's last layer."""
        return (output, self.log_std.expand(*[1] * (output.ndim - 1), -1)) if self.head.scale_size else (output,)

    def denormalize(self, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Converts normalised values to returns."""
        return values * self.return_norm.std + self.return_norm.mean

    def targets(
        self, returns: Float[Tensor, "..."], valid: Bool[Tensor, "..."], ranks: Ranks | None = None
    ) -> Float[Tensor, "..."]:
        """Adds the `valid` returns of all `ranks` to the statistics; returns the targets of the normalised value."""
        self.update_return_norm(returns, valid, ranks)
        return (returns - self.return_norm.mean) / self.return_norm.std

    @torch.no_grad()
    def update_return_norm(
        self, returns: Float[Tensor, "..."], valid: Bool[Tensor, "..."], ranks: Ranks | None = None
    ) -> None:
        """Adds `returns` and rescales the last layer of the value, so that denormalised values do not change."""
        mean, std = self.return_norm.mean.clone(), self.return_norm.std
        self.return_norm.update(returns[..., None], valid, ranks)
        new = self.return_norm
        self.rescale_value(std / new.std, (mean - new.mean) / new.std)

    def rescale_value(self, scale: Float[Tensor, "1"], shift: Float[Tensor, "1"]) -> None:
        """Changes the value V to `scale` · V + `shift` for all inputs, and leaves the policy as it is."""
        self.critic.weight.mul_(scale[:, None])
        self.critic.bias.mul_(scale).add_(shift)


class ObservingActorCritic(ActorCritic):
    """An actor-critic that reads observations: normalised by running statistics, and pictures encoded.

    >>> from metarl.agents.actor_critic import ObservingActorCritic
    >>> family = metarl.make("PointNavigation-v0")
    >>> ObservingActorCritic(family.observation_space, family.action_space, initial_std=0.5).observation_size
    2
    """

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, initial_std: float):
        super().__init__(action_space, initial_std)
        check_observation_space(observation_space, "actor-critic")
        self.has_pictures = any(map(is_picture, entries(observation_space).values()))
        self.observation_norm: _ObservationNorm
        if is_vector(observation_space):
            self.observation_size = observation_space.shape[0]
            self.observation_norm = RunningNorm(self.observation_size)
        else:
            self.observation_norm = EntryEncoder(observation_space)
            self.observation_size = self.observation_norm.outputs


class MemorylessActorCritic(ObservingActorCritic):
    """Two tanh networks, a policy and a value, that read the observation and `extra_size` further numbers.

    The further numbers are normalised by running statistics, too.

    >>> from metarl.agents.actor_critic import MemorylessActorCritic
    >>> family = metarl.make("CartPoleParams-v0")
    >>> network = MemorylessActorCritic(family.observation_space, family.action_space, (64, 64), 1.0, extra_size=3)
    >>> network.initialize(torch.Generator())
    >>> (logits,), values = network(network.inputs(torch.zeros(20, 5, 4), torch.zeros(20, 5, 3)))
    >>> logits.shape, values.shape
    (torch.Size([20, 5, 2]), torch.Size([20, 5]))
    """

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        hidden: Sequence[int],
        initial_std: float,
        extra_size: int = 0,
    ):
        super().__init__(observation_space, action_space, initial_std)
        self.extra_norm = RunningNorm(extra_size)
        sizes = [self.observation_size + extra_size, *hidden]
        self.actor_body, self.critic_body = (
            nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes)) for _ in range(2)
        )
        self.actor = nn.Linear(sizes[-1], self.head.size)
        self.critic = nn.Linear(sizes[-1], 1)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Orthogonal weights and zero biases; the policy starts near uniform, the value near zero."""
        if isinstance(self.observation_norm, EntryEncoder):
            self.observation_norm.initialize(generator)
        bodies = [(layer, math.sqrt(2)) for body in (self.actor_body, self.critic_body) for layer in body]
        for layer, gain in (*bodies, (self.actor, 0.01), (self.critic, 1.0)):
            assert isinstance(layer, nn.Linear)
            nn.init.orthogonal_(layer.weight, gain, generator=generator)
            layer.bias.zero_()

    def inputs(self, observations: Observations, extra: Float[Tensor, "... E"]) -> dict[str, Tensor]:
        """What the network reads: the observations as they are, and `extra`."""
        return {"extra": extra} | {f"{_OBSERVATION}{name}": value for name, value in named(observations).items()}

    def forward(self, inputs: Inputs, starts: Bool[Tensor, "T B"] | None = None) -> tuple[Phi, Float[Tensor, "..."]]:
        """φ of the action distribution and the normalised value. `starts`, the steps with blank memory, is ignored."""
        assert isinstance(inputs, dict)
        raw = {name.removeprefix(_OBSERVATION): value for name, value in inputs.items() if name != "extra"}
        observations = raw if isinstance(self.observation_norm, EntryEncoder) else raw["observation"]
        features = torch.cat([self.observation_norm(observations), self.extra_norm(inputs["extra"])], dim=-1)
        policy = value = features
        for layer in self.actor_body:
            policy = tanh_(layer(policy))
        for layer in self.critic_body:
            value = tanh_(layer(value))
        return self.phi(self.actor(policy)), self.critic(value)[..., 0]


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
