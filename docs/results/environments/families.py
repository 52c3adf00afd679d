"""Two families made of packages that others wrote (`pip install 'metarl-kit[thirdparty]'`).

cd docs/results/environments
metarl train rl2 --env families:minigrid_goals ...
"""

import gymnasium as gym
import numpy as np

from metarl import GymnasiumDistribution

CELLS = [[x, y] for x in (1, 2, 3) for y in (1, 2, 3) if (x, y) != (1, 1)]
TEST_CELLS = [[2, 2], [3, 1], [1, 3]]


class Success(gym.Wrapper):
    """MiniGrid ends an episode at the goal and does not call that a success."""

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, reward, terminated, truncated, info | {"success": terminated}


def move_goal(env, task):
    """The green square lies in the task's cell from the next reset on, instead of in the corner."""
    from minigrid.core.world_object import Goal
    from minigrid.envs import EmptyEnv

    room = env.unwrapped

    def generate(width, height):
        EmptyEnv._gen_grid(room, width, height)
        room.grid.set(width - 2, height - 2, None)
        room.put_obj(Goal(), *map(int, task["cell"]))

    room._gen_grid = generate


def minigrid_goals(vectorization: str = "async", horizon: int = 20) -> GymnasiumDistribution:
    """MiniGrid's empty room of 3 × 3 cells, seen as its 7 × 7 × 3 picture; the goal is in another cell in each task.

    The test goals are in cells where no training goal is.
    """
    from minigrid.wrappers import ImgObsWrapper

    return GymnasiumDistribution(
        "MiniGridGoals-v0",
        "minigrid:MiniGrid-Empty-5x5-v0",
        wrappers=[ImgObsWrapper, Success],
        parameters={"cell": {"train": [cell for cell in CELLS if cell not in TEST_CELLS], "test": TEST_CELLS}},
        apply=move_goal,
        horizon=horizon,
        has_success=True,
        vectorization=vectorization,
    )


def set_goal(env, task):
    env.unwrapped.task._sample_goal = lambda: task["goal"].astype(np.float32)


def panda_goals(vectorization: str = "async", horizon: int = 10) -> GymnasiumDistribution:
    """panda-gym's arm that reaches for a goal, which its observation shows; success is within 5 cm (m)."""
    low, high = np.array([-0.15, -0.15, 0.0]), np.array([0.15, 0.15, 0.3])
    return GymnasiumDistribution(
        "PandaGoals-v0",
        "panda_gym:PandaReachDense-v3",
        parameters={"goal": gym.spaces.Box(low, high, dtype=np.float64)},
        apply=set_goal,
        horizon=horizon,
        has_success=True,
        vectorization=vectorization,
    )
