"""Repairs of `mujoco_warp` where it departs from MuJoCo and a robot walks differently because of it."""

import inspect
from typing import Any

import mujoco_warp._src.collision_primitive as primitive
import warp as wp

_plane_capsule: Any = getattr(primitive, "plane_capsule", None)


def _aligned_plane_capsule(  # type: ignore[no-untyped-def]  # Warp infers it
    plane_normal: wp.vec3,
    plane_pos: wp.vec3,
    capsule_pos: wp.vec3,
    capsule_axis: wp.vec3,
    capsule_radius: float,
    capsule_half_length: float,
):
    distances, positions, frame = _plane_capsule(
        plane_normal, plane_pos, capsule_pos, capsule_axis, capsule_radius, capsule_half_length
    )
    along = capsule_axis - wp.dot(capsule_axis, plane_normal) * plane_normal
    if wp.length(along) > 1.0e-6:  # type: ignore[call-overload]
        first = wp.normalize(along)  # type: ignore[call-overload]
        frame = wp.matrix_from_rows(plane_normal, first, wp.cross(plane_normal, first))  # type: ignore[arg-type]
    return distances, positions, frame


def align_capsule_frames() -> None:
    """Turns the friction pyramid of a capsule on a plane as MuJoCo turns it: along the capsule.

    `mujoco_warp` (like MJX: https://github.com/google-deepmind/mujoco/issues/2774) does so only while the capsule
    is less than 60° steep, and takes a fixed direction beyond. An ant's legs are steeper, and after twenty steps it is
    0.3 m off. Call it before the first kernel is compiled; it does nothing if the function to repair is gone.
    """
    if _plane_capsule is not None:
        # Warp compiles the source of the bare function, whatever has been wrapped around it to check types.
        primitive.plane_capsule = wp.func(inspect.unwrap(_aligned_plane_capsule))
