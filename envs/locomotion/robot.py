"""A robot: its scene, how an episode starts, what is observed, what it costs to act, and when it has fallen."""

import abc
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.devices import Constant
from metarl.envs.physics import Scene, SceneBuilder, SensorTime
from metarl.errors import UsageError
from metarl.randomness import EnvStreams, standard_normal


@dataclass(frozen=True)
class Reading:
    """What is known of `W` worlds after a step, or at the start of an episode.

    >>> reading.qpos[:, 0]  # the first joint's position in every world
    """

    qpos: Float[Tensor, "W nq"]
    qvel: Float[Tensor, "W nv"]
    sensordata: Float[Tensor, "W S"]
    """`scene.read(sensordata, group)` finds the readings of a group of sensors."""
    control: Float[Tensor, "W nu"]
    """The action that led here, within its bounds; zeros at the start."""


class Robot(abc.ABC):
    """One robot of any kind, from an MJCF model. Its methods are batched and pure.

    A subclass says at least `mjcf`, `frames` and `position`:

    >>> class Cart(Robot):
    ...     mjcf = "cart.xml"
    ...     frames = 5
    ...     def position(self, reading):
    ...         return reading.qpos[:, :1]

    Its actions are the controls of the model's actuators, each of which needs a `ctrlrange`.
    """

    mjcf: ClassVar[str | Path]
    """The path of an MJCF file, or the XML itself."""
    frames: ClassVar[int]
    """Simulated time steps per environment step."""
    noise: ClassVar[float] = 0.0
    """Of the start: positions are uniform within ± `noise` of the model's, velocities within ± `noise`."""
    normal_velocities: ClassVar[bool] = False
    """Whether velocities start normally distributed (times `noise`) instead of uniformly."""
    sensor_time: ClassVar[SensorTime] = SensorTime.END
    """Which moment of a step the sensor readings belong to."""
    zero_at_start: ClassVar[tuple[str, ...]] = ()
    """Groups of sensors that read zero until the first step of an episode."""
    view: ClassVar[str | None] = None
    """The model's camera that takes the pictures; None: a free camera shows the whole model."""
    forward_weight: float = 1.0
    control_weight: float = 0.0
    healthy_reward: float = 0.0

    @cached_property
    def scene(self) -> Scene:
        """The compiled model; raises `UsageError` if it does not load or compile."""
        builder = SceneBuilder(self.mjcf)
        self.add_sensors(builder)
        return builder.build()

    @cached_property
    def action_space(self) -> Box:
        """One number per actuator within its `ctrlrange`. Raises `UsageError` for a model that has no such bounds."""
        model = self.scene.model
        if not model.nu:
            raise UsageError(f"scene {self.scene.name!r} has no actuator: a robot needs one or more")
        for number in range(model.nu):
            if not model.actuator_ctrllimited[number]:
                name = model.actuator(number).name or number
                raise UsageError(f"scene {self.scene.name!r}: actuator {name!r} has no bounds: give it a ctrlrange")
        low, high = model.actuator_ctrlrange.T.astype(np.float32)
        return Box(low, high, dtype=np.float32)

    @property
    def observation_space(self) -> Box:
        """Unbounded, of the size that `observe` returns."""
        model = self.scene.model
        sizes = {"qpos": model.nq, "qvel": model.nv, "sensordata": model.nsensordata, "control": model.nu}
        zeros = {name: torch.zeros(1, size) for name, size in sizes.items()}
        return Box(-np.inf, np.inf, (self.observe(Reading(**zeros)).shape[1],), np.float32)

    @cached_property
    def _rest(self) -> Constant:
        return Constant(self.scene.model.qpos0)

    def add_sensors(self, builder: SceneBuilder) -> None:  # noqa: B027
        """Adds sensors that observation and reward need, beside those that the model has."""

    def start(self, streams: EnvStreams) -> tuple[Float[Tensor, "W nq"], Float[Tensor, "W nv"]]:
        """Noisy positions and velocities at the start of an episode."""
        nq, nv = self.scene.model.nq, self.scene.model.nv
        numbers = streams.uniform(nq + (2 * nv if self.normal_velocities else nv))
        shift, rest = 2 * numbers[:, :nq] - 1, numbers[:, nq:]
        spread = standard_normal(rest.unflatten(1, (2, nv))) if self.normal_velocities else 2 * rest - 1
        return self._rest.like(shift) + self.noise * shift, self.noise * spread

    def observe(self, reading: Reading) -> Float[Tensor, "W D"]:
        """What an agent sees; positions and velocities of all joints unless a subclass says otherwise."""
        return torch.cat([reading.qpos, reading.qvel], dim=-1)

    @abc.abstractmethod
    def position(self, reading: Reading) -> Float[Tensor, "W k"]:
        """The point (m) whose change is the robot's velocity: on a line (k = 1), in a plane (2), in space (3)."""

    def healthy(self, reading: Reading) -> Bool[Tensor, "W"]:
        """Whether the robot can go on; if not, the episode terminates."""
        return torch.ones(len(reading.qpos), dtype=torch.bool, device=reading.qpos.device)

    def cost(self, observation: Float[Tensor, "W D"], action: Float[Tensor, "W nu"]) -> Float[Tensor, "W"]:
        """What is subtracted from the reward of a step, from what `observe` returned."""
        return self.control_weight * action.square().sum(-1)
