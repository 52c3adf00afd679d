"""What a task reads of its scene: positions, orientations, joints and touches, by name, for a batch of scenes."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SIZES = {"body": 3, "site": 3, "geom": 3, "body_quat": 4, "geom_quat": 4, "touch": 2}
"""Kinds of frames and how many numbers each reads: positions (m), quaternions (w, x, y, z), pads' forces (N)."""

ARM_FRAMES = (
    "body:hand",
    "body:rightclaw",
    "body:leftclaw",
    "body:rightpad",
    "body:leftpad",
    "site:rightEndEffector",
    "site:leftEndEffector",
)
"""What every task reads."""

HAND_LOW = (-0.525, 0.348, -0.0525)
HAND_HIGH = (0.525, 1.025, 0.7)
"""Bounds of the observed hand position (m)."""

_WIDEST_GRIP = 0.1  # metres between the claws of the open gripper


@dataclass(frozen=True)
class Layout:
    """Which sensor data of a scene belong to each frame (`"kind:name"`), and which of `qpos` to each joint.

    >>> Layout.in_order(["body:hand", "geom_quat:handle"], {"doorjoint": 9})
    """

    frames: Mapping[str, slice]
    joints: Mapping[str, int]

    @classmethod
    def in_order(cls, frames: Sequence[str], joints: Mapping[str, int]) -> "Layout":
        """The given frames one after the other."""
        places, start = {}, 0
        for frame in frames:
            size = SIZES[frame.partition(":")[0]]
            places[frame] = slice(start, start + size)
            start += size
        return cls(places, joints)


@dataclass(frozen=True)
class View:
    """`R` scenes of one kind at one moment. Positions in metres, world coordinates; quaternions w, x, y, z.

    >>> view = View(scene.layout, physics.sensordata, physics.qpos)
    >>> view.body("hand"), view.joint("doorjoint")
    """

    layout: Layout
    sensordata: Float[Tensor, "R S"]
    qpos: Float[Tensor, "R nq"]

    def body(self, name: str) -> Float[Tensor, "R 3"]:
        """The origin of a body's frame."""
        return self._read(f"body:{name}")

    def site(self, name: str) -> Float[Tensor, "R 3"]:
        return self._read(f"site:{name}")

    def geom(self, name: str) -> Float[Tensor, "R 3"]:
        return self._read(f"geom:{name}")

    def body_quat(self, name: str) -> Float[Tensor, "R 4"]:
        return self._read(f"body_quat:{name}")

    def geom_quat(self, name: str) -> Float[Tensor, "R 4"]:
        return self._read(f"geom_quat:{name}")

    def joint(self, name: str) -> Float[Tensor, "R"]:
        """The position of a hinge (rad) or slide (m) joint."""
        return self.qpos[:, self.layout.joints[name]]

    def touching(self, geom: str) -> Bool[Tensor, "R"]:
        """Whether both finger pads press on the geom."""
        return (self._read(f"touch:{geom}") > 0).all(-1)

    @functools.cached_property
    def hand(self) -> Float[Tensor, "R 3"]:
        """The hand's position as it is observed: clipped to `HAND_LOW` … `HAND_HIGH`."""
        hand = self.body("hand")
        return hand.clamp(constant(hand, *HAND_LOW), constant(hand, *HAND_HIGH))

    @functools.cached_property
    def gripper(self) -> Float[Tensor, "R"]:
        """How far the gripper is open, 0 … 1."""
        apart = torch.linalg.vector_norm(self.body("rightclaw") - self.body("leftclaw"), dim=-1)
        return (apart / _WIDEST_GRIP).clamp(0, 1)

    @functools.cached_property
    def tcp(self) -> Float[Tensor, "R 3"]:
        """The tool centre point, midway between the fingers' tips."""
        return (self.site("rightEndEffector") + self.site("leftEndEffector")) / 2

    @property
    def left_pad(self) -> Float[Tensor, "R 3"]:
        return self.body("leftpad")

    @property
    def right_pad(self) -> Float[Tensor, "R 3"]:
        return self.body("rightpad")

    def _read(self, frame: str) -> Tensor:
        return self.sensordata[:, self.layout.frames[frame]]


def constant(like: Tensor, *numbers: float) -> Float[Tensor, "_"]:
    """The numbers on the device and of the type of `like`. Made once: copying them to a GPU makes a step wait."""
    return _made_once(numbers, like.dtype, like.device)


@functools.cache
def _made_once(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=dtype, device=device)


def at_height(point: Float[Tensor, "R _"], height: float | Float[Tensor, "R"]) -> Float[Tensor, "R 3"]:
    """The x and y of `point` with another z."""
    z = height[:, None] if isinstance(height, Tensor) else torch.full_like(point[:, :1], height)
    return torch.cat([point[:, :2], z], 1)


def scalar_last(quaternion: Float[Tensor, "R 4"]) -> Float[Tensor, "R 4"]:
    """(w, x, y, z) → (x, y, z, w) with the largest component positive, as SciPy reads a rotation matrix.

    The package observes some objects in this order, others in MuJoCo's.
    """
    largest = quaternion.gather(1, quaternion.abs().argmax(1, keepdim=True))
    signed = torch.where(largest < 0, -quaternion, quaternion)
    return torch.cat([signed[:, 1:], signed[:, :1]], 1)
