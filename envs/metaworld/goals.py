"""The goals of Meta-World's benchmarks: the random vectors that the package draws for a seed."""

import functools
from typing import Any

import numpy as np
from jaxtyping import Float64

GOALS_PER_TASK = 50
"""How many the benchmarks have."""
RANDOM_VECTOR_SIZE = 6
"""The widest random vector of the fifty tasks; the narrower ones are padded with zeros."""


def task_class(name: str) -> Any:
    """The package's environment class of the task `name`."""
    from metaworld.env_dict import (
        ALL_V3_ENVIRONMENTS,
    )  # takes seconds, which only those who need an environment should wait for

    return ALL_V3_ENVIRONMENTS[name]


@functools.cache
def draw_goals(names: tuple, seed: int, count: int = GOALS_PER_TASK) -> Float64[np.ndarray, "goals 6"]:
    """The `count` random vectors for each of `names` that `metaworld`'s benchmarks draw with `seed`, padded with zeros.

    The package draws from NumPy's global generator while it resets its environments, and settles the arm at each reset.
    Here the numbers come from a generator of the same kind and nothing moves, because the arm does not affect the draw.
    """
    random = np.random.RandomState(seed)
    goals = []
    for name in names:
        env = task_class(name)()
        env._set_task_called = True
        env._get_state_rand_vec = functools.partial(_draw, env, random)
        env.do_simulation = functools.partial(_stand_still, env)
        for _ in range(count):
            env.reset()
            goals.append(padded(env._last_rand_vec))
        env.close()
    return np.stack(goals)


def _draw(env: Any, random: np.random.RandomState) -> np.ndarray:
    space = env._random_reset_space
    env._last_rand_vec = random.uniform(space.low, space.high, size=space.low.size)
    return env._last_rand_vec


def _stand_still(env: Any, ctrl: Any, n_frames: int) -> None:
    import mujoco

    mujoco.mj_forward(env.model, env.data)  # tasks read the positions


def padded(vector: np.ndarray) -> Float64[np.ndarray, "6"]:
    """The vector with zeros up to the common width."""
    return np.pad(np.asarray(vector, np.float64), (0, RANDOM_VECTOR_SIZE - len(vector)))
