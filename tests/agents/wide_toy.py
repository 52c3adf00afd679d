"""A trivial task with observations of many random bits, which tell nothing."""

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from metarl.envs.native.base import NativeDistribution
from metarl.tasks import check_count


class WideToy(NativeDistribution):
    """Ten steps, two actions, of which the second pays 1. Observation: `width` bits, drawn anew in every step."""

    def __init__(self, width=250):
        check_count("width", width)
        self.id = "WideToy"
        self.width = width
        self.horizon = 10
        self.observation_space = Box(0.0, 1.0, (width,), np.float32)
        self.action_space = Discrete(2)
        self.task_space = {"unused": Box(0.0, 1.0, (), np.float32)}

    def _sample(self, num_tasks, split, generator):
        return {"unused": torch.rand(num_tasks, generator=generator)}

    def initial_state(self, streams, task):
        return {"bits": (streams.uniform(self.width) < 0.5).float()}

    def transition(self, state, action, streams, task):
        return self.initial_state(streams, task), action.float(), torch.zeros_like(action, dtype=torch.bool)

    def observe(self, state):
        return state["bits"]
