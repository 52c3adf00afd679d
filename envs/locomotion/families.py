"""Families whose tasks differ in the goal: a direction, a velocity or a position."""

import math

import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Float
from torch import Tensor

from metarl.envs.locomotion.family import LocomotionDistribution, check_positive
from metarl.envs.locomotion.robot import Robot
from metarl.envs.locomotion.robots import Ant, HalfCheetah, Humanoid
from metarl.tasks import Tasks, check_split

_SIGN = {"direction": Box(-1.0, 1.0, (), np.float32)}
_ANGLE = {"angle": Box(0.0, np.float32(2 * math.pi), (), np.float32)}


class TwoDirections(LocomotionDistribution):
    """Forward or backward along x: two tasks, the same in both splits. Task parameter: `direction`, 1 or -1.

    >>> metarl.make("HalfCheetahDir-v0").all_tasks("test").parameters["direction"]
    tensor([ 1., -1.])
    """

    def __init__(self, id: str, robot: Robot, horizon: int):
        super().__init__(id, robot, _SIGN, horizon)

    def all_tasks(self, split: str) -> Tasks:
        check_split(split)
        return Tasks({"direction": torch.tensor([1.0, -1.0])})

    @staticmethod
    def progress(velocity: Float[Tensor, "B k"], position: Float[Tensor, "B k"], task: Tasks) -> Float[Tensor, "B"]:
        return task.parameters["direction"] * velocity[:, 0]


class CircleDirections(LocomotionDistribution):
    """Any direction in the plane. Task parameter: `angle` in radians from the x axis, uniform in [0, 2π).

    >>> metarl.make("HumanoidDir-v0").task(angle=1.57)
    """

    def __init__(self, id: str, robot: Robot, horizon: int):
        super().__init__(id, robot, _ANGLE, horizon)

    def _sample(self, num_tasks: int, split: str, generator: torch.Generator) -> dict[str, Tensor]:
        return {"angle": 2 * math.pi * torch.rand(num_tasks, generator=generator)}

    @staticmethod
    def progress(velocity: Float[Tensor, "B 2"], position: Float[Tensor, "B 2"], task: Tasks) -> Float[Tensor, "B"]:
        angle = task.parameters["angle"]
        return angle.cos() * velocity[:, 0] + angle.sin() * velocity[:, 1]


class TargetVelocity(LocomotionDistribution):
    """Velocity along x as near as possible to a target: progress = −|v − target|.

    Task parameter: `velocity` (m/s), uniform in [0, `max_velocity`].

    >>> metarl.make("AntVel-v0", max_velocity=2.0).task(velocity=1.5)
    """

    def __init__(self, id: str, robot: Robot, horizon: int, max_velocity: float | int):
        self.max_velocity = check_positive("max_velocity", max_velocity)
        super().__init__(id, robot, {"velocity": Box(0.0, self.max_velocity, (), np.float32)}, horizon)

    def _sample(self, num_tasks: int, split: str, generator: torch.Generator) -> dict[str, Tensor]:
        return {"velocity": self.max_velocity * torch.rand(num_tasks, generator=generator)}

    @staticmethod
    def progress(velocity: Float[Tensor, "B k"], position: Float[Tensor, "B k"], task: Tasks) -> Float[Tensor, "B"]:
        return -(velocity[:, 0] - task.parameters["velocity"]).abs()


class HalfCheetahDir(TwoDirections):
    """A half cheetah runs forward or backward (Finn et al. 2017, MAML, section 5.3).

    reward = direction · v_x − 0.1 ‖a‖². Forward it is `HalfCheetah-v5`. Deviation: the paper's cost weight is 0.05
    (`control_weight`), and its velocity is that of the torso's centre of mass.

    >>> family = metarl.make("HalfCheetahDir-v0", control_weight=0.05)
    """

    def __init__(self, horizon: int = 200, control_weight: float | int = 0.1):
        robot = HalfCheetah()
        robot.control_weight = check_positive("control_weight", control_weight)
        super().__init__("HalfCheetahDir-v0", robot, horizon)


class HalfCheetahVel(TargetVelocity):
    """A half cheetah runs at a target velocity (Finn et al. 2017, MAML, section 5.3).

    reward = −|v_x − velocity| − 0.05 ‖a‖². `max_velocity` (m/s): 2 in MAML, 3 in ProMP, PEARL and VariBAD.

    >>> family = metarl.make("HalfCheetahVel-v0", max_velocity=3.0)
    """

    def __init__(self, horizon: int = 200, max_velocity: float | int = 2.0, control_weight: float | int = 0.05):
        robot = HalfCheetah()
        robot.control_weight = check_positive("control_weight", control_weight)
        super().__init__("HalfCheetahVel-v0", robot, horizon, max_velocity)


class AntDir(TwoDirections):
    """An ant walks forward or backward (Finn et al. 2017, MAML, section 5.3).

    reward = direction · v_x + 1 (healthy) − 0.5 ‖a‖² − 5e-4 ‖contact forces‖². Forward it is `Ant-v5`.

    >>> family = metarl.make("AntDir-v0")
    """

    def __init__(self, horizon: int = 200):
        super().__init__("AntDir-v0", Ant(), horizon)


class AntCircleDir(CircleDirections):
    """An ant walks in any direction (Rothfuss et al. 2019, ProMP; Zintgraf et al. 2020, VariBAD, use two).

    reward = d · v + 1 (healthy) − 0.5 ‖a‖² − 5e-4 ‖contact forces‖², with d the unit vector at `angle`.

    >>> family = metarl.make("AntDir-v0", circle=True)
    """

    def __init__(self, horizon: int = 200):
        super().__init__("AntDir-v0", Ant(), horizon)


def ant_dir(horizon: int = 200, circle: bool = False) -> AntDir | AntCircleDir:
    """`AntDir-v0`: forward and backward, or with `circle` any direction in the plane."""
    return AntCircleDir(horizon) if circle else AntDir(horizon)


class AntVel(TargetVelocity):
    """An ant walks at a target velocity (Finn et al. 2017, MAML, section 5.3).

    reward = −|v_x − velocity| + 1 (healthy) − 0.1 ‖a‖² − 5e-4 ‖contact forces‖². `max_velocity`: 3 m/s in the paper.

    >>> family = metarl.make("AntVel-v0")
    """

    def __init__(self, horizon: int = 200, max_velocity: float | int = 3.0):
        robot = Ant()
        robot.control_weight = 0.1
        super().__init__("AntVel-v0", robot, horizon, max_velocity)


class AntGoal(LocomotionDistribution):
    """An ant walks to a goal that it is not shown (Rakelly et al. 2019, PEARL, section 6.1; Zintgraf et al. 2020).

    reward = −‖position − goal‖₁ − 0.1 ‖a‖² − 5e-4 ‖contact forces‖². The observation begins with x and y. Only the
    horizon ends an episode. Task parameter: `goal` (m), at a random angle and a distance of 3 √u, u uniform in [0, 1].

    >>> metarl.make("AntGoal-v0").task(goal=[1.0, -2.0])
    """

    terminates = False
    radius = 3.0

    def __init__(self, horizon: int = 200):
        robot = Ant(with_position=True)
        robot.control_weight = 0.1
        robot.healthy_reward = 0.0
        super().__init__("AntGoal-v0", robot, {"goal": Box(-self.radius, self.radius, (2,), np.float32)}, horizon)

    def _sample(self, num_tasks: int, split: str, generator: torch.Generator) -> dict[str, Tensor]:
        angle = 2 * math.pi * torch.rand(num_tasks, generator=generator)
        distance = self.radius * torch.rand(num_tasks, generator=generator).sqrt()
        goal = distance[:, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
        return {"goal": goal.clamp(-self.radius, self.radius)}

    @staticmethod
    def progress(velocity: Float[Tensor, "B 2"], position: Float[Tensor, "B 2"], task: Tasks) -> Float[Tensor, "B"]:
        return -(position - task.parameters["goal"]).abs().sum(-1)


class HumanoidDir(CircleDirections):
    """A humanoid runs in a given direction (Rakelly et al. 2019, PEARL, section 6.1).

    reward = 1.25 d · v + 5 (healthy) − 0.1 ‖a‖² − min(10, 5e-7 ‖contact forces‖²), with d the unit vector at `angle`.
    At angle 0 it is `Humanoid-v5`.

    >>> family = metarl.make("HumanoidDir-v0", horizon=500)
    """

    def __init__(self, horizon: int = 200):
        super().__init__("HumanoidDir-v0", Humanoid(), horizon)
