"""Bernoulli bandits (Duan et al. 2016, RL², section 3.1)."""

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.envs.native.base import NativeDistribution, State
from metarl.randomness import EnvStreams
from metarl.tasks import Tasks, check_count


class Bandit(NativeDistribution):
    """Multi-armed Bernoulli bandits.

    An episode is `pulls` pulls. Action: the arm. Reward: 1 with the arm's probability, else 0. Observation: a
    constant 0, `[1]`, because everything that an agent learns comes from its rewards. Task parameter: `probabilities`
    `[arms]`, each uniform in [0, 1].

    >>> metarl.make("Bandit-v0", arms=10, pulls=100)
    """

    def __init__(self, arms: int = 5, pulls: int = 10):
        check_count("arms", arms)
        check_count("pulls", pulls)
        self.id = "Bandit-v0"
        self.arms = arms
        self.horizon = pulls
        self.observation_space = Box(0.0, 0.0, (1,), np.float32)
        self.action_space = Discrete(arms)
        self.task_space = {"probabilities": Box(0.0, 1.0, (arms,), np.float32)}

    def _sample(self, num_tasks: int, split: str, generator: torch.Generator) -> dict[str, Tensor]:
        return {"probabilities": torch.rand(num_tasks, self.arms, generator=generator)}

    def initial_state(self, streams: EnvStreams, task: Tasks) -> State:
        return {"observation": torch.zeros(len(task), 1, device=streams.state.device)}

    def transition(
        self, state: State, action: Int[Tensor, "B"], streams: EnvStreams, task: Tasks
    ) -> tuple[State, Float[Tensor, "B"], Bool[Tensor, "B"]]:
        probability = task.parameters["probabilities"].gather(1, action.long()[:, None])[:, 0]
        reward = (streams.uniform() < probability).float()
        return state, reward, torch.zeros_like(reward, dtype=torch.bool)

    def observe(self, state: State) -> Float[Tensor, "B 1"]:
        return state["observation"]
