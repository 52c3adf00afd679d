"""Environments of a locomotion family: physics, episodes, resets. The family says what is observed and rewarded."""

from typing import TYPE_CHECKING, Any

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.locomotion.robots import Reading
from metarl.envs.locomotion.selection import Selection
from metarl.envs.physics import SensorTime, make_physics
from metarl.randomness import EnvStreams
from metarl.tasks import Tasks
from metarl.vector_env import StepResult, TaskVectorEnv, step_info

if TYPE_CHECKING:
    from metarl.envs.locomotion.family import LocomotionDistribution

PICTURE_SIZE = 256


class LocomotionEnv(TaskVectorEnv):
    """Steps a `LocomotionDistribution` on either physics engine.

    `info["fault"]` `[B]` marks environments whose simulation broke down in this step (numbers that are not finite, no
    room for contacts). Their episode ends there, truncated, with reward 0 and the observation before as its last one;
    the next episode starts as always. `fault_count` counts them since the environment was made.

    Nothing in `step` waits for a GPU: what depends on a tensor's value is done by masks.
    """

    distribution: "LocomotionDistribution"

    def __init__(
        self,
        distribution: "LocomotionDistribution",
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
            sensor_time=SensorTime.EVALUATION if scene.sensors else SensorTime.NONE,
        )
        self._streams = EnvStreams.from_seed(seed, self.num_envs, device)
        self._elapsed = torch.zeros(self.num_envs, dtype=torch.int64, device=device)
        self._faults = torch.zeros((), dtype=torch.int64, device=device)
        low, high = self.single_action_space.low, self.single_action_space.high
        self._action_bounds = (torch.as_tensor(low, device=device), torch.as_tensor(high, device=device))
        self._no_control = self.physics.qpos.new_zeros(self.num_envs, len(low))
        # Where starts are handed to the engine; rows of environments that do not start are never looked at.
        self._start_qpos, self._start_qvel = torch.zeros_like(self.physics.qpos), torch.zeros_like(self.physics.qvel)
        self._no_observations = torch.zeros(self.num_envs, *self.single_observation_space.shape, device=device)
        self._everywhere = torch.ones(self.num_envs, dtype=torch.bool, device=device)
        self._place = self._robot.place(self._present_reading()).clone()
        self._renderer: tuple[mujoco.Renderer, mujoco.MjModel, mujoco.MjData] | None = None

    @property
    def fault_count(self) -> int:
        """Simulations that broke down so far; on a GPU reading it waits for the steps under way."""
        return int(self._faults)

    def get_state(self) -> dict[str, Tensor]:
        """Each `[B, ...]`: the engine's state (`qpos`, `qvel`, …), `elapsed_steps`, random `streams`, and `lag` (m).

        `lag`: Gymnasium measures an ant's and a humanoid's velocity between the places of two force evaluations, which
        are a little behind the states. `lag` is where the last evaluation was, seen from the state's own place.
        """
        readings = self.physics.sensordata.clone()
        lag = self._place - self._robot.place(self._present_reading())
        self.physics.sensordata.copy_(readings)
        own = {"elapsed_steps": self._elapsed.clone(), "streams": self._streams.state.clone(), "lag": lag}
        return self.physics.get_state() | own

    def set_state(self, state: dict[str, Tensor]) -> None:
        self.physics.set_state(state)
        if "elapsed_steps" in state:
            self._elapsed = state["elapsed_steps"].to(self.device).clone()
        if "streams" in state:
            self._streams.state = state["streams"].to(self.device).clone()
        reading = self._present_reading()
        self._place = self._robot.place(reading).clone()
        if "lag" in state:
            self._place += state["lag"].to(self._place)
        self._observations = self._robot.observe(reading).float()
        self._started = True

    def render(self) -> tuple[Any, ...] | None:
        if self.render_mode is None:
            return super().render()
        if self._renderer is None:
            model = self._robot.scene.rendering_model()
            self._renderer = (mujoco.Renderer(model, PICTURE_SIZE, PICTURE_SIZE), model, mujoco.MjData(model))
        renderer, model, data = self._renderer
        pictures = []
        for qpos in self.physics.qpos.cpu().numpy():
            data.qpos[:] = qpos
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera="track")
            pictures.append(renderer.render())
        return tuple(pictures)

    def close_extras(self, **kwargs: Any) -> None:
        self.physics.close()
        if self._renderer is not None:
            self._renderer[0].close()

    def _set_tasks(self, tasks: Tasks) -> None:
        self._env_tasks = tasks.repeat_interleave(self.envs_per_task)
        fields = self.distribution.model_fields(tasks)
        if fields:
            self.physics.set_fields(fields, self.envs_per_task)

    def _reset(self, seed: int | None) -> tuple[Tensor, dict[str, Any]]:
        if seed is not None:
            self._streams = EnvStreams.from_seed(seed, self.num_envs, self.device)
        with self.physics.undisturbed():
            self._observations = self._restart(self._everywhere, self._no_observations)
        return self._observations, {}

    def _step(self, actions: Tensor) -> StepResult:
        with self.physics.undisturbed():
            return self._advance(actions)

    def _advance(self, actions: Tensor) -> StepResult:
        action = actions.to(self._no_control.dtype).clamp(*self._action_bounds)
        self.physics.step(action)
        reading = Reading(self.physics.qpos, self.physics.qvel, self.physics.sensordata, action)
        place = self._robot.place(reading)
        velocity = (place - self._place) / self.physics.step_seconds
        observations = self._robot.observe(reading)
        reward, terminated = self.distribution.judge(reading, observations, place, velocity, action, self._env_tasks)
        # Whatever a broken simulation says is replaced by what was known before it broke.
        fault = self.physics.faults.clone()
        self._faults = self._faults + fault.sum()
        final_obs = torch.where(fault[:, None], self._observations, observations.float())
        reward = torch.where(fault, 0.0, reward).float()
        terminated = terminated & ~fault
        self._elapsed = self._elapsed + 1
        truncated = (self._elapsed >= self.distribution.horizon) | fault
        ended = terminated | truncated
        self._place = place.clone()
        self._observations = self._restart(ended, final_obs)
        return self._observations, reward, terminated, truncated, step_info(final_obs, ended, fault=fault)

    def _restart(self, ended: Bool[Tensor, "B"], final_obs: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Starts the next episode where one has ended; returns what is seen then."""
        chosen = Selection(ended)
        if chosen.known_empty:
            return final_obs
        self._start_episodes(chosen)
        reading = self._start_reading(chosen)
        observations = final_obs.clone()
        chosen.put(observations, self._robot.observe(reading))
        chosen.put(self._place, self._robot.place(reading))
        return observations

    def _start_episodes(self, chosen: Selection) -> None:
        """Puts the chosen environments at a start drawn from their own streams, and only those streams move on."""
        streams = EnvStreams.resume(chosen.take(self._streams.state))
        qpos, qvel = self._robot.start(streams)
        chosen.put(self._streams.state, streams.state)
        chosen.put(self._start_qpos, qpos)
        chosen.put(self._start_qvel, qvel)
        self.physics.reset(chosen.mask, self._start_qpos, self._start_qvel)
        self.physics.forward(chosen.mask)
        self._elapsed.masked_fill_(chosen.mask, 0)

    def _start_reading(self, chosen: Selection) -> Reading:
        """The present state of the chosen environments as the start of an episode: no forces have acted yet."""
        sensordata = chosen.take(self.physics.sensordata).clone()
        contacts = self._robot.scene.sensors.get("contacts")
        if contacts is not None:
            contacts.read(sensordata).zero_()
        physics = self.physics
        control = chosen.take(self._no_control)
        return Reading(chosen.take(physics.qpos), chosen.take(physics.qvel), sensordata, control)

    def _present_reading(self) -> Reading:
        """The present state everywhere, seen as a start."""
        self.physics.forward(self._everywhere)
        return self._start_reading(Selection(self._everywhere))
