"""Paths of an agent's episodes in the plane, at several stages of adaptation, for the families of the point robot."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarl.agent import Agent
from metarl.distribution import TaskDistribution
from metarl.envs.native.point_navigation import PointNavigation
from metarl.experiment.files import write_atomically
from metarl.experiment.report_page import PATHS
from metarl.randomness import derive_seed
from metarl.rollout import Trajectories, collect

TASKS = 6
EPISODES = 3
"""Episodes of each task that are shown, at most."""
STAGES = 3
"""Stages of adaptation that are shown, at most: the first and the last among them."""


def write_paths(run: Path, agent: Agent, distribution: TaskDistribution, stages: list[int], *, seed: int) -> None:
    """Writes paths.json into the run folder if the family has paths in the plane; else it removes one that is there."""
    if isinstance(distribution, PointNavigation) and type(distribution).observe is PointNavigation.observe:
        write_atomically(run / PATHS, json.dumps(sample_paths(agent, distribution, stages, seed=seed)))
    else:
        (run / PATHS).unlink(missing_ok=True)


def sample_paths(agent: Agent, family: PointNavigation, stages: list[int], *, seed: int) -> dict[str, Any]:
    """Paths on test tasks after some of `stages`, numbers of episodes used, as values for JSON.

    `paths` is `[stage][task][episode]`, each a list of positions from the start to the end of the episode, and `goals`
    has a position for each task.
    """
    chosen = [stages[round(i * (len(stages) - 1) / (STAGES - 1))] for i in range(STAGES)]
    chosen = list(dict.fromkeys(chosen))
    tasks = family.sample(TASKS, split="test", seed=seed)
    env = family.make_env(TASKS, agent.config.envs_per_task, device=agent.device)
    paths, policy, spent = [], None, 0
    try:
        env.set_tasks(tasks)
        for stage, used in enumerate(chosen):
            adapt, act, reset = (derive_seed("paths", seed, stage, part) for part in ("adapt", "act", "reset"))
            policy = agent.adapt(env, used - spent, seed=adapt, policy=policy)
            fork = agent.adapt(env, 0, seed=act, policy=policy).fork()
            paths.append(_first_episodes(collect(env, fork, episodes=1, seed=reset)))
            spent = used
    finally:
        env.close()
    goals = tasks.parameters["goal"].tolist()
    square = {"extent": family.extent, "goal_radius": family.goal_radius}
    return square | {"goals": goals, "episodes_used": chosen, "paths": paths}


def _first_episodes(trajectories: Trajectories) -> list[list[list[list[float]]]]:
    """For each task, the positions of the first episode of its first few environments."""
    first = trajectories.episode_index == 0
    seen, reached = trajectories.observations, trajectories.final_observations
    assert isinstance(seen, Tensor)
    assert isinstance(reached, Tensor)
    _, num_tasks, envs_per_task = first.shape
    return [
        [
            torch.cat([seen[0, task, env][None], reached[first[:, task, env], task, env]]).tolist()
            for env in range(min(EPISODES, envs_per_task))
        ]
        for task in range(num_tasks)
    ]
