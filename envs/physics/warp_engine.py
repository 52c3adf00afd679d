"""The GPU engine: `mujoco_warp`, in float32, as captured graphs; without graphs on Warp's CPU device, for tests."""

import copy
import itertools
import warnings
from collections.abc import Callable, Mapping

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from metarl.envs.physics.capacity import contact_capacity
from metarl.envs.physics.engine import Physics, SensorTime
from metarl.envs.physics.fields import DERIVED_FIELDS, VARIABLE_FIELDS, build_models
from metarl.envs.physics.scene import Scene
from metarl.envs.physics.warp_repairs import align_capsule_frames
from metarl.envs.warp_runtime import start_warp
from metarl.errors import UsageError
from metarl.tasks import check_count

align_capsule_frames()

_FLAGS = mujoco.mjtDisableBit
_TOO_LARGE = 1e10  # mjMAXVAL: what the C library takes for a sign of divergence
_HARMLESS = mjw.OverflowType.ITERATIONS | mjw.OverflowType.LS_ITERATIONS  # a solver that stops at its limit
_BROKEN = int(mjw.OverflowType.ALL & ~_HARMLESS)
_NUMBERS = itertools.count()


class WarpPhysics(Physics):
    """Worlds as rows of Warp arrays, read as tensors without copies.

    All launches go to torch's current stream, which orders tensor operations and physics without waiting. A `step` is
    one graph of all its frames, a `forward` another. Both are captured when first needed and again when the model is
    rebuilt. While Warp captures on the current stream, they become part of that graph instead (`StepGraph`). If a
    capture fails, a warning says why, and kernels are launched one by one, which waits for the GPU at every iteration
    of the solver.

    `contact_capacity` estimates the room for contacts from the scene, unless `contacts_per_world` is given.

    >>> physics = WarpPhysics(scene, 4096, device=torch.device("cuda"), frames=5)
    >>> physics.step(torch.zeros(4096, scene.model.nu, device="cuda"))
    """

    fixed_memory = True
    """For `StepGraph`: the tensors here are Warp's memory, and replacing one would cut it off."""

    def __init__(
        self,
        scene: Scene,
        num_worlds: int,
        *,
        device: torch.device,
        frames: int = 1,
        sensor_time: SensorTime = SensorTime.END,
        contacts_per_world: int | None = None,
    ):
        super().__init__(scene, num_worlds, frames=frames, sensor_time=sensor_time)
        capacity = contact_capacity(scene.model)
        contacts = capacity.contacts if contacts_per_world is None else contacts_per_world
        check_count("contacts per world", contacts)
        self.device = torch.device(device)
        self._warp_device = _warp_device(self.device)
        self._host_model = _supported(scene.model)
        self._varied = False
        with wp.ScopedDevice(self._warp_device):
            try:
                self._model = mjw.put_model(self._host_model)
                self._worlds = mjw.make_data(
                    self._host_model,
                    nworld=num_worlds,
                    nconmax=contacts,
                    njmax=capacity.rows(contacts),
                )
            except (NotImplementedError, ValueError) as error:
                raise UsageError(f"scene {scene.name!r} under backend 'warp': {error}; use backend 'mujoco'") from None
            self._model.opt.warn_overflow = 0  # overflows are reported by `faults`
            self._open_views()
        self._graphs: dict[str, wp.Graph | None] = {}
        self._arrays = next(_NUMBERS)
        """A number for the arrays that kernels use; others have another number. Graphs hold their addresses."""

    def reset(
        self,
        worlds: Bool[Tensor, "W"],
        qpos: Float[Tensor, "W nq"],
        qvel: Float[Tensor, "W nv"],
        warmstart: Float[Tensor, "W nv"] | None = None,
    ) -> None:
        chosen = worlds[:, None]
        self.qpos.copy_(torch.where(chosen, qpos.to(self.qpos.dtype), self.qpos))
        self.qvel.copy_(torch.where(chosen, qvel.to(self.qvel.dtype), self.qvel))
        for part in (self._activation, self._warmstart, self._control):
            part.masked_fill_(chosen, 0.0)
        if warmstart is not None:
            self._warmstart.copy_(torch.where(chosen, warmstart.to(self._warmstart.dtype), self._warmstart))
        self.faults = self.faults & ~worlds

    def step(
        self,
        control: Float[Tensor, "W nu"],
        mocap_pos: Float[Tensor, "W nmocap 3"] | None = None,
        mocap_quat: Float[Tensor, "W nmocap 4"] | None = None,
    ) -> None:
        for value, view in ((control, self._control), (mocap_pos, self._mocap_pos), (mocap_quat, self._mocap_quat)):
            if value is not None:
                view.copy_(value)
        self._overflow.zero_()
        self._launch("step", self._step)
        bounded = torch.cat([self.qpos, self.qvel], dim=1).abs() < _TOO_LARGE  # False for NaN
        self.faults = ~bounded.all(1) | ((self._overflow & _BROKEN) != 0)

    def forward(self, worlds: Bool[Tensor, "W"]) -> None:
        if not self.scene.model.nsensordata:
            return
        before = self.sensordata.clone()
        self._launch("forward", self._forward)
        self.sensordata.copy_(torch.where(worlds[:, None], self.sensordata, before))

    def get_state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._open_state().items()}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        views = self._open_state()
        for name in views.keys() & state.keys():
            views[name].copy_(state[name])
        self.faults = torch.zeros_like(self.faults)

    def close(self) -> None:
        """Waits for the steps under way: Warp frees memory without regard to what other streams do with it."""
        if self._warp_device.is_cuda:
            torch.cuda.synchronize(self.device)
        self._graphs.clear()

    def _open_views(self) -> None:
        data = self._worlds
        self.qpos, self.qvel = wp.to_torch(data.qpos), wp.to_torch(data.qvel)
        self.sensordata = wp.to_torch(data.sensordata)
        self._control = wp.to_torch(data.ctrl)
        self._mocap_pos, self._mocap_quat = wp.to_torch(data.mocap_pos), wp.to_torch(data.mocap_quat)
        self._activation = wp.to_torch(data.act)
        self._warmstart = wp.to_torch(data.qacc_warmstart)
        self._overflow = wp.to_torch(data.overflow)
        self.faults = torch.zeros(self.num_worlds, dtype=torch.bool, device=self.device)

    def _open_state(self) -> dict[str, Tensor]:
        """Everything that a step depends on, as views."""
        state = {
            "qpos": self.qpos,
            "qvel": self.qvel,
            "activation": self._activation,
            "mocap_pos": self._mocap_pos.flatten(1),
            "mocap_quat": self._mocap_quat.flatten(1),
            "warmstart": self._warmstart,
        }
        return {name: value for name, value in state.items() if value.shape[1]}

    def _step(self) -> None:
        """All frames. Sensors are read in the last one; under Runge-Kutta, its last evaluation writes them last."""
        flags = self._model.opt.disableflags
        self._model.opt.disableflags = flags | int(_FLAGS.mjDSBL_SENSOR)
        for _ in range(self.frames - 1):
            mjw.step(self._model, self._worlds)
        if self.sensor_time is SensorTime.EVALUATION:
            self._model.opt.disableflags = flags
        mjw.step(self._model, self._worlds)
        self._model.opt.disableflags = flags
        if self.sensor_time is SensorTime.END:
            mjw.forward(self._model, self._worlds)

    def _forward(self) -> None:
        mjw.forward(self._model, self._worlds)

    def _launch(self, name: str, work: Callable[[], None]) -> None:
        """Runs `work`: directly on the CPU device and as part of a capture, otherwise as a graph."""
        if not self._warp_device.is_cuda or self._warp_device.is_capturing:
            with wp.ScopedDevice(self._warp_device):
                work()
            return
        stream = wp.stream_from_torch(torch.cuda.current_stream(self.device))
        if name not in self._graphs:
            self._graphs[name] = self._try_to_capture(work, stream)
        graph = self._graphs[name]
        if graph is not None:
            wp.capture_launch(graph, stream=stream)
            return
        with wp.ScopedStream(stream):
            work()

    def _try_to_capture(self, work: Callable[[], None], stream: wp.Stream) -> wp.Graph | None:
        try:
            return self._capture(work, stream)
        except RuntimeError as error:  # Warp's, for example without conditional nodes in a driver before CUDA 12.4
            reason = " ".join(str(error).split())
            message = f"scene {self.scene.name!r}: Warp captures no graph ({reason}), so every solver iteration waits"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
            return None

    def _capture(self, work: Callable[[], None], stream: wp.Stream) -> wp.Graph:
        """The graph of `work`. A first run compiles the kernels; its effects are undone."""
        with wp.ScopedStream(stream):
            state, readings = self.get_state(), self.sensordata.clone()
            work()
            self.set_state(state)
            self.sensordata.copy_(readings)
            self._overflow.zero_()
            torch.cuda.current_stream(self.device).synchronize()
        # The legacy default stream, torch's own, cannot be captured: use one beside it. The graph runs on any stream.
        with wp.ScopedStream(wp.Stream(self._warp_device)), wp.ScopedCapture(device=self._warp_device) as capture:
            work()
        return capture.graph

    def _vary(self, fields: Mapping[str, Shaped[Tensor, "K ..."]], worlds_per_row: int) -> None:
        models = build_models(self.scene.model, fields)
        names = [name for name in VARIABLE_FIELDS + DERIVED_FIELDS if getattr(self._host_model, name).size]
        with wp.ScopedDevice(self._warp_device):
            if not self._varied:
                # Shared fields have one row: give each world its own. Graphs hold old addresses, so drop them.
                flags, warn = self._model.opt.disableflags, self._model.opt.warn_overflow
                self._model = mjw.put_model(self._host_model, dict.fromkeys(names, self.num_worlds))
                self._model.opt.disableflags, self._model.opt.warn_overflow = flags, warn
                mean = np.full(self.num_worlds, self._host_model.stat.meaninertia, dtype=np.float32)
                self._model.stat.meaninertia = wp.array(mean, dtype=float)
                self._graphs.clear()
                self._arrays = next(_NUMBERS)
                self._varied = True
            for name in names:
                rows = np.stack([getattr(model, name) for model in models])
                self._assign(wp.to_torch(getattr(self._model, name)), rows, worlds_per_row)
            mean = np.array([model.stat.meaninertia for model in models])
            self._assign(wp.to_torch(self._model.stat.meaninertia), mean, worlds_per_row)

    def _assign(self, view: Tensor, rows: np.ndarray, worlds_per_row: int) -> None:
        values = torch.as_tensor(rows, dtype=view.dtype).to(view.device).repeat_interleave(worlds_per_row, dim=0)
        view.copy_(values.reshape(view.shape))


def _warp_device(device: torch.device) -> wp.Device:
    start_warp()
    if device.type == "cuda" and not wp.is_cuda_available():
        raise UsageError(f"device {str(device)!r}: Warp finds no CUDA driver; use device 'cpu'")
    return wp.device_from_torch(device)


def _supported(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of `model` with options that `mujoco_warp` lacks replaced by options that it has."""
    model = copy.copy(model)
    # It refuses contact margins under either of these.
    model.opt.disableflags |= _FLAGS.mjDSBL_MULTICCD | _FLAGS.mjDSBL_NATIVECCD
    if model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
        model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return model
