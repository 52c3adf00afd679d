"""What the locomotion families have in common: a robot, its own reward, and a term that depends on the task."""

import abc
from collections.abc import Mapping
from typing import Any

import mujoco
import torch
from gymnasium.spaces import Box
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.distribution import TaskDistribution
from metarl.envs.locomotion.env import LocomotionEnv
from metarl.envs.locomotion.reference import reference_distribution
from metarl.envs.locomotion.robot import Reading, Robot
from metarl.envs.locomotion.robots import GymnasiumRobot
from metarl.errors import UsageError
from metarl.tasks import Tasks, check_count
from metarl.vector_env import TaskVectorEnv


class LocomotionDistribution(TaskDistribution):
    """A robot with a reward that depends on the task.

    reward = forward_weight · progress + healthy_reward · healthy − cost. The task defines progress, for example a
    velocity or a negative distance; all else is the robot's. Observation: the robot's. The episode terminates if the
    robot is not healthy, unless `terminates` is False; the horizon truncates it.

    A family says `_sample` and `progress`; one whose tasks differ in the robot itself says `model_fields`; one with
    another form of reward overrides `score`. Backends: "mujoco" and "warp", and "gymnasium" for Gymnasium's own robots
    under the reward above. docs/A_ROBOT_OF_YOUR_OWN.md writes a family for a new robot.

    >>> family = metarl.make("HalfCheetahVel-v0")
    >>> tasks = family.sample(40, seed=0)
    """

    terminates = True

    def __init__(self, id: str, robot: Robot, task_space: Mapping[str, Box], horizon: int):
        check_count("horizon", horizon)
        self.id = id
        self.robot = robot
        self.task_space = task_space
        self.horizon = horizon
        self.action_space = robot.action_space
        self.observation_space = robot.observation_space
        self.backends: tuple[str, ...] = ("mujoco", "warp")
        # Gymnasium's environments compute their own reward: only the progress in it can be replaced.
        if isinstance(robot, GymnasiumRobot) and type(self).score is LocomotionDistribution.score:
            self.backends += ("gymnasium",)

    @staticmethod
    @abc.abstractmethod
    def progress(velocity: Float[Tensor, "B k"], position: Float[Tensor, "B k"], task: Tasks) -> Float[Tensor, "B"]:
        """What the task rewards, from the robot's velocity (m/s) and position (m). `task` has one row an environment.

        A static method, like `model_fields`: backend "gymnasium" sends both to its worker processes.
        """

    @staticmethod
    def model_fields(model: mujoco.MjModel, tasks: Tasks) -> dict[str, Tensor]:
        """Fields of the robot's model that differ between tasks, each `[M, ...]` in the shape that `model` has it.

        `metarl.envs.physics.fields.VARIABLE_FIELDS` lists what may differ. Most families have none.
        """
        return {}

    def score(
        self,
        reading: Reading,
        observation: Float[Tensor, "B D"],
        position: Float[Tensor, "B k"],
        velocity: Float[Tensor, "B k"],
        action: Float[Tensor, "B A"],
        task: Tasks,
    ) -> tuple[Float[Tensor, "B"], Bool[Tensor, "B"]]:
        """Reward, and whether the episode terminates."""
        robot = self.robot
        healthy = robot.healthy(reading)
        reward = robot.forward_weight * self.progress(velocity, position, task) - robot.cost(observation, action)
        reward = reward + robot.healthy_reward * healthy
        return reward, ~healthy if self.terminates else torch.zeros_like(healthy)

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
        options: dict[str, Any] = {"device": device, "seed": seed, "render_mode": render_mode}
        if backend == "gymnasium":
            assert isinstance(self.robot, GymnasiumRobot)
            reference = reference_distribution(
                self.id,
                self.robot,
                task_space=self.task_space,
                horizon=self.horizon,
                terminates=self.terminates,
                progress=self.progress,
                model_fields=self.model_fields,
            )
            return reference.make_env(num_tasks, envs_per_task, **options)
        return LocomotionEnv(self, num_tasks, envs_per_task, backend=backend, **options)


def check_positive(name: str, value: Any) -> float:
    """`value` as a float, if it is a finite number above 0; raises `UsageError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UsageError(f"{name} must be a finite number above 0, got {value!r}")
    return float(value)
