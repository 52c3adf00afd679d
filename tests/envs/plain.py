"""Plain environments for the tests of the Gymnasium backend, in a module that workers import fast."""

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete


class Plain(gym.Env):
    """Its constructor takes no render_mode, and it ends by itself after `limit` steps."""

    observation_space = Box(-9, 9, (1,), np.float32)
    action_space = Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}
    drift = 0.0

    def __init__(self, limit=1000):
        self.limit = limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.full(1, self.drift, np.float32), 1.0, False, self.time == self.limit, {}


class Refusing(Plain):
    def __init__(self, render_mode="rgb_array"):
        assert render_mode is not None
        super().__init__()


class Doubled(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    def __init__(self, env, factor=2):
        gym.utils.RecordConstructorArgs.__init__(self, factor=factor)
        gym.ObservationWrapper.__init__(self, env)
        self.factor = factor

    def observation(self, observation):
        return self.factor * observation


class Views(gym.Env):
    """A picture and a number that tell the time."""

    observation_space = Dict(camera=Box(0, 255, (9, 8), np.uint8), clock=Box(-np.inf, np.inf, (), np.float64))
    action_space = Discrete(2)
    offset = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action):
        self.time += 1
        return self.observe(), 0.0, self.time == 3, False, {}

    def observe(self):
        return {"camera": np.full((9, 8), 10 * self.time + self.offset, np.uint8), "clock": np.float64(self.time)}


class Recorder(gym.Env):
    """Refuses whatever is not in its action space, and observes the numbers it was given."""

    observation_space = Box(-np.inf, np.inf, (6,), np.float64)

    def __init__(self, space):
        self.action_space = space

    def reset(self, *, seed=None, options=None):
        return np.zeros(6), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return np.resize(gym.spaces.flatten(self.action_space, action), 6).astype(np.float64), 0.0, False, False, {}


class Noisy(gym.Env):
    """A walk whose numbers turn bad where its task says so: `{step of its life: (where, what)}`."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-1, 1, (1,))

    def __init__(self, length=7):
        self.length = length
        self.life = 0
        self.plan = {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.place = 0, self.np_random.normal(size=2)
        return self.place.copy(), {}

    def step(self, action):
        self.time += 1
        self.life += 1
        self.place = self.place + action + self.np_random.normal(size=2)
        observation, reward = self.place.copy(), float(self.place.sum())
        where, what = self.plan.get(self.life, (None, 0.0))
        if where == "reward":
            reward = what
        elif where == "observation":
            observation[1] = what
        return observation, reward, self.time == self.length, False, {"success": reward > 0}


class BadStarts(Noisy):
    """Its resets are bad as often as told."""

    def __init__(self, bad):
        super().__init__()
        self.bad = bad

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        self.bad -= 1
        return (observation if self.bad < 0 else observation * np.nan), info


class Told(gym.Env):
    """Remembers the options of its resets, and ends every episode after a step."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.float32([(options or {}).get(name, 0) for name in ("a", "b", "c")]), {}

    def step(self, action):
        return np.ones(3, np.float32), 0.0, True, False, {}
