"""A family of two tasks from each of the packages that others wrote: id, parameters and `apply`, and nothing else.

Views of one environment (`wrappers`) are the packages' own. A family is named as `packages:NAME` in run folders.
"""

import numpy as np

from metarl.envs.gymnasium_env import GymnasiumDistribution


def family(name, env, parameters, apply, **options):
    """`parameters` has a value for each split, so that training and test tasks differ."""
    return GymnasiumDistribution(f"{name}-v0", env, parameters=parameters, apply=apply, **options)


def split(train, test):
    return {"train": train, "test": test}


# MiniGrid: where the agent starts -------------------------------------------------------------------------------------


def put_agent(env, task):
    env.unwrapped.agent_start_pos = (task["x"], 1)


def minigrid(name, wrappers, **options):
    starts = {"x": split([1, 2], [3])}
    return family(name, "minigrid:MiniGrid-Empty-5x5-v0", starts, put_agent, wrappers=wrappers, horizon=20, **options)


def minigrid_plain(**options):
    """Its observations have a text, which is left out as the refusal of the text says."""
    from gymnasium.wrappers import FilterObservation

    return minigrid("MiniGrid", [lambda env: FilterObservation(env, ["direction", "image"])], **options)


def minigrid_flat(**options):
    from minigrid.wrappers import FlatObsWrapper

    return minigrid("MiniGridFlat", [FlatObsWrapper], **options)


def minigrid_img(**options):
    from minigrid.wrappers import ImgObsWrapper

    return minigrid("MiniGridImg", [ImgObsWrapper], **options)


def minigrid_rgb(**options):
    from minigrid.wrappers import ImgObsWrapper, RGBImgPartialObsWrapper

    return minigrid("MiniGridRGB", [RGBImgPartialObsWrapper, ImgObsWrapper], **options)


# highway-env: traffic -------------------------------------------------------------------------------------------------


def set_traffic(env, task):
    env.unwrapped.config["vehicles_count"] = task["vehicles"]


def highway(**options):
    vehicles = {"vehicles": split([5, 10], [20])}
    return family("Highway", "highway_env:highway-v0", vehicles, set_traffic, horizon=6, **options)


def highway_continuous(**options):
    config = {"action": {"type": "ContinuousAction"}}
    vehicles = {"vehicles": split([5, 10], [20])}
    env_kwargs = {"config": config}
    return family(
        "HighwaySteering", "highway_env:highway-v0", vehicles, set_traffic, env_kwargs=env_kwargs, horizon=6, **options
    )


def highway_parking(**options):
    vehicles = {"vehicles": split([0, 1], [3])}
    return family("Parking", "highway_env:parking-v0", vehicles, set_traffic, has_success=True, horizon=6, **options)


# Arcade Learning Environment: difficulty ------------------------------------------------------------------------------


def set_difficulty(env, task):
    env.unwrapped.ale.setDifficulty(task["difficulty"])


def pong(name, obs_type, **options):
    difficulties = {"difficulty": split([0, 1], [2])}
    return family(
        name,
        "ale_py:ALE/Pong-v5",
        difficulties,
        set_difficulty,
        env_kwargs={"obs_type": obs_type},
        horizon=8,
        **options,
    )


def ale_ram(**options):
    return pong("PongRAM", "ram", **options)


def ale_picture(**options):
    return pong("Pong", "rgb", **options)


# Robots: goals and gravity --------------------------------------------------------------------------------------------


def set_reach_goal(env, task):
    env.unwrapped.task._sample_goal = lambda: task["goal"].astype(np.float32)


def panda_reach(**options):
    goals = {"goal": split([[0.1, 0.1, 0.1], [-0.1, 0.1, 0.1]], [[0.1, -0.1, 0.2]])}
    return family(
        "PandaReach", "panda_gym:PandaReach-v3", goals, set_reach_goal, has_success=True, horizon=8, **options
    )


def set_maze_goal(env, task):
    env.unwrapped.maze._unique_goal_locations = [np.array(task["cell"])]


def point_maze(**options):
    cells = {"cell": split([[1.0, 1.0], [-1.0, 1.0]], [[1.0, -1.0]])}
    return family(
        "PointMaze",
        "gymnasium_robotics:PointMaze_UMaze-v3",
        cells,
        set_maze_goal,
        has_success=True,
        horizon=8,
        **options,
    )


def set_gravity(env, task):
    env.unwrapped._env.physics.model.opt.gravity[2] = -task["gravity"]


def dm_control(**options):
    gravities = {"gravity": split([5.0, 10.0], [15.0])}
    return family(
        "CartpoleGravity", "shimmy:dm_control/cartpole-balance-v0", gravities, set_gravity, horizon=8, **options
    )


# Gymnasium's toy texts ------------------------------------------------------------------------------------------------


def set_rain(env, task):
    env.unwrapped.s = 0
    env.unwrapped.rain = task["rain"]


def taxi(**options):
    return family("Taxi", "Taxi-v4", {"rain": split([False], [True])}, set_rain, horizon=8, **options)


def set_natural(env, task):
    env.unwrapped.natural = task["natural"]


def blackjack(**options):
    naturals = {"natural": split([False], [True])}
    return family("Blackjack", "Blackjack-v1", naturals, set_natural, horizon=8, **options)


def set_slip(env, task):
    env.unwrapped.success_rate = task["success_rate"]


def frozen_lake(**options):
    return family(
        "FrozenLake", "FrozenLake-v1", {"success_rate": split([0.3, 0.6], [0.9])}, set_slip, horizon=8, **options
    )


FAMILIES = {
    "minigrid_plain": "minigrid",
    "minigrid_flat": "minigrid",
    "minigrid_img": "minigrid",
    "minigrid_rgb": "minigrid",
    "highway": "highway_env",
    "highway_continuous": "highway_env",
    "highway_parking": "highway_env",
    "ale_ram": "ale_py",
    "ale_picture": "ale_py",
    "panda_reach": "panda_gym",
    "point_maze": "gymnasium_robotics",
    "dm_control": "shimmy",
    "taxi": "gymnasium",
    "blackjack": "gymnasium",
    "frozen_lake": "gymnasium",
}
"""Name of a family above → the module that has to be installed for it."""
