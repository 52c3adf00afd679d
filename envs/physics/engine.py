"""The interface of a batch of simulated worlds, whichever engine steps it."""

import abc
import enum
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from metarl.envs.physics.fields import check_fields
from metarl.envs.physics.scene import Scene
from metarl.errors import UsageError
from metarl.tasks import check_count


class SensorTime(enum.Enum):
    """Which moment of a step its sensor readings belong to.

    >>> make_physics(scene, 64, backend="mujoco", sensor_time=SensorTime.END)
    """

    NONE = "none"
    """Sensors are not read."""
    EVALUATION = "evaluation"
    """The last evaluation of the forces in the step: what `mj_step` of the C library leaves behind, and so what
    Gymnasium's environments read. Under Euler integration it is one frame before the state reached; under Runge-Kutta,
    it is the last of the four evaluations of the last frame."""
    END = "end"
    """The state that the step reached."""


class Physics(abc.ABC):
    """`W` worlds of one scene, stepped together.

    `qpos` `[W, nq]`, `qvel` `[W, nv]` and `sensordata` `[W, S]` are the engine's own memory as tensors on `device`,
    float64 on CPU threads and float32 under Warp. Read them, clone what must outlive the next step, and change them
    only through the methods. On CPU threads their addresses stay the same, which compiled rewards count on. `faults`
    `[W]` marks the worlds that the last step could not finish: numbers that are not finite, or more contacts than there
    is room for. Their state is void until `reset`; the other worlds' is untouched.

    >>> physics = make_physics(scene, 64, backend="mujoco", frames=5)
    >>> physics.reset(torch.ones(64, dtype=torch.bool), qpos, qvel)
    >>> physics.step(control)
    >>> physics.qpos  # [64, nq]
    """

    scene: Scene
    num_worlds: int
    device: torch.device
    qpos: Float[Tensor, "W nq"]
    qvel: Float[Tensor, "W nv"]
    sensordata: Float[Tensor, "W S"]
    faults: Bool[Tensor, "W"]

    def __init__(self, scene: Scene, num_worlds: int, *, frames: int, sensor_time: SensorTime):
        """`frames`: simulated time steps in one `step`. Raises `UsageError` for a count below one."""
        check_count("number of worlds", num_worlds)
        check_count("number of frames", frames)
        self.scene = scene
        self.num_worlds = num_worlds
        self.frames = frames
        self.sensor_time = sensor_time

    @property
    def step_seconds(self) -> float:
        """Simulated seconds in one `step`."""
        return self.frames * float(self.scene.model.opt.timestep)

    def set_fields(self, fields: Mapping[str, Shaped[Tensor, "K ..."]], worlds_per_row: int) -> None:
        """Gives each group of `worlds_per_row` neighbouring worlds its own values of the named `MjModel` fields.

        `K * worlds_per_row` must be `num_worlds`. Constants that the compiler derives from the fields are recomputed.
        Raises `UsageError` for a field that cannot vary or a wrong shape.
        """
        check_fields(self.scene, fields, self.num_worlds, worlds_per_row)
        self._vary(fields, worlds_per_row)

    @abc.abstractmethod
    def reset(
        self,
        worlds: Bool[Tensor, "W"],
        qpos: Float[Tensor, "W nq"],
        qvel: Float[Tensor, "W nv"],
        warmstart: Float[Tensor, "W nv"] | None = None,
    ) -> None:
        """Puts the chosen worlds into the given state, with zero controls and forces; the other rows are ignored.

        `warmstart`: accelerations at which the constraint solver starts its first search; zero if none are given.
        """

    @abc.abstractmethod
    def step(
        self,
        control: Float[Tensor, "W nu"],
        mocap_pos: Float[Tensor, "W nmocap 3"] | None = None,
        mocap_quat: Float[Tensor, "W nmocap 4"] | None = None,
    ) -> None:
        """`frames` time steps with constant controls; mocap poses stay as they were if none are given."""

    @abc.abstractmethod
    def forward(self, worlds: Bool[Tensor, "W"]) -> None:
        """Reads the sensors of the chosen worlds, and of no others, at their present state."""

    @abc.abstractmethod
    def get_state(self) -> dict[str, Tensor]:
        """Copies of everything that the next step depends on, each `[W, ...]`: `qpos`, `qvel`, `warmstart`, …"""

    @abc.abstractmethod
    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `get_state` returned; names that are missing keep their values."""

    @abc.abstractmethod
    def _vary(self, fields: Mapping[str, Shaped[Tensor, "K ..."]], worlds_per_row: int) -> None:
        """`set_fields`, after its checks."""

    def cores_reserved(self) -> AbstractContextManager[None]:
        """For `step` and the tensor operations around it: keeps torch's threads off the cores that the engine uses."""
        return nullcontext()

    def close(self) -> None:  # noqa: B027 (an engine without threads has nothing to close)
        """Stops what the engine has started."""


def make_physics(
    scene: Scene,
    num_worlds: int,
    *,
    backend: str,
    device: torch.device | str = "cpu",
    frames: int = 1,
    sensor_time: SensorTime = SensorTime.END,
    **options: int,
) -> Physics:
    """The engine named `backend`: `"mujoco"` (CPU threads) or `"warp"`.

    Options: `threads` (mujoco), `contacts_per_world` (warp). Raises `UsageError` for an unknown backend and if the
    engine lacks what the scene needs.
    """
    device = torch.device(device)
    if backend == "mujoco":
        if device.type != "cpu":
            raise UsageError("backend 'mujoco' runs on CPU threads: use device 'cpu', or backend 'warp'")
        try:
            from metarl.envs.physics.threads import ThreadPhysics
        except ImportError as error:
            raise UsageError(
                f"backend 'mujoco' needs mjbatch and the version of mujoco that it is made for ({error}): "
                f"pip install 'mjbatch==0.1.4'"
            ) from None
        return ThreadPhysics(scene, num_worlds, frames=frames, sensor_time=sensor_time, **options)
    if backend == "warp":
        from metarl.envs.physics.warp_engine import WarpPhysics

        return WarpPhysics(scene, num_worlds, device=device, frames=frames, sensor_time=sensor_time, **options)
    raise UsageError(f"unknown physics engine {backend!r}: choose from mujoco, warp")
