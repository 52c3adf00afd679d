"""The recurrent actor-critic of RL²: what it sees, what it remembers, how it acts."""

from dataclasses import dataclass, replace

import gymnasium as gym
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from metarl.nn.heads import CategoricalHead, Head, Phi, head_for
from metarl.nn.normalization import RunningNorm
from metarl.rollout import PolicyStep, Trajectories

LOG_STD_RANGE = (-4.0, 1.0)


class RecurrentActorCritic(nn.Module):
    """A GRU over [o, a₋₁, r₋₁, ended₋₁] with a policy and a value on top (Duan et al. 2016, section 2.2).

    Observations and rewards are normalised by running statistics; the value is in units of the running standard
    deviation of returns, and its last layer is rescaled whenever those move (van Hasselt et al. 2016, PopArt).
    """

    def __init__(self, observation_space: gym.spaces.Box, action_space: gym.Space, hidden: int, initial_std: float):
        super().__init__()
        self.head: Head = head_for(action_space)
        size = observation_space.shape[0]
        self.observation_norm = RunningNorm(size)
        self.reward_norm = RunningNorm(1)
        self.return_norm = RunningNorm(1)
        self.gru = nn.GRU(size + self.head.size + 2, hidden)
        self.actor = nn.Linear(hidden, self.head.size)
        self.critic = nn.Linear(hidden, 1)
        self.log_std = nn.Parameter(torch.full((self.head.scale_size,), initial_std).log())

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Orthogonal weights and zero biases; the policy starts near uniform, the value near zero."""
        for name, parameter in self.named_parameters():
            if name.endswith("log_std"):
                continue
            if parameter.ndim == 1:
                parameter.zero_()
                continue
            gain = {"actor.weight": 0.01, "critic.weight": 1.0}.get(name, 1.0)
            blocks = parameter.chunk(3) if name.startswith("gru") else (parameter,)
            for block in blocks:
                nn.init.orthogonal_(block, gain, generator=generator)

    def inputs(
        self,
        observations: Float[Tensor, "... D"],
        actions: Shaped[Tensor, "..."],
        rewards: Float[Tensor, "..."],
        ended: Bool[Tensor, "..."],
        first: Bool[Tensor, "..."],
    ) -> Float[Tensor, "... I"]:
        """What the GRU reads: the observation and what came of the action before it; zeros for that where `first`."""
        reward = self.reward_norm(rewards[..., None])
        before = torch.cat([self.head.features(actions), reward, ended[..., None].float()], dim=-1)
        before = before.masked_fill(first[..., None], 0.0)
        return torch.cat([self.observation_norm(observations), before], dim=-1)

    def trial_inputs(self, trajectories: Trajectories) -> Float[Tensor, "T M N I"]:
        """`inputs` for trajectories that each are one trial from its start."""

        def shifted(values: Tensor) -> Tensor:
            return torch.cat([values[:1], values[:-1]])  # the first is hidden by `first`

        first = torch.zeros_like(trajectories.ended)
        first[0] = True
        actions, rewards, ended = map(shifted, (trajectories.actions, trajectories.rewards, trajectories.ended))
        return self.inputs(trajectories.observations, actions, rewards, ended, first)

    def forward(
        self, inputs: Float[Tensor, "T B I"], hidden: Float[Tensor, "1 B H"] | None = None
    ) -> tuple[Phi, Float[Tensor, "T B"], Float[Tensor, "1 B H"]]:
        """φ of the action distribution and the normalised value at every step, and the last hidden state."""
        features, hidden = self.gru(inputs, hidden)
        output = self.actor(features)
        phi = (output, self.log_std.clamp(*LOG_STD_RANGE).expand(1, 1, -1)) if self.head.scale_size else (output,)
        return phi, self.critic(features)[..., 0], hidden

    def denormalize(self, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Normalised values as returns."""
        return values * self.return_norm.std + self.return_norm.mean

    @torch.no_grad()
    def update_return_norm(self, returns: Float[Tensor, "..."], valid: Bool[Tensor, "..."]) -> None:
        """Takes in `returns` and rescales the value's last layer so that `denormalize` of it stays what it was."""
        mean, std = self.return_norm.mean.clone(), self.return_norm.std
        self.return_norm.update(returns[..., None], valid)
        self.critic.weight.mul_((std / self.return_norm.std)[:, None])
        self.critic.bias.mul_(std).add_(mean - self.return_norm.mean).div_(self.return_norm.std)


@dataclass(frozen=True)
class Memory:
    """All that an RL² agent knows of its trial, for `[M, N]` environments."""

    hidden: Float[Tensor, "M N H"]
    action: Shaped[Tensor, "M N ..."]
    reward: Float[Tensor, "M N"]
    ended: Bool[Tensor, "M N"]
    first: Bool[Tensor, "M N"]
    """Whether nothing has happened yet."""


class RecurrentPolicy:
    """Acts with a `RecurrentActorCritic` and remembers across episodes; a `metarl.rollout.Policy` for one trial.

    After `episodes` finished episodes (where given) an environment's memory stays as it is.
    """

    def __init__(
        self,
        network: RecurrentActorCritic,
        generator: torch.Generator,
        memory: Memory | None = None,
        episodes: int | None = None,
    ):
        self.network = network
        self.generator = generator
        self.memory = memory
        self.episodes = episodes
        self._finished: Int[Tensor, "M N"] | None = None

    def act(self, observations: Float[Tensor, "M N D"]) -> PolicyStep:
        memory = self.memory or self._blank(observations)
        if self._finished is None:
            self._finished = torch.zeros_like(memory.first, dtype=torch.int64)
        with torch.no_grad():
            inputs = self.network.inputs(observations, memory.action, memory.reward, memory.ended, memory.first)
            phi, _, hidden = self.network(inputs.flatten(0, 1)[None], memory.hidden.flatten(0, 1)[None])
            actions = self.network.head.sample(phi, self.generator)
            log_probs = self.network.head.log_prob(phi, actions)
        shape = observations.shape[:2]
        action = actions[0].unflatten(0, shape)
        self._pending = replace(memory, hidden=hidden[0].unflatten(0, shape), action=action)
        self.memory = memory
        return PolicyStep(action, log_probs[0].unflatten(0, shape))

    def observe(
        self, rewards: Float[Tensor, "M N"], terminated: Bool[Tensor, "M N"], truncated: Bool[Tensor, "M N"]
    ) -> None:
        assert self.memory is not None
        assert self._finished is not None
        ended = terminated | truncated
        new = replace(self._pending, reward=rewards, ended=ended, first=torch.zeros_like(ended))
        if self.episodes is not None:
            new = _choose(self._finished < self.episodes, new, self.memory)
            self._finished = self._finished + ended
        self.memory = new

    def _blank(self, observations: Float[Tensor, "M N D"]) -> Memory:
        shape = observations.shape[:2]
        zeros = observations.new_zeros(shape)
        if isinstance(self.network.head, CategoricalHead):
            action = zeros.long() + self.network.head.start
        else:
            action = observations.new_zeros(*shape, self.network.head.size)
        return Memory(
            hidden=observations.new_zeros(*shape, self.network.gru.hidden_size),
            action=action,
            reward=zeros,
            ended=zeros.bool(),
            first=~zeros.bool(),
        )


def _choose(mask: Bool[Tensor, "M N"], chosen: Memory, other: Memory) -> Memory:
    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.reshape(*mask.shape, *[1] * (a.ndim - 2)), a, b)

    return Memory(**{name: pick(getattr(chosen, name), getattr(other, name)) for name in Memory.__dataclass_fields__})
