"""Families of a user's own, as a module that can be imported by name."""

import torch

from metarl.distribution import TaskDistribution
from metarl.envs.native.point_navigation import PointNavigation
from metarl.tasks import Tasks, check_split


class Goals(PointNavigation):
    """Six goals in each split. As in Meta-World, the test goals of a seed are the training goals of the next."""

    def __init__(self, horizon: int = 10, goals_seed: int = 0, step_cost: float = 0.0):
        super().__init__(horizon)
        self.id = "Goals-v0"
        self.goals_seed, self.step_cost = goals_seed, step_cost

    def all_tasks(self, split: str) -> Tasks:
        check_split(split)
        generator = torch.Generator().manual_seed(self.goals_seed + (split == "test"))
        return Tasks({"goal": torch.rand(6, 2, generator=generator) - 0.5})

    _sample = TaskDistribution._sample

    def reward(self, distance):
        return super().reward(distance) - self.step_cost


def make_goals(horizon: int = 10, **options) -> Goals:
    return Goals(horizon, **options)


class ThreeNumbers(Goals):
    """Another observation than that of its parent."""

    def __init__(self):
        super().__init__()
        self.observation_space = type(self.observation_space)(-1.0, 1.0, (3,))


goals = Goals()
