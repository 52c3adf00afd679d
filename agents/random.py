"""The baseline that every learner has to beat: uniformly random actions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from metarl.agent import Agent, AgentConfig
from metarl.randomness import make_generator
from metarl.rollout import Policy, PolicyStep, collect, fault_metrics
from metarl.spaces import Observations, batch_shape
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class RandomConfig(AgentConfig):
    """Options of the random agent.

    >>> from metarl.agents.random import RandomConfig
    >>> RandomConfig(num_tasks=5).envs_per_task
    20
    """


class RandomPolicy(Policy):
    """Acts uniformly over the action space. An unbounded dimension of a box is taken as [-1, 1].

    >>> from metarl.agents.random import RandomPolicy
    >>> policy = RandomPolicy(metarl.make("PointNavigation-v0").action_space, torch.Generator())
    >>> policy.act(torch.zeros(20, 10, 2)).actions.abs().max() <= 0.1
    tensor(True)
    """

    def __init__(self, action_space: gym.spaces.Space, generator: torch.Generator):
        self.generator = generator
        self.space = action_space
        if isinstance(action_space, gym.spaces.Box):
            low = torch.as_tensor(action_space.low).clamp(min=-1e6)
            high = torch.as_tensor(action_space.high).clamp(max=1e6)
            unbounded = (high - low) >= 1e6
            self.low = torch.where(unbounded, -1.0, low).to(generator.device)
            self.high = torch.where(unbounded, 1.0, high).to(generator.device)

    def act(self, observations: Observations) -> PolicyStep:
        batch, device = batch_shape(observations), self.generator.device
        if isinstance(self.space, gym.spaces.Discrete):
            start, count = int(self.space.start), int(self.space.n)
            return PolicyStep(torch.randint(start, start + count, batch, generator=self.generator, device=device))
        share = torch.rand(*batch, *self.space.shape, generator=self.generator, device=device)
        return PolicyStep(self.low + share * (self.high - self.low))


class RandomAgent(Agent):
    """Acts at random; neither learns nor adapts.

    >>> from metarl.agents.random import RandomAgent, RandomConfig
    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> agent = RandomAgent(RandomConfig(), metarl.EnvSpec.of(family))
    >>> metarl.evaluate(agent, family, num_tasks=10).episodes_used
    [0]
    """

    config_class = RandomConfig

    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        trajectories = collect(env, self.adapt(env, 0, seed=seed), env.horizon, seed=seed)
        return {
            "env_steps": trajectories.num_transitions,
            "return_mean": float(trajectories.episode_returns().mean()),
            **fault_metrics(trajectories),
        }

    def adapt(self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None) -> RandomPolicy:
        return RandomPolicy(self.spec.action_space, make_generator("random", seed, device=self.device))

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return {}, {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """There is nothing to restore."""
