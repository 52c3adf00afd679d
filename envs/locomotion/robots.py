"""The five robots, as Gymnasium's version 5 environments define them: scene, start, observation, costs, health."""

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import gymnasium.envs.mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.devices import Constant
from metarl.envs.locomotion.body_quantities import body_inertias, body_velocities, external_forces
from metarl.envs.locomotion.robot import Reading, Robot
from metarl.envs.physics import SceneBuilder, SensorTime

_ASSETS = Path(gymnasium.envs.mujoco.__file__).parent / "assets"


class GymnasiumRobot(Robot):
    """A robot of Gymnasium's: its numbers and formulas are those of the environment `gymnasium_id`.

    >>> robot = HalfCheetah()
    >>> robot.gymnasium_id, robot.action_space.shape
    ('HalfCheetah-v5', (6,))
    """

    gymnasium_id: ClassVar[str]
    falls: ClassVar[bool] = True
    """Whether it can be unhealthy."""
    sensor_time = SensorTime.EVALUATION  # what `mj_step` leaves behind is what Gymnasium's environments read
    view = "track"
    contact_weight: float = 0.0

    @property
    def gymnasium_options(self) -> dict[str, Any]:
        """What `gymnasium.make` has to be told for the same robot, its weights included."""
        options = {"ctrl_cost_weight": self.control_weight}
        return options | ({"healthy_reward": self.healthy_reward} if self.falls else {})

    def squared_forces(self, observation: Float[Tensor, "W D"]) -> Float[Tensor, "W"]:
        """The sum of squares of the contact forces, which an observation ends with if it has any: six a body."""
        return observation[:, -6 * (self.scene.model.nbody - 1) :].square().sum(-1)


class HalfCheetah(GymnasiumRobot):
    """`HalfCheetah-v5`: observation [position without x (8), velocity (9)]; never unhealthy.

    >>> HalfCheetah().observation_space.shape
    (17,)
    """

    gymnasium_id = "HalfCheetah-v5"
    mjcf = _ASSETS / "half_cheetah.xml"
    frames = 5
    noise = 0.1
    normal_velocities = True
    falls = False
    control_weight = 0.1

    def observe(self, reading: Reading) -> Float[Tensor, "W 17"]:
        return torch.cat([reading.qpos[:, 1:], reading.qvel], dim=-1)

    def position(self, reading: Reading) -> Float[Tensor, "W 1"]:
        return reading.qpos[:, :1]


class Walker2d(GymnasiumRobot):
    """`Walker2d-v5`: observation [position without x (8), velocity clipped to ±10 (9)]; healthy while upright.

    >>> Walker2d().observation_space.shape
    (17,)
    """

    gymnasium_id = "Walker2d-v5"
    mjcf = _ASSETS / "walker2d_v5.xml"
    frames = 4
    noise = 5e-3
    control_weight = 1e-3
    healthy_reward = 1.0

    def observe(self, reading: Reading) -> Float[Tensor, "W D"]:
        return torch.cat([reading.qpos[:, 1:], reading.qvel.clamp(-10, 10)], dim=-1)

    def position(self, reading: Reading) -> Float[Tensor, "W 1"]:
        return reading.qpos[:, :1]

    def healthy(self, reading: Reading) -> Bool[Tensor, "W"]:
        height, angle = reading.qpos[:, 1], reading.qpos[:, 2]
        return (height > 0.8) & (height < 2.0) & (angle.abs() < 1.0)


class Hopper(Walker2d):
    """`Hopper-v5`: observation [position without x (5), velocity clipped to ±10 (6)]; healthy while upright.

    >>> Hopper().observation_space.shape
    (11,)
    """

    gymnasium_id = "Hopper-v5"
    mjcf = _ASSETS / "hopper.xml"

    def healthy(self, reading: Reading) -> Bool[Tensor, "W"]:
        height, angle = reading.qpos[:, 1], reading.qpos[:, 2]
        bounded = torch.cat([reading.qpos[:, 2:], reading.qvel], dim=-1).abs().amax(-1) < 100
        return bounded & (height > 0.7) & (angle.abs() < 0.2)


class Ant(GymnasiumRobot):
    """`Ant-v5`: observation [position without x, y (13), velocity (14), contact forces clipped to ±1 (13 · 6)].

    Healthy while the torso's height lies in [0.2, 1]. `with_position=True` puts x and y in front of the observation.

    >>> Ant(with_position=True).observation_space.shape
    (107,)
    """

    gymnasium_id = "Ant-v5"
    mjcf = _ASSETS / "ant.xml"
    frames = 5
    noise = 0.1
    normal_velocities = True
    control_weight = 0.5
    contact_weight = 5e-4
    zero_at_start = ("contacts",)
    healthy_reward = 1.0

    def __init__(self, *, with_position: bool = False):
        self.with_position = with_position

    def add_sensors(self, builder: SceneBuilder) -> None:
        builder.sense("torso", "body_position", ["torso"])
        builder.sense("com", "subtree_com", ["torso"])
        builder.sense("contacts", "contact_wrench", builder.bodies)

    @property
    def gymnasium_options(self) -> dict[str, Any]:
        return super().gymnasium_options | {"exclude_current_positions_from_observation": not self.with_position}

    def contact_forces(self, reading: Reading) -> Float[Tensor, "W bodies 6"]:
        com = self.scene.read(reading.sensordata, "com")[:, 0]
        return external_forces(self.scene.read(reading.sensordata, "contacts"), com).clamp(-1, 1)

    def observe(self, reading: Reading) -> Float[Tensor, "W D"]:
        position = reading.qpos if self.with_position else reading.qpos[:, 2:]
        return torch.cat([position, reading.qvel, self.contact_forces(reading).flatten(1)], dim=-1)

    def position(self, reading: Reading) -> Float[Tensor, "W 2"]:
        return self.scene.read(reading.sensordata, "torso")[:, 0, :2]

    def healthy(self, reading: Reading) -> Bool[Tensor, "W"]:
        height = reading.qpos[:, 2]
        return (height >= 0.2) & (height <= 1.0)

    def cost(self, observation: Float[Tensor, "W D"], action: Float[Tensor, "W nu"]) -> Float[Tensor, "W"]:
        contact = self.contact_weight * self.squared_forces(observation)
        return super().cost(observation, action) + contact


class Humanoid(GymnasiumRobot):
    """`Humanoid-v5`: healthy while the root's height lies in (1, 2).

    Observation: [position without x, y (22), velocity (23), `cinert` (13 · 10), `cvel` (13 · 6), actuator forces (17),
    contact forces (13 · 6)]. Deviation under Warp, which has no projected Gauss-Seidel solver: Newton's method instead.

    >>> Humanoid().observation_space.shape
    (348,)
    """

    gymnasium_id = "Humanoid-v5"
    mjcf = _ASSETS / "humanoid.xml"
    frames = 5
    noise = 1e-2
    forward_weight = 1.25
    control_weight = 0.1
    contact_weight = 5e-7
    zero_at_start = ("contacts",)
    healthy_reward = 5.0

    def add_sensors(self, builder: SceneBuilder) -> None:
        builder.sense("com", "subtree_com", ["torso"])
        builder.sense("contacts", "contact_wrench", builder.bodies)
        for kind in ("position", "quaternion", "linear_velocity", "angular_velocity"):
            builder.sense(kind, f"inertial_{kind}", builder.bodies)

    def contact_forces(self, reading: Reading) -> Float[Tensor, "W bodies 6"]:
        com = self.scene.read(reading.sensordata, "com")[:, 0]
        return external_forces(self.scene.read(reading.sensordata, "contacts"), com)

    def observe(self, reading: Reading) -> Float[Tensor, "W D"]:
        groups = ("com", "position", "quaternion", "linear_velocity", "angular_velocity")
        read = {group: self.scene.read(reading.sensordata, group) for group in groups}
        com, position = read["com"][:, 0], read["position"]
        mass, inertia, moments = (constant.like(position) for constant in self._constants)
        parts = [
            reading.qpos[:, 2:],
            reading.qvel,
            body_inertias(read["quaternion"], position, com, mass, inertia).flatten(1),
            body_velocities(read["angular_velocity"], read["linear_velocity"], position, com).flatten(1),
            reading.control @ moments,
            self.contact_forces(reading).flatten(1),
        ]
        return torch.cat(parts, dim=-1)

    @cached_property
    def _constants(self) -> tuple[Constant, Constant, Constant]:
        """Masses, moments of inertia, and the matrix from controls to joint torques (root excluded)."""
        model = self.scene.model
        moments = np.zeros((model.nu, model.nv - 6))
        moments[np.arange(model.nu), model.jnt_dofadr[model.actuator_trnid[:, 0]] - 6] = model.actuator_gear[:, 0]
        return Constant(model.body_mass[1:]), Constant(model.body_inertia[1:]), Constant(moments)

    def position(self, reading: Reading) -> Float[Tensor, "W 2"]:
        return self.scene.read(reading.sensordata, "com")[:, 0, :2]

    def healthy(self, reading: Reading) -> Bool[Tensor, "W"]:
        height = reading.qpos[:, 2]
        return (height > 1.0) & (height < 2.0)

    def cost(self, observation: Float[Tensor, "W D"], action: Float[Tensor, "W nu"]) -> Float[Tensor, "W"]:
        contact = (self.contact_weight * self.squared_forces(observation)).clamp(max=10)
        return super().cost(observation, action) + contact
