"""The locomotion families on Gymnasium's own environments: slow, and what the other backends are compared with."""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from metarl.envs.gymnasium_env import GymnasiumDistribution
from metarl.envs.gymnasium_state import MUJOCO
from metarl.envs.locomotion.robots import GymnasiumRobot
from metarl.tasks import Tasks

Progress = Callable[[Tensor, Tensor, Tasks], Tensor]
ModelFields = Callable[[mujoco.MjModel, Tasks], Mapping[str, Tensor]]


class TaskReward(gym.Wrapper):
    """Puts the task's progress in the place of the forward velocity in the reward, and its dynamics into the model.

    >>> env = TaskReward(gym.make("Ant-v5"), AntVel.progress, AntVel.model_fields, forward_weight=1.0)
    >>> env.set_task({"velocity": 1.5})
    """

    def __init__(self, env: gym.Env, progress: Progress, model_fields: ModelFields, forward_weight: float):
        super().__init__(env)
        self._progress = progress
        self._model_fields = model_fields
        self._forward_weight = forward_weight
        self._original = copy.copy(self.unwrapped.model)
        self._scratch = mujoco.MjData(self._original)

    def set_task(self, values: Mapping[str, np.ndarray]) -> None:
        self._task = Tasks({name: torch.as_tensor(np.array(value))[None] for name, value in values.items()})
        fields = self._model_fields(self._original, self._task)
        model = self.unwrapped.model
        for name, rows in fields.items():
            getattr(model, name)[:] = rows[0].numpy()
        if fields:
            mujoco.mj_setConst(model, self._scratch)

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        velocity = torch.tensor([[info["x_velocity"], info.get("y_velocity", 0.0)]], dtype=torch.float64)
        position = torch.as_tensor(self.unwrapped.data.xpos[1, :2].copy())[None]
        progress = float(self._progress(velocity, position, self._task))
        reward = float(reward) + self._forward_weight * (progress - info["x_velocity"])
        return observation, reward, terminated, truncated, info


def reference_distribution(
    id: str,
    robot: GymnasiumRobot,
    *,
    task_space: Mapping[str, Box],
    horizon: int,
    terminates: bool,
    progress: Progress,
    model_fields: ModelFields,
) -> GymnasiumDistribution:
    """A family on worker processes that run `robot.gymnasium_id`."""
    options = robot.gymnasium_options | ({"terminate_when_unhealthy": terminates} if robot.falls else {})
    return GymnasiumDistribution(
        id,
        functools.partial(_make, robot.gymnasium_id, options, progress, model_fields, robot.forward_weight),
        parameters=task_space,
        apply=_apply,
        horizon=horizon,
        state=MUJOCO,  # the wrapper keeps nothing but its task
    )


def _make(
    id: str,
    options: dict[str, Any],
    progress: Progress,
    model_fields: ModelFields,
    forward_weight: float,
    render_mode: str | None = None,
) -> gym.Env:
    made = gym.make(id, max_episode_steps=-1, disable_env_checker=True, render_mode=render_mode, **options)
    return TaskReward(made, progress, model_fields, forward_weight)


def _apply(env: gym.Env, values: Mapping[str, np.ndarray]) -> None:
    env.get_wrapper_attr("set_task")(values)
