"""Actor-critics that PPO trains: what they share, and one without memory."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import gymnasium as gym
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.agents.ppo import Inputs
from metarl.errors import UsageError
from metarl.nn.entries import EntryEncoder
from metarl.nn.heads import Head, Phi, head_for
from metarl.nn.mlp import tanh_
from metarl.nn.normalization import RunningNorm
from metarl.spaces import Observations, check_observation_space, entries, is_picture, is_vector, named

LOG_STD_RANGE = (-4.0, 1.0)
VALUES = "values"
"""The name under which a policy records the normalised values of what it saw."""
_OBSERVATION = "observation."


class _ObservationNorm(Protocol):
    """What turns observations into numbers of order one, `[..., F]`: a `RunningNorm` or an `EntryEncoder`."""

    def __call__(self, observations: Any, /) -> Tensor: ...
    def update(self, observations: Any, valid: Tensor, /) -> None: ...


class ActorCritic(nn.Module):
    """The parts of an actor-critic around its body: inputs, the scale of the policy and the scale of the value.

    A subclass has the body, and rescales the last layer of its value (`rescale_value`).

    Observations are normalised by running statistics, and pictures encoded (`EntryEncoder`). The value is in units of
    the running standard deviation of returns, and its last layer is rescaled whenever the statistics change (van
    Hasselt et al. 2016, PopArt). `keep_in_range` keeps the logarithm of the policy's standard deviation within
    `LOG_STD_RANGE` after each optimizer step.

    >>> from metarl.agents.actor_critic import ActorCritic
    >>> family = metarl.make("PointNavigation-v0")
    >>> ActorCritic(family.observation_space, family.action_space, initial_std=0.5).log_std.exp()
    tensor([0.5000, 0.5000], grad_fn=<ExpBackward0>)
    """

    def __init__(self, observation_space: gym.Space, action_space: gym.Space, initial_std: float):
        super().__init__()
        low, high = map(math.exp, LOG_STD_RANGE)
        if not low <= initial_std <= high:
            raise UsageError(f"initial_std must lie in [{low:.3f}, {high:.3f}], got {initial_std}")
        self.head: Head = head_for(action_space)
        check_observation_space(observation_space, "actor-critic")
        self.has_pictures = any(map(is_picture, entries(observation_space).values()))
        self.observation_norm: _ObservationNorm
        if is_vector(observation_space):
            self.observation_size = observation_space.shape[0]
            self.observation_norm = RunningNorm(self.observation_size)
        else:
            self.observation_norm = EntryEncoder(observation_space)
            self.observation_size = self.observation_norm.outputs
        self.return_norm = RunningNorm(1)
        self.log_std = nn.Parameter(torch.full((self.head.scale_size,), initial_std).log())

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

    def normalize(self, returns: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Converts returns to normalised values."""
        return (returns - self.return_norm.mean) / self.return_norm.std

    @torch.no_grad()
    def update_return_norm(self, returns: Float[Tensor, "..."], valid: Bool[Tensor, "..."]) -> None:
        """Adds `returns` and rescales the last layer of the value, so that denormalised values do not change."""
        mean, std = self.return_norm.mean.clone(), self.return_norm.std
        self.return_norm.update(returns[..., None], valid)
        new = self.return_norm
        self.rescale_value(std / new.std, (mean - new.mean) / new.std)

    def rescale_value(self, scale: Float[Tensor, "1"], shift: Float[Tensor, "1"]) -> None:
        """Changes the value V to `scale` · V + `shift` for all inputs, and leaves the policy as it is."""
        raise NotImplementedError


class MemorylessActorCritic(ActorCritic):
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

    def rescale_value(self, scale: Float[Tensor, "1"], shift: Float[Tensor, "1"]) -> None:
        self.critic.weight.mul_(scale[:, None])
        self.critic.bias.mul_(scale).add_(shift)

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
