"""Families that are seen: a bright square in one of four quarters of a picture, and as a dictionary with a vector."""

import gymnasium as gym
import numpy as np
import torch

from metarl.envs.native.base import NativeDistribution

ACTIONS = 4


class Quarters(NativeDistribution):
    """A square lights up in one of four quarters; the right action is the quarter's number plus the task's `shift`.

    Observation: a picture `[size, size, 3]`. Reward: 1 for the right action. Each step shows another quarter.
    """

    id = "Quarters-v0"
    has_success = True

    def __init__(self, size=12, horizon=8, shifts=ACTIONS):
        self.size, self.horizon, self.shifts = size, horizon, shifts
        self.observation_space = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(ACTIONS)
        self.task_space = {"shift": gym.spaces.Box(0, ACTIONS - 1, (), np.int64)}

    def _sample(self, num_tasks, split, generator):
        return {"shift": torch.randint(self.shifts, (num_tasks,), generator=generator)}

    def initial_state(self, streams, task):
        draw = (streams.uniform(3) * torch.tensor([4, self.size // 2 - 1, self.size // 2 - 1])).long()
        return {"quarter": draw[:, 0], "place": draw[:, 1:], "right": torch.zeros(len(draw), dtype=torch.bool)}

    def transition(self, state, action, streams, task):
        right = action == (state["quarter"] + task.parameters["shift"]) % ACTIONS
        return self.initial_state(streams, task) | {"right": right}, right.float(), torch.zeros_like(right)

    def success(self, state, task):
        return state["right"]

    def observe(self, state):
        half, quarter, place = self.size // 2, state["quarter"], state["place"]
        picture = torch.full((len(quarter), self.size, self.size, 3), 40, dtype=torch.uint8)
        rows, columns = (quarter // 2) * half + place[:, 0], (quarter % 2) * half + place[:, 1]
        each = torch.arange(len(quarter))
        for i in range(2):
            for j in range(2):
                picture[each, rows + i, columns + j] = torch.tensor([250, 220, 200], dtype=torch.uint8)
        return picture


class SeenOrTold(Quarters):
    """The quarter is shown in the picture or told by the vector, never both."""

    id = "SeenOrTold-v0"

    def __init__(self, **options):
        super().__init__(**options)
        told = gym.spaces.Box(0, 1, (ACTIONS,), np.float32)
        self.observation_space = gym.spaces.Dict({"view.camera": self.observation_space, "told": told})

    def observe(self, state):
        told = state["place"].sum(-1) % 2 == 0
        picture = super().observe(state).masked_fill(told[:, None, None, None], 40)
        one_hot = torch.nn.functional.one_hot(state["quarter"], ACTIONS).float()
        return {"view.camera": picture, "told": one_hot * told[:, None]}
