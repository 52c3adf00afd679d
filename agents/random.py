"""The baseline that every learner has to beat: uniformly random actions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from metarl.actions import ActionFormat
from metarl.agent import Agent, AgentConfig
from metarl.randomness import make_generator
from metarl.rollout import Policy, PolicyStep, collect, success_metrics
from metarl.rollout.policy import DrawingPolicy
from metarl.spaces import Observations, batch_shape, check_action_space
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class RandomConfig(AgentConfig):
    """Options of the random agent.

    >>> from metarl.agents.random import RandomConfig
    >>> RandomConfig(num_tasks=5).envs_per_task
    20
    """

    @property
    def default_iterations(self) -> int:
        return 1


class RandomPolicy(DrawingPolicy):
    """Acts uniformly over the action space. `metarl.spaces.explored_range` says what stands for missing bounds.

    >>> from metarl.agents.random import RandomPolicy
    >>> policy = RandomPolicy(metarl.make("PointNavigation-v0").action_space, torch.Generator())
    >>> policy.act(torch.zeros(20, 10, 2)).actions.abs().max() <= 0.1
    tensor(True)
    """

    def __init__(self, action_space: gym.Space, generator: torch.Generator):
        check_action_space(action_space, "no random policy for this action space")
        super().__init__(generator)
        self.actions = ActionFormat(action_space)

    def act(self, observations: Observations) -> PolicyStep:
        return PolicyStep(self.actions.draw(batch_shape(observations), self.generator))


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
            **success_metrics(trajectories),
        }

    def adapt(self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None) -> RandomPolicy:
        self.check_adaptation(env, episodes, policy, RandomPolicy)
        return RandomPolicy(self.spec.action_space, make_generator("random", seed, device=self.device))

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return {}, {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """There is nothing to restore."""
