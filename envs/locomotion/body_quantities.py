"""What `mjData` calls `cfrc_ext`, `cvel` and `cinert`, computed from sensor readings.

All three are about the centre of mass of the robot, in world coordinates. Sensors have one layout on both engines,
whereas `mjData` exists for one world at a time.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def external_forces(
    contact_wrench: Float[Tensor, "W bodies 9"], com: Float[Tensor, "W 3"]
) -> Float[Tensor, "W bodies 6"]:
    """`cfrc_ext`: torque (N m) and force (N) that contacts exert on each body.

    `contact_wrench`: what `SceneBuilder.sense` reads under that name. It is the wrench that the body exerts.
    """
    force, torque, point = contact_wrench.split(3, dim=-1)
    return -torch.cat([torque + torch.linalg.cross(point - com[:, None], force), force], dim=-1)


def body_velocities(
    angular: Float[Tensor, "W bodies 3"],
    linear: Float[Tensor, "W bodies 3"],
    position: Float[Tensor, "W bodies 3"],
    com: Float[Tensor, "W 3"],
) -> Float[Tensor, "W bodies 6"]:
    """`cvel`: angular velocity (rad/s) of each body, and velocity (m/s) of its extension to the robot's centre of mass.

    `linear` and `position` are those of the bodies' own centres of mass.
    """
    return torch.cat([angular, linear + torch.linalg.cross(angular, com[:, None] - position)], dim=-1)


def body_inertias(
    quaternion: Float[Tensor, "W bodies 4"],
    position: Float[Tensor, "W bodies 3"],
    com: Float[Tensor, "W 3"],
    mass: Float[Tensor, "bodies"],
    inertia: Float[Tensor, "bodies 3"],
) -> Float[Tensor, "W bodies 10"]:
    """`cinert`: inertia about the robot's centre of mass (xx, yy, zz, xy, xz, yz), mass times offset (3) and mass.

    `quaternion` and `position` are those of the bodies' inertial frames, `inertia` the moments along their axes.
    """
    offset = position - com[:, None]
    axes, (x, y, z) = rotation_matrices(quaternion).unbind(-2), offset.unbind(-1)
    # The parallel-axis theorem, entry by entry: own inertia turned into world coordinates, and that of a point mass.
    point = [y * y + z * z, x * x + z * z, x * x + y * y, -x * y, -x * z, -y * z]
    pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    entries = [
        (axes[row] * axes[column] * inertia).sum(-1) + mass * share
        for (row, column), share in zip(pairs, point, strict=True)
    ]
    masses = mass.expand(x.shape)
    return torch.stack([*entries, masses * x, masses * y, masses * z, masses], dim=-1)


def rotation_matrices(quaternion: Float[Tensor, "W bodies 4"]) -> Float[Tensor, "W bodies 3 3"]:
    """Rotation matrices of unit quaternions (w, x, y, z)."""
    w, x, y, z = quaternion.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
