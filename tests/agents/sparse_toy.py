"""A task with wide observations, most columns of which never change: some are 0, some are a constant."""

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from metarl.envs.native.base import NativeDistribution

ACTIONS = 4


class SparseToy(NativeDistribution):
    """The task tells which action pays 1. Observation: `used` random bits, `told` constants and zeros, in any order."""

    id = "SparseToy"

    def __init__(self, width=300, used=40, told=20, size=3.0, horizon=10):
        self.width, self.used, self.size, self.horizon = width, used, size, horizon
        self.observation_space = Box(0.0, 255.0, (width,), np.float32)
        self.action_space = Discrete(ACTIONS)
        self.task_space = {"right": Box(0, ACTIONS - 1, (), np.int64)}
        order = torch.randperm(width, generator=torch.Generator().manual_seed(0))
        self.columns = order[:used]
        self.background = torch.zeros(width).index_copy(0, order[used : used + told], torch.arange(1.0, told + 1))

    def _sample(self, num_tasks, split, generator):
        return {"right": torch.randint(ACTIONS, (num_tasks,), generator=generator)}

    def initial_state(self, streams, task):
        return {"bits": (streams.uniform(self.used) < 0.5).float()}

    def transition(self, state, action, streams, task):
        reward = (action == task.parameters["right"]).float() + 0.1 * state["bits"][:, 0]
        return self.initial_state(streams, task), reward, torch.zeros_like(action, dtype=torch.bool)

    def observe(self, state):
        observations = self.background.repeat(len(state["bits"]), 1)
        return observations.index_copy_(1, self.columns, self.size * state["bits"])
