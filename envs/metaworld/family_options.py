"""The options that the tasks of a Meta-World family share, and the spaces that follow from them."""

import functools
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

from metarl.envs.metaworld.tasks import definition
from metarl.envs.metaworld.views import HAND_HIGH, HAND_LOW
from metarl.errors import UsageError

ACTION_SPACE = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
"""Displacement of the commanded hand (cm) and closing effort of the gripper."""

REWARDS = ("v2", "v1")


@dataclass(frozen=True)
class FamilyOptions:
    """Names of the tasks in the order of `task_index`, and how they are observed, rewarded and ended.

    >>> FamilyOptions(("reach-v3", "push-v3"), goal_observable=True).observation_space.shape
    (39,)
    """

    names: tuple[str, ...]
    reward: str = "v2"
    goal_observable: bool = False
    terminate_on_success: bool = False
    one_hot: bool = False

    def __post_init__(self) -> None:
        if self.reward not in REWARDS:
            raise UsageError(f"unknown reward {self.reward!r}: choose from {', '.join(REWARDS)}")

    @functools.cached_property
    def observation_space(self) -> gym.spaces.Box:
        """Hand (3), gripper (1) and objects (14), now and one step before; goal (3), zeros if hidden; one-hot task."""
        low, high = [*HAND_LOW, -1.0, *[-np.inf] * 14], [*HAND_HIGH, 1.0, *[np.inf] * 14]
        goal_low = goal_high = np.zeros(3)
        if self.goal_observable:
            tasks = [definition(name) for name in self.names]
            goal_low = np.min([task.goal_low for task in tasks], axis=0)
            goal_high = np.max([task.goal_high for task in tasks], axis=0)
        places = len(self.names) if self.one_hot else 0
        return gym.spaces.Box(
            np.array([*low, *low, *goal_low, *[0.0] * places], np.float32),
            np.array([*high, *high, *goal_high, *[1.0] * places], np.float32),
        )
