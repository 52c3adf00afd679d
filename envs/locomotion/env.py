"""Environments of one robot: starts, readings and scores of its episodes."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from metarl.envs.locomotion.robot import Reading, Robot
from metarl.envs.physics import Physics, PhysicsEnv, RawStep, Selection, SensorTime, make_physics
from metarl.envs.physics.camera import Camera
from metarl.envs.physics.world import World
from metarl.randomness import EnvStreams
from metarl.tasks import Tasks
from metarl.vector_env import TaskFamily


@runtime_checkable
class RobotFamily(TaskFamily, Protocol):
    """What the environment asks of its family; every `LocomotionDistribution` answers.

    >>> isinstance(metarl.make("AntGoal-v0"), RobotFamily)
    True
    """

    robot: Robot

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
        ...

    def model_fields(self, model: mujoco.MjModel, tasks: Tasks) -> dict[str, Tensor]:
        """Fields of the model that differ between tasks, each `[M, ...]`."""
        ...


class LocomotionEnv(PhysicsEnv):
    """Steps a `LocomotionDistribution` on either physics engine (`PhysicsEnv` says how).

    State: the engine's (`qpos`, `qvel`, …), the random `streams` that starts are drawn from, and `evaluation_offset`
    (m). Gymnasium measures an ant's and a humanoid's velocity between the positions at two force evaluations, which
    are a little behind the states. `evaluation_offset` is the position at the last evaluation minus that of the state.

    >>> env = metarl.make("AntGoal-v0").make_env(num_tasks=20, envs_per_task=4, backend="mujoco")
    """

    distribution: RobotFamily

    def __init__(
        self,
        distribution: RobotFamily,
        num_tasks: int,
        envs_per_task: int,
        *,
        backend: str,
        device: torch.device,
        seed: int,
        render_mode: str | None = None,
    ):
        super().__init__(
            distribution, num_tasks, envs_per_task, backend=backend, device=device, render_mode=render_mode
        )
        self._robot = distribution.robot
        scene = self._robot.scene
        self.physics = make_physics(
            scene,
            self.num_envs,
            backend=backend,
            device=device,
            frames=self._robot.frames,
            sensor_time=self._robot.sensor_time if scene.model.nsensordata else SensorTime.NONE,
        )
        self._streams = EnvStreams.from_seed(seed, self.num_envs, device)
        low, high = self.single_action_space.low, self.single_action_space.high
        self._action_bounds = (torch.as_tensor(low, device=device), torch.as_tensor(high, device=device))
        self._no_control = self.physics.qpos.new_zeros(self.num_envs, len(low))
        # Starts are handed to the engine in these; it ignores the rows of environments that do not start.
        self._start_qpos, self._start_qvel = torch.zeros_like(self.physics.qpos), torch.zeros_like(self.physics.qvel)
        self._position = self._robot.position(self._present_reading()).clone()
        self._camera: Camera | None = None

    @property
    def engines(self) -> Sequence[Physics]:
        return (self.physics,)

    def close_extras(self, **kwargs: object) -> None:
        self.physics.close()
        if self._camera is not None:
            self._camera.close()

    def world(self, index: int) -> World:
        return World.of(self._robot.scene, self.physics.get_state(), index)

    def _set_tasks(self, tasks: Tasks) -> None:
        self._env_tasks = tasks.repeat_interleave(self.envs_per_task)
        fields = self.distribution.model_fields(self._robot.scene.model, tasks)
        if fields:
            self.physics.set_fields(fields, self.envs_per_task)

    def _reset(self, seed: int | None) -> tuple[Tensor, dict[str, object]]:
        if seed is not None:
            self._streams = EnvStreams.from_seed(seed, self.num_envs, self.device)
        return super()._reset(seed)

    def _advance(self, actions: Float[Tensor, "B A"]) -> RawStep:
        action = actions.to(self._no_control.dtype).clamp(*self._action_bounds)
        self.physics.step(action)
        reading = Reading(self.physics.qpos, self.physics.qvel, self.physics.sensordata, action)
        position = self._robot.position(reading)
        velocity = (position - self._position) / self.physics.step_seconds
        observations = self._robot.observe(reading)
        score = self.distribution.score(reading, observations, position, velocity, action, self._env_tasks)
        self._position = position.clone()
        return RawStep(observations.float(), *score, fault=self.physics.faults.clone())

    def _start_episodes(self, chosen: Selection) -> Float[Tensor, "R D"]:
        """Draws starts from the chosen environments' own streams, and only those streams move on."""
        streams = EnvStreams.resume(chosen.take(self._streams.state))
        qpos, qvel = self._robot.start(streams)
        chosen.put(self._streams.state, streams.state)
        chosen.put(self._start_qpos, qpos)
        chosen.put(self._start_qvel, qvel)
        self.physics.reset(chosen.mask, self._start_qpos, self._start_qvel)
        self.physics.forward(chosen.mask)
        reading = self._start_reading(chosen)
        chosen.put(self._position, self._robot.position(reading))
        return self._robot.observe(reading)

    def _start_reading(self, chosen: Selection) -> Reading:
        """The present state of the chosen environments as the start of an episode."""
        sensordata = chosen.take(self.physics.sensordata).clone()
        for group in self._robot.zero_at_start:
            self._robot.scene.read(sensordata, group).zero_()
        physics = self.physics
        control = chosen.take(self._no_control)
        return Reading(chosen.take(physics.qpos), chosen.take(physics.qvel), sensordata, control)

    def _present_reading(self) -> Reading:
        """The present state of all environments as the start of an episode."""
        self.physics.forward(self._all_envs)
        return self._start_reading(Selection(self._all_envs))

    def _read_state(self) -> dict[str, Tensor]:
        readings = self.physics.sensordata.clone()
        offset = self._position - self._robot.position(self._present_reading())
        self.physics.sensordata.copy_(readings)
        return self.physics.get_state() | {"streams": self._streams.state.clone(), "evaluation_offset": offset}

    def _write_state(self, state: Mapping[str, Tensor]) -> Float[Tensor, "B D"]:
        self.physics.set_state(state)
        if "streams" in state:
            self._streams.state = state["streams"].to(self.device).clone()
        reading = self._present_reading()
        self._position = self._robot.position(reading).clone()
        if "evaluation_offset" in state:
            self._position += state["evaluation_offset"].to(self._position)
        return self._robot.observe(reading).float()

    def _pictures(self) -> Sequence[UInt8[np.ndarray, "H W 3"]]:
        if self._camera is None:
            self._camera = Camera(self._robot.scene, view=self._robot.view)
        return self._camera.take(self.physics.get_state())
