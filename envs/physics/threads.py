"""The CPU engine: `mjbatch`'s C++ thread pool, in float64."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import mjbatch
import mujoco
import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from metarl.devices import num_cpus
from metarl.envs.physics.callbacks import SetAside
from metarl.envs.physics.engine import Physics, SensorTime
from metarl.envs.physics.runge_kutta import PositionIntegrator, runge_kutta_frame
from metarl.envs.physics.scene import Scene
from metarl.errors import UsageError
from metarl.tasks import check_count

_STATE = mujoco.mjtState
_DISABLE = mujoco.mjtDisableBit
_TOO_LARGE = 1e10  # MuJoCo's own limit of positions, velocities and accelerations


class ThreadPhysics(Physics):
    """Worlds as rows of one float64 array, stepped by C++ threads. A thread has one `mjData`, a world only its state.

    A step is a function of a world's state and controls alone, bit by bit: neither the number of threads nor the
    neighbours matter. The state includes the constraint solver's last solution, from which MuJoCo starts its next
    search. MuJoCo counts its warnings (bad numbers, no room for contacts) world by world, and the clock of a world that
    it gives up stands still: both are faults.

    Raises `UsageError` for a scene that cannot be stepped so, such as one whose bodies may sleep.

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
        model = _tuned(scene.model)
        self.device = torch.device("cpu")
        try:
            self._batch = mjbatch.Batch(model, num_worlds, threads)
        except ValueError as error:
            raise UsageError(f"scene {scene.name!r} under backend 'mujoco': {error}") from None
        reads = sensor_time if model.nsensordata else SensorTime.NONE
        self._staged_frames = self._count_staged_frames(reads)
        self._integrate = PositionIntegrator(model)
        self._reads_end = reads is SensorTime.END
        # If only contact sensors depend on forces, a reading without forces is enough (a third of the time), and one
        # with forces for the worlds whose geoms are near.
        forces = int((model.sensor_needstage == int(mujoco.mjtStage.mjSTAGE_ACC)).sum())
        self._forces_if_near = forces <= len(scene.touches)
        self._whole = int(model.opt.disableflags)
        self._silent = self._whole | int(_DISABLE.mjDSBL_SENSOR)
        self._kinematic = self._whole | int(_DISABLE.mjDSBL_CONSTRAINT | _DISABLE.mjDSBL_CONTACT)
        reads_last_frame = reads is SensorTime.EVALUATION and not self._staged_frames
        self._step_flags = self._whole if reads_last_frame else self._silent
        self._varied: set[str] = set()
        self._open_views(model)

    def reset(
        self,
        worlds: Bool[Tensor, "W"],
        qpos: Float[Tensor, "W nq"],
        qvel: Float[Tensor, "W nv"],
        warmstart: Float[Tensor, "W nv"] | None = None,
    ) -> None:
        chosen = worlds.nonzero()[:, 0]
        self._own_state[chosen] = self._first_state
        self.qpos[chosen] = qpos[chosen].double()
        self.qvel[chosen] = qvel[chosen].double()
        if warmstart is not None:
            self._warmstart[chosen] = warmstart[chosen].double()
        self._control.index_fill_(0, chosen, 0)
        self.faults.index_fill_(0, chosen, False)

    def step(
        self,
        control: Float[Tensor, "W nu"],
        mocap_pos: Float[Tensor, "W nmocap 3"] | None = None,
        mocap_quat: Float[Tensor, "W nmocap 4"] | None = None,
    ) -> None:
        for value, rows in zip((control, mocap_pos, mocap_quat), self._input_rows, strict=True):
            if value is not None:
                rows[:] = value.detach().numpy() if value.requires_grad else value.numpy()
        before, poses = self._time.copy(), self._pose_rows.copy()
        with SetAside():
            if self.frames > self._staged_frames:
                self._flags[:] = self._step_flags
                with suppress(RuntimeError):  # it names one of the worlds that failed; all their clocks stand
                    self._batch.step(nstep=self.frames - self._staged_frames)
                broken = self._time <= before
            else:
                broken = np.zeros_like(self._time, dtype=bool)
            if self._staged_frames:
                broken |= self._step_staged()
            if self._reads_end:
                broken |= self._read_end()
        broken |= self._warnings.any(1) | ~np.isfinite(self._state.sum(1))
        self._fault_rows[:] = broken
        if broken.any():
            self._pose_rows[broken] = poses[broken]  # MuJoCo forgets them when it resets a world itself
            self._warnings[:] = 0

    def forward(self, worlds: Bool[Tensor, "W"]) -> None:
        if self.scene.model.nsensordata:
            with SetAside():
                self._evaluate(self._whole, worlds.numpy())
            self._warnings[:] = 0

    def get_state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._open_state().items()}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        views = self._open_state()
        for name in views.keys() & state.keys():
            views[name].copy_(state[name])
        self.faults.zero_()

    @contextmanager
    def cores_reserved(self) -> Iterator[None]:
        """One torch thread, because OpenMP's workers spin for a while after each operation, on our threads' cores.

        Without it, and with as many threads as cores, a humanoid's step takes up to ten times as long. MuJoCo's
        callbacks are set aside all the while: to do so for each call takes time where a batch has many scenes.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with SetAside():
                yield
        finally:
            torch.set_num_threads(threads)

    def _count_staged_frames(self, reads: SensorTime) -> int:
        """Whether the last frame is taken apart, because its readings belong to its last Runge-Kutta evaluation."""
        model = self.scene.model
        if reads is not SensorTime.EVALUATION or model.opt.integrator != mujoco.mjtIntegrator.mjINT_RK4:
            return 0
        if model.na or model.nhistory:
            raise UsageError(
                f"scene {self.scene.name!r}: no readings at the evaluation under Runge-Kutta with actuator states or "
                f"delays; use the Euler integrator"
            )
        return 1

    def _open_views(self, model: mujoco.MjModel) -> None:
        bind = self._batch.bind
        self._state, self._time = bind("state"), bind("time")
        self._warnings = bind("warning")[..., 1]  # beside each count is what the last warning was about
        self._flags = self._batch.expand("disableflags")
        self.qpos, self.qvel, self.sensordata, self._control, self._warmstart, self._mocap_pos, self._mocap_quat = (
            torch.from_numpy(bind(name))
            for name in ("qpos", "qvel", "sensordata", "ctrl", "qacc_warmstart", "mocap_pos", "mocap_quat")
        )
        rows = torch.from_numpy(self._state)
        self._own_state = rows[:, _columns(model, _STATE.mjSTATE_TIME, _STATE.mjSTATE_WARMSTART)]
        self._first_state = self._own_state[0].clone()
        self._memory = rows[:, _columns(model, _STATE.mjSTATE_ACT, _STATE.mjSTATE_HISTORY)]
        self._poses = rows[:, _columns(model, _STATE.mjSTATE_MOCAP_POS, _STATE.mjSTATE_MOCAP_QUAT)]
        self._plugins = rows[:, _columns(model, _STATE.mjSTATE_PLUGIN, _STATE.mjSTATE_PLUGIN)]
        self._clock = rows[:, : int(model.nhistory > 0)]  # only delays depend on it
        self._acceleration = (
            bind("qacc") if self._staged_frames else self._state[:, :0]
        )  # a bound field is copied at every call
        self.faults = torch.zeros(self.num_worlds, dtype=torch.bool)
        self._pose_rows, self._fault_rows = self._poses.numpy(), self.faults.numpy()
        self._input_rows = [view.numpy() for view in (self._control, self._mocap_pos, self._mocap_quat)]

    def _open_state(self) -> dict[str, Tensor]:
        """Everything that a step depends on, as views."""
        positions = 3 * self.scene.model.nmocap
        state = {
            "qpos": self.qpos,
            "qvel": self.qvel,
            "activation": self._memory,
            "mocap_pos": self._poses[:, :positions],
            "mocap_quat": self._poses[:, positions:],
            "warmstart": self._warmstart,
            "clock": self._clock,
            "plugins": self._plugins,
        }
        return {name: value for name, value in state.items() if value.shape[1]}

    def _evaluate(self, flags: int, worlds: Bool[np.ndarray, "W"] | None = None) -> Bool[np.ndarray, "W"]:
        """Computes forces and readings of all worlds, or of those named, at their present state; returns the broken."""
        self._flags[:] = flags
        broken = np.zeros(self.num_worlds, dtype=bool)
        try:
            self._batch.forward(worlds)
        except RuntimeError:  # it names the first broken one
            for world in range(self.num_worlds) if worlds is None else worlds.nonzero()[0]:
                try:
                    self._batch.forward(np.array([world]))
                except RuntimeError:
                    broken[world] = True
        return broken

    def _read_end(self) -> Bool[np.ndarray, "W"]:
        """Reads the sensors at the present state; returns the broken worlds."""
        if not self._forces_if_near:
            return self._evaluate(self._whole)
        broken = self._evaluate(self._kinematic)
        if self.scene.touches:
            readings = self.sensordata.numpy()
            near = np.logical_or.reduce([touch.possible(readings) for touch in self.scene.touches.values()])
            if near.any():
                broken |= self._evaluate(self._whole, near)
        return broken

    def _step_staged(self) -> Bool[np.ndarray, "W"]:
        """One Runge-Kutta frame, as four evaluations that start their search where the last frame ended.

        Returns the broken worlds.
        """
        seconds = float(self.scene.model.opt.timestep)
        broken = np.zeros(self.num_worlds, dtype=bool)

        def evaluate(qpos: Tensor, qvel: Tensor, sense: bool) -> Float[Tensor, "W nv"]:
            self.qpos.copy_(qpos)
            self.qvel.copy_(qvel)
            broken[:] |= self._evaluate(self._whole if sense else self._silent)
            broken[:] |= ~_bounded(self._acceleration)
            return torch.from_numpy(self._acceleration * seconds)

        qpos, qvel, acceleration = runge_kutta_frame(
            evaluate, self._integrate, self.qpos.clone(), self.qvel.clone(), seconds, sense=True
        )
        for view, value in ((self.qpos, qpos), (self.qvel, qvel), (self._warmstart, acceleration)):
            view.copy_(value)
        self._time += seconds
        return broken | ~_bounded(qpos.numpy()) | ~_bounded(qvel.numpy())

    def _vary(self, fields: Mapping[str, Shaped[Tensor, "K ..."]], worlds_per_row: int) -> None:
        for name in self._varied - fields.keys():
            self._batch.expand(name)[:] = getattr(self.scene.model, name)
        for name, rows in fields.items():
            self._batch.expand(name)[:] = rows.detach().repeat_interleave(worlds_per_row, 0).cpu().numpy()
        self._varied |= fields.keys()
        self._batch.set_const()


def _tuned(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of `model` without what costs time and changes nothing."""
    model = copy.copy(model)
    option = model.opt
    if model.ntree == 1:
        # One robot is one island: searching for more takes a fifteenth of the time and changes no bit of the result.
        option.disableflags |= _DISABLE.mjDSBL_ISLAND
    if option.integrator == mujoco.mjtIntegrator.mjINT_RK4 and option.solver == mujoco.mjtSolver.mjSOL_NEWTON:
        # With a warm start, all four evaluations of a frame start from where the last frame ended. For the walker, the
        # ant and the hopper that takes 3 to 10 % longer than starting anew, and finds the same solution.
        option.disableflags |= _DISABLE.mjDSBL_WARMSTART
    return model


def _columns(model: mujoco.MjModel, first: mujoco.mjtState, last: mujoco.mjtState) -> slice:
    """Where the components from `first` to `last` are in a row of the state: in the order of the enum."""
    return slice(*(mujoco.mj_stateSize(model, bits) for bits in (int(first) - 1, 2 * int(last) - 1)))


def _bounded(values: Float[np.ndarray, "W n"]) -> Bool[np.ndarray, "W"]:
    return (np.abs(values) < _TOO_LARGE).all(1)  # False for NaN
