"""The five robots, as Gymnasium's version 5 environments define them: scene, start, observation, costs, health."""

import abc
from dataclasses import dataclass
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
from metarl.envs.physics import Scene, SceneBuilder
from metarl.randomness import EnvStreams, standard_normal

_ASSETS = Path(gymnasium.envs.mujoco.__file__).parent / "assets"


@dataclass(frozen=True)
class Reading:
    """What is known of `W` worlds after a step, or at the start of an episode."""

    qpos: Float[Tensor, "W nq"]
    qvel: Float[Tensor, "W nv"]
    sensordata: Float[Tensor, "W S"]
    control: Float[Tensor, "W nu"]


class Robot(abc.ABC):
    """One robot. Its functions are batched and pure; their numbers and formulas are those of `gymnasium_id`."""

    gymnasium_id: ClassVar[str]
    scene_file: ClassVar[str]
    frames: ClassVar[int]
    """Simulated time steps per environment step."""
    noise: ClassVar[float]
    """Of the start: positions are uniform within ± `noise`."""
    normal_velocities: ClassVar[bool] = False
    """Whether velocities start normally distributed (times `noise`) instead of uniformly."""
    falls: ClassVar[bool] = True
    """Whether it can be unhealthy."""
    forward_weight: float = 1.0
    control_weight: float
    contact_weight: float = 0.0
    healthy_reward: float = 0.0

    @cached_property
    def scene(self) -> Scene:
        builder = SceneBuilder(_ASSETS / self.scene_file)
        self._add_sensors(builder)
        return builder.build()

    @property
    def gymnasium_options(self) -> dict[str, Any]:
        """What `gymnasium.make` has to be told for the same robot, its weights included."""
        options = {"ctrl_cost_weight": self.control_weight}
        return options | ({"healthy_reward": self.healthy_reward} if self.falls else {})

    @cached_property
    def _rest(self) -> Constant:
        return Constant(self.scene.model.qpos0)

    @cached_property
    def _forces(self) -> int:
        """How many numbers at the end of an observation are contact forces, where there are any."""
        return 6 * (self.scene.model.nbody - 1)

    def _add_sensors(self, builder: SceneBuilder) -> None:  # noqa: B027
        """Adds what observation and reward need; planar robots need nothing."""

    def start(self, streams: EnvStreams) -> tuple[Float[Tensor, "W nq"], Float[Tensor, "W nv"]]:
        """Noisy positions and velocities at the start of an episode."""
        nq, nv = self.scene.model.nq, self.scene.model.nv
        numbers = streams.uniform(nq + (2 * nv if self.normal_velocities else nv))
        shift, rest = 2 * numbers[:, :nq] - 1, numbers[:, nq:]
        spread = standard_normal(rest.unflatten(1, (2, nv))) if self.normal_velocities else 2 * rest - 1
        return self._rest.like(shift) + self.noise * shift, self.noise * spread

    @abc.abstractmethod
    def observe(self, reading: Reading) -> Float[Tensor, "W D"]: ...

    @abc.abstractmethod
    def place(self, reading: Reading) -> Float[Tensor, "W k"]:
        """The place (m) whose change is the robot's velocity: along x (k = 1), or in the plane (k = 2)."""

    def healthy(self, reading: Reading) -> Bool[Tensor, "W"]:
        """Where not, the original environment terminates."""
        return torch.ones(len(reading.qpos), dtype=torch.bool, device=reading.qpos.device)

    def cost(self, observation: Float[Tensor, "W D"], action: Float[Tensor, "W nu"]) -> Float[Tensor, "W"]:
        """What the original environment subtracts from the reward, from what `observe` returned."""
        return self.control_weight * action.square().sum(-1)


class HalfCheetah(Robot):
    """`HalfCheetah-v5`: observation [position without x (8), velocity (9)]; never unhealthy."""

    gymnasium_id = "HalfCheetah-v5"
    scene_file = "half_cheetah.xml"
    frames = 5
    noise = 0.1
    normal_velocities = True
    falls = False
    control_weight = 0.1

    def observe(self, reading: Reading) -> Float[Tensor, "W 17"]:
        return torch.cat([reading.qpos[:, 1:], reading.qvel], dim=-1)

    def place(self, reading: Reading) -> Float[Tensor, "W 1"]:
        return reading.qpos[:, :1]


class Walker2d(Robot):
    """`Walker2d-v5`: observation [position without x (8), velocity clipped to ±10 (9)]; healthy while upright."""

    gymnasium_id = "Walker2d-v5"
    scene_file = "walker2d_v5.xml"
    frames = 4
    noise = 5e-3
    control_weight = 1e-3
    healthy_reward = 1.0

    def observe(self, reading: Reading) -> Float[Tensor, "W D"]:
        return torch.cat([reading.qpos[:, 1:], reading.qvel.clamp(-10, 10)], dim=-1)

    def place(self, reading: Reading) -> Float[Tensor, "W 1"]:
        return reading.qpos[:, :1]

    def healthy(self, reading: Reading) -> Bool[Tensor, "W"]:
        height, angle = reading.qpos[:, 1], reading.qpos[:, 2]
        return (height > 0.8) & (height < 2.0) & (angle.abs() < 1.0)


class Hopper(Walker2d):
    """`Hopper-v5`: observation [position without x (5), velocity clipped to ±10 (6)]; healthy while upright."""

    gymnasium_id = "Hopper-v5"
    scene_file = "hopper.xml"

    def healthy(self, reading: Reading) -> Bool[Tensor, "W"]:
        height, angle = reading.qpos[:, 1], reading.qpos[:, 2]
        bounded = torch.cat([reading.qpos[:, 2:], reading.qvel], dim=-1).abs().amax(-1) < 100
        return bounded & (height > 0.7) & (angle.abs() < 0.2)


class Ant(Robot):
    """`Ant-v5`: observation [position without x, y (13), velocity (14), contact forces clipped to ±1 (13 · 6)].

    Healthy while the torso's height lies in [0.2, 1]. `with_place=True` puts x and y in front of the observation.
    """

    gymnasium_id = "Ant-v5"
    scene_file = "ant.xml"
    frames = 5
    noise = 0.1
    normal_velocities = True
    control_weight = 0.5
    contact_weight = 5e-4
    healthy_reward = 1.0

    def __init__(self, *, with_place: bool = False):
        self.with_place = with_place

    def _add_sensors(self, builder: SceneBuilder) -> None:
        builder.sense("torso", "body_position", ["torso"])
        builder.sense("com", "subtree_com", ["torso"])
        builder.sense("contacts", "contact_wrench", builder.bodies)

    @property
    def gymnasium_options(self) -> dict[str, Any]:
        return super().gymnasium_options | {"exclude_current_positions_from_observation": not self.with_place}

    def contact_forces(self, reading: Reading) -> Float[Tensor, "W bodies 6"]:
        com = self.scene.read(reading.sensordata, "com")[:, 0]
        return external_forces(self.scene.read(reading.sensordata, "contacts"), com).clamp(-1, 1)

    def observe(self, reading: Reading) -> Float[Tensor, "W D"]:
        position = reading.qpos if self.with_place else reading.qpos[:, 2:]
        return torch.cat([position, reading.qvel, self.contact_forces(reading).flatten(1)], dim=-1)

    def place(self, reading: Reading) -> Float[Tensor, "W 2"]:
        return self.scene.read(reading.sensordata, "torso")[:, 0, :2]

    def healthy(self, reading: Reading) -> Bool[Tensor, "W"]:
        height = reading.qpos[:, 2]
        return (height >= 0.2) & (height <= 1.0)

    def cost(self, observation: Float[Tensor, "W D"], action: Float[Tensor, "W nu"]) -> Float[Tensor, "W"]:
        contact = observation[:, -self._forces :].square().sum(-1)
        return super().cost(observation, action) + self.contact_weight * contact


class Humanoid(Robot):
    """`Humanoid-v5`: healthy while the root's height lies in (1, 2).

    Observation: [position without x, y (22), velocity (23), `cinert` (13 · 10), `cvel` (13 · 6), actuator forces (17),
    contact forces (13 · 6)]. Deviation under Warp, which has no projected Gauss-Seidel solver: Newton's method instead.
    """

    gymnasium_id = "Humanoid-v5"
    scene_file = "humanoid.xml"
    frames = 5
    noise = 1e-2
    forward_weight = 1.25
    control_weight = 0.1
    contact_weight = 5e-7
    healthy_reward = 5.0

    def _add_sensors(self, builder: SceneBuilder) -> None:
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

    def place(self, reading: Reading) -> Float[Tensor, "W 2"]:
        return self.scene.read(reading.sensordata, "com")[:, 0, :2]

    def healthy(self, reading: Reading) -> Bool[Tensor, "W"]:
        height = reading.qpos[:, 2]
        return (height > 1.0) & (height < 2.0)

    def cost(self, observation: Float[Tensor, "W D"], action: Float[Tensor, "W nu"]) -> Float[Tensor, "W"]:
        contact = (self.contact_weight * observation[:, -self._forces :].square().sum(-1)).clamp(max=10)
        return super().cost(observation, action) + contact
