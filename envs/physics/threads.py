"""The CPU engine: `mujoco.rollout`'s C++ thread pool, in float64."""

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import mujoco
import mujoco.rollout
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.devices import num_cpus
from metarl.envs.physics.engine import Physics, SensorTime
from metarl.envs.physics.runge_kutta import PositionIntegrator, runge_kutta_frame
from metarl.envs.physics.scene import Scene
from metarl.errors import UsageError
from metarl.tasks import check_count

_STATE = mujoco.mjtState
_DISABLE = mujoco.mjtDisableBit
# Mocap poses that are missing from the controls fall back to the model's: name them in every call.
_CONTROLS = int(_STATE.mjSTATE_CTRL | _STATE.mjSTATE_MOCAP_POS | _STATE.mjSTATE_MOCAP_QUAT)
_FULL = _STATE.mjSTATE_FULLPHYSICS
_START = 1.0  # seconds; not 0, at which MuJoCo starts the clock of a world that it has reset itself


@dataclass
class _Models:
    """Variants of the model, one entry a world, for the different calls that the engine makes."""

    whole: list[mujoco.MjModel]
    silent: list[mujoco.MjModel]
    """Without readings."""
    evaluation: list[mujoco.MjModel]
    """Explicit Euler, so that one frame shows the acceleration: (velocity after - velocity before) / time step."""
    silent_evaluation: list[mujoco.MjModel]
    kinematic: list[mujoco.MjModel]
    """Without contacts and other constraints, for readings that do not depend on forces: a third of the time."""

    @classmethod
    def of(cls, models: list[mujoco.MjModel], worlds_per_model: int) -> "_Models":
        kinds = [
            [_variant(model, explicit=explicit, silent=silent) for model in models]
            for explicit in (False, True)
            for silent in (False, True)
        ]
        kinds.append([_variant(model, explicit=True, silent=False, free=True) for model in models])
        return cls(*([model for model in kind for _ in range(worlds_per_model)] for kind in kinds))


@dataclass
class _Arrays:
    """The engine's tensors as NumPy arrays, whose operations take a quarter of torch's time if they are small."""

    state: np.ndarray
    control: np.ndarray
    states_out: np.ndarray
    sensors_out: np.ndarray
    stage_sensors: np.ndarray
    sensordata: np.ndarray
    faults: np.ndarray


class ThreadPhysics(Physics):
    """Worlds as rows of one float64 array `[W, state]`, stepped by C++ threads that share the compiled models.

    `mujoco.rollout` freezes a world in which MuJoCo warns (bad numbers, no room for contacts): its clock falls behind,
    and by that it is recognised. Trajectories depend neither on the number of threads nor on a world's neighbours.

    `rollout` does not return the constraint solver's last solution, from which MuJoCo starts its next search. It is
    known only for frames that are taken apart (`runge_kutta`). Otherwise each step starts its search anew (under
    Runge-Kutta and Newton's method, each evaluation), and the converged solution differs by rounding.

    >>> physics = ThreadPhysics(scene, 64, frames=5, threads=2)
    >>> physics.step(torch.zeros(64, scene.model.nu))
    """

    def __init__(
        self,
        scene: Scene,
        num_worlds: int,
        *,
        frames: int = 1,
        sensor_time: SensorTime = SensorTime.END,
        threads: int | None = None,
    ):
        super().__init__(scene, num_worlds, frames=frames, sensor_time=sensor_time)
        threads = num_cpus() if threads is None else threads
        check_count("number of threads", threads)
        model = scene.model
        self.device = torch.device("cpu")
        self._seconds = float(model.opt.timestep)
        # With one thread the caller does the work itself, and no thread has to be woken.
        self._pool = mujoco.rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._integrate = PositionIntegrator(model)
        self._staged_frames = self._count_staged_frames()
        # The readings at the end of a step are those that one more frame starts with. If only contact sensors depend on
        # forces, a kinematic reading is enough, and a second one with forces for the worlds whose geoms are near.
        forces = int((model.sensor_needstage == int(mujoco.mjtStage.mjSTAGE_ACC)).sum())
        self._extra_frame = sensor_time is SensorTime.END and forces > len(scene.touches)
        self._extra_reading = sensor_time is SensorTime.END and not self._extra_frame and model.nsensordata > 0
        self._rolled_frames = frames - self._staged_frames + self._extra_frame
        self._allocate(model)
        self._set_models([model], num_worlds)

    def reset(self, worlds: Bool[Tensor, "W"], qpos: Float[Tensor, "W nq"], qvel: Float[Tensor, "W nv"]) -> None:
        chosen = worlds.nonzero()[:, 0]
        self._state[chosen] = self._first_state
        self.qpos[chosen] = qpos[chosen].double()
        self.qvel[chosen] = qvel[chosen].double()
        self._control_parts[0].index_fill_(0, chosen, 0)
        self._warmstart.index_fill_(0, chosen, 0)
        self.faults.index_fill_(0, chosen, False)

    def step(
        self,
        control: Float[Tensor, "W nu"],
        mocap_pos: Float[Tensor, "W nmocap 3"] | None = None,
        mocap_quat: Float[Tensor, "W nmocap 4"] | None = None,
    ) -> None:
        for part, target in zip((control, mocap_pos, mocap_quat), self._control_parts, strict=True):
            if part is not None:
                target.copy_(part.flatten(1)[:, None])
        clock = self._arrays.state[:, 0]
        clock[:] = _START
        if self._rolled_frames:
            self._step_rolled()
        for frame in range(self._staged_frames):
            self._step_staged(sense=frame == self._staged_frames - 1)
        if self._extra_reading:
            self._read_sensors()
        finished = np.abs(clock - (_START + self.step_seconds)) < 0.5 * self._seconds
        np.logical_not(finished & np.isfinite(self._arrays.state.sum(1)), out=self._arrays.faults)

    def forward(self, worlds: Bool[Tensor, "W"]) -> None:
        if self.scene.model.nsensordata:
            self._read_with_forces(worlds.numpy().nonzero()[0])

    def get_state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._open_state().items()}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        views = self._open_state()
        for name in views.keys() & state.keys():
            views[name].copy_(state[name])
        self._control.copy_(self._control[:, :1].clone().expand_as(self._control))
        self.faults.zero_()

    @contextmanager
    def cores_reserved(self) -> Iterator[None]:
        """One torch thread, because OpenMP's workers spin for a while after each operation, on our threads' cores.

        Without it, and with as many threads as cores, a humanoid's step takes up to ten times as long.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def close(self) -> None:
        self._pool.close()

    def _count_staged_frames(self) -> int:
        model = self.scene.model
        if self.sensor_time is not SensorTime.EVALUATION or model.opt.integrator != mujoco.mjtIntegrator.mjINT_RK4:
            return 0
        if model.na:
            raise UsageError(
                f"scene {self.scene.name!r}: no readings at the evaluation under Runge-Kutta with actuator states; "
                f"use the Euler integrator"
            )
        # Projected Gauss-Seidel stops before it converges, so its result depends on where it starts. That is known only
        # if all frames are taken apart.
        return self.frames if model.opt.solver == mujoco.mjtSolver.mjSOL_PGS else 1

    def _allocate(self, model: mujoco.MjModel) -> None:
        worlds, nq, nv = self.num_worlds, model.nq, model.nv
        data = mujoco.MjData(model)
        first = np.empty(mujoco.mj_stateSize(model, _FULL))
        mujoco.mj_getState(model, data, first, _FULL)
        controls = np.empty(mujoco.mj_stateSize(model, _CONTROLS))
        mujoco.mj_getState(model, data, controls, _CONTROLS)
        self._first_state = torch.from_numpy(first)
        self._state = self._first_state.repeat(worlds, 1)
        self._stage = self._state.clone()
        self._stage[:, 0] = _START
        self._warmstart = self._state.new_zeros(worlds, nv)
        frames = max(self._rolled_frames, 1)
        self._control = torch.from_numpy(controls).repeat(worlds, frames, 1)
        self._control_parts = self._control.split([model.nu, 3 * model.nmocap, 4 * model.nmocap], dim=-1)
        self._states_out = self._state.new_empty(worlds, frames, len(first))
        self._stage_out = self._state.new_empty(worlds, 1, len(first))
        self._sensors_out = self._state.new_empty(worlds, frames, model.nsensordata)
        self._stage_sensors = self._state.new_empty(worlds, 1, model.nsensordata)
        self.sensordata = self._state.new_zeros(worlds, model.nsensordata)
        self.faults = torch.zeros(worlds, dtype=torch.bool)
        self._position, self._velocity = slice(1, 1 + nq), slice(1 + nq, 1 + nq + nv)
        self.qpos = self._state[:, self._position]
        self.qvel = self._state[:, self._velocity]
        self._arrays = _Arrays(
            *(
                tensor.numpy()
                for tensor in (
                    self._state,
                    self._control,
                    self._states_out,
                    self._sensors_out,
                    self._stage_sensors,
                    self.sensordata,
                    self.faults,
                )
            )
        )

    def _open_state(self) -> dict[str, Tensor]:
        """Everything that a step depends on, as views."""
        _, mocap_pos, mocap_quat = self._control_parts
        state = {
            "qpos": self.qpos,
            "qvel": self.qvel,
            "activation": self._state[:, self._velocity.stop :],
            "mocap_pos": mocap_pos[:, 0],
            "mocap_quat": mocap_quat[:, 0],
            "warmstart": self._warmstart,
        }
        return {name: value for name, value in state.items() if value.shape[1]}

    def _step_rolled(self) -> None:
        silent = self._staged_frames > 0 or self._extra_reading or self.sensor_time is SensorTime.NONE
        models = self._models.silent if silent else self._models.whole
        warmstart = self._warmstart if self._staged_frames else None
        sensors = None if silent else self._sensors_out
        self._roll(models, self._state, self._control, warmstart, self._states_out, sensors)
        self._arrays.state[:] = self._arrays.states_out[:, self._rolled_frames - 1 - self._extra_frame]
        if not silent:
            self._arrays.sensordata[:] = self._arrays.sensors_out[:, -1]

    def _read_sensors(self) -> None:
        """Reads the sensors at the present state."""
        control = self._control[:, :1]
        self._roll(self._models.kinematic, self._state, control, None, self._stage_out, self._stage_sensors)
        self._arrays.sensordata[:] = self._arrays.stage_sensors[:, 0]
        if self.scene.touches:
            near = [touch.possible(self._arrays.sensordata) for touch in self.scene.touches.values()]
            self._read_with_forces(np.logical_or.reduce(near).nonzero()[0])

    def _read_with_forces(self, chosen: np.ndarray) -> None:
        """Reads the sensors of the `chosen` worlds at the present state, forces included."""
        if not len(chosen):
            return
        models = [self._models.evaluation[number] for number in chosen]
        state, control = (
            torch.from_numpy(array[chosen]) for array in (self._arrays.state, self._arrays.control[:, :1])
        )
        sensors = self._sensors_out.new_empty(len(chosen), 1, self.sensordata.shape[1])
        self._roll(models, state, control, None, torch.empty_like(state)[:, None], sensors)
        self._arrays.sensordata[chosen] = sensors[:, 0].numpy()

    def _step_staged(self, *, sense: bool) -> None:
        """One Runge-Kutta frame, as four calls of one frame each."""
        self._finished = torch.ones_like(self.faults)
        qpos, qvel, self._warmstart[:] = runge_kutta_frame(
            self._evaluate, self._integrate, self.qpos, self.qvel, self._seconds, sense=sense
        )
        self._state[:, self._position] = qpos
        self._state[:, self._velocity] = qvel
        self._state[:, 0].add_(self._finished, alpha=self._seconds)
        if sense:
            self.sensordata.copy_(self._stage_sensors[:, 0])

    def _evaluate(self, qpos: Tensor, qvel: Tensor, sense: bool) -> Float[Tensor, "W nv"]:
        """What a frame's acceleration adds to the velocity.

        All evaluations of a frame start their search where the last frame ended.
        """
        self._stage[:, self._position] = qpos
        self._stage[:, self._velocity] = qvel
        models = self._models.evaluation if sense else self._models.silent_evaluation
        sensors = self._stage_sensors if sense else None
        self._roll(models, self._stage, self._control[:, :1], self._warmstart, self._stage_out, sensors)
        self._finished &= self._stage_out[:, 0, 0] > _START
        return self._stage_out[:, 0, self._velocity] - qvel

    def _roll(
        self,
        models: list[mujoco.MjModel],
        state: Float[Tensor, "K X"],
        control: Float[Tensor, "K frames U"],
        warmstart: Float[Tensor, "K nv"] | None,
        states_out: Float[Tensor, "K frames X"],
        sensors_out: Float[Tensor, "K frames S"] | None,
    ) -> None:
        with _SILENCED_WARNINGS:
            self._pool.rollout(
                models,
                self._data,
                state.numpy(),
                control.contiguous().numpy(),
                control_spec=_CONTROLS,
                skip_checks=True,
                nstep=control.shape[1],
                initial_warmstart=None if warmstart is None else warmstart.numpy(),
                state=states_out.numpy(),
                sensordata=None if sensors_out is None else sensors_out.numpy(),
            )

    def _set_models(self, models: list[mujoco.MjModel], worlds_per_model: int) -> None:
        self._models = _Models.of(models, worlds_per_model)


class _SilencedWarnings:
    """Keeps MuJoCo from writing its warnings to a log file in the user's folder; they show in `faults`.

    MuJoCo has one handler for the whole process, and several engines may simulate at once: the first one in replaces
    it, the last one out restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._others: Callable[[str], None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._others = mujoco.get_mju_user_warning()
                mujoco.set_mju_user_warning(_ignore)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                mujoco.set_mju_user_warning(self._others)


_SILENCED_WARNINGS = _SilencedWarnings()


def _ignore(message: str) -> None:
    """Does nothing: `faults` shows the warning."""


def _variant(model: mujoco.MjModel, *, explicit: bool, silent: bool, free: bool = False) -> mujoco.MjModel:
    """A copy of `model` without what costs time and changes nothing.

    `explicit`: with the explicit Euler integrator; `silent`: without sensors; `free`: without constraints.
    """
    model = copy.copy(model)
    option = model.opt
    if model.ntree == 1:
        # One robot is one island: searching for more takes a fifteenth of the time and changes no bit of the result.
        option.disableflags |= _DISABLE.mjDSBL_ISLAND
    if option.integrator == mujoco.mjtIntegrator.mjINT_RK4 and option.solver == mujoco.mjtSolver.mjSOL_NEWTON:
        # With a warm start, all four evaluations of a frame start from where the last frame ended. For the walker, the
        # ant and the hopper that takes 2 to 8 % longer than starting anew, and finds the same solution.
        option.disableflags |= _DISABLE.mjDSBL_WARMSTART
    if explicit:
        option.integrator = mujoco.mjtIntegrator.mjINT_EULER
        option.disableflags |= _DISABLE.mjDSBL_EULERDAMP
    if silent:
        option.disableflags |= _DISABLE.mjDSBL_SENSOR
    if free:
        option.disableflags |= _DISABLE.mjDSBL_CONSTRAINT | _DISABLE.mjDSBL_CONTACT
    return model
