"""A family with any action space: one action pays most, and whoever learns finds it."""

import math

import gymnasium as gym
import numpy as np
import torch

from metarl.actions import ActionFormat
from metarl.envs.native.base import NativeDistribution

S = gym.spaces
STEPS = 5

SPACES = {
    "vector": S.Box(np.array([-0.1, 0], np.float32), np.array([0.1, 40], np.float32)),
    "number": S.Box(-1, 1, ()),
    "matrix": S.Box(-2, 2, (2, 2)),
    "discrete": S.Discrete(4, start=-1),
    "multi-discrete": S.MultiDiscrete([2, 4, 3], start=[0, 5, -2]),
    "multi-binary": S.MultiBinary(4),
    "mixed": S.Tuple((S.Box(-1, 3, (2,)), S.Discrete(3, start=2), S.MultiDiscrete([2, 4]), S.MultiBinary(2))),
}


class CombinationLock(NativeDistribution):
    """A lock of several numbers that pays `payoff`, the task, times the mean closeness of the numbers to its secret.

    A choice is close (1) if it is the right one, else not (0). A number of a box is the closer the nearer it is to a
    point at three quarters of where policies explore: exp(−2 d²), d in units of half its range.

    >>> metarl.check_distribution(CombinationLock(gym.spaces.MultiBinary(3)))
    """

    best = float(STEPS)
    """The largest mean return over tasks."""

    def __init__(self, action_space: gym.Space):
        self.id = "CombinationLock-v0"
        self.horizon = STEPS
        self.observation_space = S.Box(0.0, 0.0, (1,), np.float32)
        self.action_space = action_space
        self.task_space = {"payoff": S.Box(0.5, 1.5, (), np.float32)}
        self._format = ActionFormat(action_space)
        low, high = self._format.low, self._format.high
        secret = low + 0.75 * (high - low)
        self._secret = torch.where(self._format.whole, secret.round(), secret)
        self._half_width = (high - low) / 2

    def _sample(self, num_tasks, split, generator):
        return {"payoff": 0.5 + torch.rand(num_tasks, generator=generator)}

    def initial_state(self, streams, task):
        return {"nothing": torch.zeros(len(task), 1)}

    def transition(self, state, action, streams, task):
        box = ~self._format.whole
        action = torch.where(box, clipped(self.action_space, action), action)
        distance = (action - self._secret) / self._half_width
        closeness = torch.where(box, (-2 * distance.square()).exp(), (action == self._secret).float())
        reward = task.parameters["payoff"] * closeness.reshape(len(task), -1).mean(-1)
        return state, reward, torch.zeros(len(task), dtype=torch.bool)

    def observe(self, state):
        return state["nothing"]


def clipped(space, action):
    """`action` within the bounds of the boxes in `space`."""
    if isinstance(space, S.Box):
        return action.clamp(torch.as_tensor(space.low), torch.as_tensor(space.high))
    if isinstance(space, S.Tuple):
        parts = action.split([math.prod(part.shape) for part in space.spaces], -1)
        return torch.cat([clipped(part, own) for part, own in zip(space.spaces, parts, strict=True)], -1)
    return action


def mixed_lock():
    return CombinationLock(SPACES["mixed"])
