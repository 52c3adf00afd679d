"""Families whose tasks differ in the robot's own dynamics."""

import mujoco
import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Float
from torch import Tensor

from metarl.envs.locomotion.family import LocomotionDistribution, check_positive
from metarl.envs.locomotion.robot import Robot
from metarl.envs.locomotion.robots import Hopper, Walker2d
from metarl.tasks import Tasks

_BASES = {"body_mass": 1.5, "body_inertia": 1.5, "dof_damping": 1.3, "geom_friction": 1.3}


class RandomParameters(LocomotionDistribution):
    """A robot of unknown masses, moments of inertia, joint dampings and frictions.

    Rakelly et al. 2019, PEARL, section 6.1, after the `rand_param_envs` package.

    The reward is the original's. Task parameters are factors on the fields of the original model, one for each number:
    `body_mass` `[bodies]` and `body_inertia` `[bodies, 3]`, 1.5^u; `dof_damping` `[degrees of freedom]` and
    `geom_friction` `[geoms, 3]`, 1.3^u, with u uniform in ±`log_scale_limit`. The world itself is not among the bodies.

    >>> family = metarl.make("HopperRandParams-v0", log_scale_limit=1.0)
    """

    def __init__(self, id: str, robot: Robot, horizon: int, log_scale_limit: float | int):
        self.log_scale_limit = check_positive("log_scale_limit", log_scale_limit)
        originals = _originals(robot.scene.model)
        space = {}
        for name, base in _BASES.items():
            most = np.float32(base**self.log_scale_limit)
            space[name] = Box(np.float32(1 / most), most, originals[name].shape, np.float32)
        super().__init__(id, robot, space, horizon)

    def _sample(self, num_tasks: int, split: str, generator: torch.Generator) -> dict[str, Tensor]:
        rows = {}
        for name, base in _BASES.items():
            space = self.task_space[name]
            exponent = self.log_scale_limit * (2 * torch.rand(num_tasks, *space.shape, generator=generator) - 1)
            rows[name] = (base**exponent).clamp(float(space.low.min()), float(space.high.max()))
        return rows

    @staticmethod
    def progress(velocity: Float[Tensor, "B 1"], position: Float[Tensor, "B 1"], task: Tasks) -> Float[Tensor, "B"]:
        return velocity[:, 0]

    @staticmethod
    def model_fields(model: mujoco.MjModel, tasks: Tasks) -> dict[str, Tensor]:
        fields = {}
        for name, original in _originals(model).items():
            values = torch.as_tensor(np.array(original)) * tasks.parameters[name].cpu().double()
            if name.startswith("body_"):
                values = torch.cat([torch.zeros_like(values[:, :1]), values], dim=1)  # the world
            fields[name] = values
        return fields


def _originals(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """The fields that the factors multiply, the world left out of the bodies."""
    bodies = {name: getattr(model, name)[1:] for name in ("body_mass", "body_inertia")}
    return bodies | {name: getattr(model, name) for name in ("dof_damping", "geom_friction")}


class Walker2dRandParams(RandomParameters):
    """`RandomParameters` of the walker. With all factors 1 it is `Walker2d-v5`.

    >>> family = metarl.make("Walker2dRandParams-v0")
    """

    def __init__(self, horizon: int = 200, log_scale_limit: float | int = 3.0):
        super().__init__("Walker2dRandParams-v0", Walker2d(), horizon, log_scale_limit)


class HopperRandParams(RandomParameters):
    """`RandomParameters` of the hopper. With all factors 1 it is `Hopper-v5`.

    >>> family = metarl.make("HopperRandParams-v0")
    """

    def __init__(self, horizon: int = 200, log_scale_limit: float | int = 3.0):
        super().__init__("HopperRandParams-v0", Hopper(), horizon, log_scale_limit)
