"""The locomotion families on Gymnasium's own environments: slow, and what the other backends are compared with."""

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import mujoco
import numpy as np
import torch
from torch import Tensor

from metarl.envs.gymnasium_env import GymnasiumDistribution
from metarl.tasks import Tasks

if TYPE_CHECKING:
    from metarl.envs.locomotion.family import LocomotionDistribution

Progress = Callable[[Tensor, Tensor, Tasks], Tensor]


class TaskReward(gym.Wrapper):
    """Puts the task's progress in the place of the forward velocity in the reward, and its dynamics into the model."""

    def __init__(self, env: gym.Env, progress: Progress, forward_weight: float):
        super().__init__(env)
        self._progress = progress
        self._forward_weight = forward_weight
        model = self.unwrapped.model
        self._scratch = mujoco.MjData(model)
        self._originals = {name: getattr(model, name).copy() for name in ("body_mass", "body_inertia", "dof_damping")}
        self._originals["geom_friction"] = model.geom_friction.copy()

    def set_task(self, values: Mapping[str, np.ndarray]) -> None:
        self._task = Tasks({name: torch.as_tensor(np.array(value))[None] for name, value in values.items()})
        factors = {name: np.asarray(value) for name, value in values.items() if name in self._originals}
        if not factors:
            return
        model = self.unwrapped.model
        for name, factor in factors.items():
            first = 1 if name.startswith("body_") else 0  # the world is no part of the robot
            getattr(model, name)[first:] = self._originals[name][first:] * factor
        mujoco.mj_setConst(model, self._scratch)

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        velocity = torch.tensor([[info["x_velocity"], info.get("y_velocity", 0.0)]], dtype=torch.float64)
        place = torch.as_tensor(self.unwrapped.data.xpos[1, :2].copy())[None]
        progress = float(self._progress(velocity, place, self._task))
        reward = float(reward) + self._forward_weight * (progress - info["x_velocity"])
        return observation, reward, terminated, truncated, info


def reference_distribution(family: "LocomotionDistribution") -> GymnasiumDistribution:
    """`family` on worker processes that run `robot.gymnasium_id`."""
    robot = family.robot
    options = robot.gymnasium_options | ({"terminate_when_unhealthy": family.terminates} if robot.falls else {})
    return GymnasiumDistribution(
        family.id,
        functools.partial(_make, robot.gymnasium_id, options, family.progress, robot.forward_weight),
        parameters=family.task_space,
        apply=_apply,
        horizon=family.horizon,
    )


def _make(
    id: str, options: dict[str, Any], progress: Progress, forward_weight: float, render_mode: str | None = None
) -> gym.Env:
    made = gym.make(id, max_episode_steps=-1, disable_env_checker=True, render_mode=render_mode, **options)
    return TaskReward(made, progress, forward_weight)


def _apply(env: gym.Env, values: Mapping[str, np.ndarray]) -> None:
    env.get_wrapper_attr("set_task")(values)
