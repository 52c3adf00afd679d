"""What the locomotion families have in common: a robot, its original reward, and a term that depends on the task."""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.distribution import TaskDistribution
from metarl.envs.locomotion.env import LocomotionEnv
from metarl.envs.locomotion.robots import Reading, Robot
from metarl.errors import UsageError
from metarl.tasks import Tasks, check_count
from metarl.vector_env import TaskVectorEnv


class LocomotionDistribution(TaskDistribution):
    """A robot of Gymnasium's, with a reward that depends on the task.

    reward = forward_weight · progress + healthy_reward · healthy − cost, where the task defines progress, a velocity or
    a negative distance, and all else is the original's. Observation: that of the original environment (see the robot).
    The original's health ends the episode where `terminates`; the horizon truncates it.
    """

    backends = ("mujoco", "warp", "gymnasium")
    terminates = True

    def __init__(self, id: str, robot: Robot, task_space: Mapping[str, Box], horizon: int):
        check_count("horizon", horizon)
        self.id = id
        self.robot = robot
        self.task_space = task_space
        self.horizon = horizon
        model = robot.scene.model
        low, high = model.actuator_ctrlrange.T.astype(np.float32)
        self.action_space = Box(low, high, dtype=np.float32)
        empty = torch.zeros(1, model.nsensordata)
        reading = Reading(torch.zeros(1, model.nq), torch.zeros(1, model.nv), empty, torch.zeros(1, model.nu))
        self.observation_space = Box(-np.inf, np.inf, (robot.observe(reading).shape[1],), np.float32)

    @staticmethod
    @abc.abstractmethod
    def progress(velocity: Float[Tensor, "B k"], place: Float[Tensor, "B k"], task: Tasks) -> Float[Tensor, "B"]:
        """What takes the place of the original's forward velocity. `task` has one row an environment."""

    def judge(
        self,
        reading: Reading,
        observation: Float[Tensor, "B D"],
        place: Float[Tensor, "B k"],
        velocity: Float[Tensor, "B k"],
        action: Float[Tensor, "B A"],
        task: Tasks,
    ) -> tuple[Float[Tensor, "B"], Bool[Tensor, "B"]]:
        """Reward, and whether the episode terminates."""
        robot = self.robot
        healthy = robot.healthy(reading)
        reward = robot.forward_weight * self.progress(velocity, place, task) - robot.cost(observation, action)
        reward = reward + robot.healthy_reward * healthy
        return reward, ~healthy if self.terminates else torch.zeros_like(healthy)

    def model_fields(self, tasks: Tasks) -> dict[str, Tensor]:
        """Fields of the simulation model that differ between tasks, each `[M, ...]`; most families have none."""
        return {}

    def _preferred_backend(self, device: torch.device) -> str:
        return "warp" if device.type == "cuda" else "mujoco"

    def _make_env(
        self,
        num_tasks: int,
        envs_per_task: int,
        backend: str,
        device: torch.device,
        seed: int,
        render_mode: str | None,
    ) -> TaskVectorEnv:
        if backend == "gymnasium":
            from metarl.envs.locomotion.reference import reference_distribution

            reference = reference_distribution(self)
            return reference.make_env(num_tasks, envs_per_task, device=device, seed=seed, render_mode=render_mode)
        return LocomotionEnv(
            self,
            num_tasks,
            envs_per_task,
            backend=backend,
            device=device,
            seed=seed,
            render_mode=render_mode,
        )


def check_positive(name: str, value: Any) -> float:
    """`value` as a float, if it is a finite number above 0; raises `UsageError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UsageError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)
