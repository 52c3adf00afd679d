"""Environments for the tests of the Gymnasium backend, in a module that workers import fast."""

import os
import time

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete


class Drift(gym.Env):
    """A noisy walk: what it observes tells the action it was given, its random numbers and its task."""

    observation_space = Dict({"place": Box(-np.inf, np.inf, (1, 2), np.float64), "kind": Discrete(2)})
    action_space = Box(np.float32([-1, 0]), np.float32([1, 3]))
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None, length=4):
        self.render_mode = render_mode
        self.length = length
        self.drift = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.time = self.np_random.normal(size=(1, 2)), 0
        return self.observe(), {}

    def step(self, action):
        self.place = self.place + action + self.drift + self.np_random.normal(size=(1, 2))
        self.time += 1
        info = {"success": float(action[0] > 0), "mixed": "text" if self.time % 2 else 3}
        return self.observe(), float(self.place.sum()), self.time == self.length, False, info

    def observe(self):
        return {"place": self.place, "kind": int(self.place[0, 0] > 0)}

    def render(self):
        return np.full((2, 3, 3), round(100 * self.drift), np.uint8)


class Stubborn(Exception):
    """Pickles, but does not unpickle."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


class Vicious(Drift):
    """Does something bad in its third step, if its task says so."""

    def step(self, action):
        if self.time == 2:
            if self.drift == 1:
                raise KeyError("no such joint")
            if self.drift == 2:
                raise Stubborn("hard", "luck")
            if self.drift == 3:
                os._exit(7)
        return super().step(action)


class Hanging(Drift):
    """Never ends its third step, if its task says so."""

    def step(self, action):
        if self.time == 2 and self.drift:
            time.sleep(3600)
        return super().step(action)


def set_drift(env, task):
    env.unwrapped.drift = task["drift"]
