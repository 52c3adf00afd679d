"""What `mjData` calls `cfrc_ext`, `cvel` and `cinert`, computed from sensor readings.

All three are expressed about the centre of mass of the robot, in world coordinates. Sensors have one layout on both
engines, whereas `mjData` exists for one world at a time.
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
    rotation = rotation_matrices(quaternion)
    tensor = torch.einsum("wbij,bj,wbkj->wbik", rotation, inertia, rotation)
    square = offset.square().sum(-1)[..., None, None] * torch.eye(3, dtype=offset.dtype, device=offset.device)
    tensor = tensor + mass[:, None, None] * (square - offset[..., :, None] * offset[..., None, :])
    rows, columns = [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]
    entries = torch.stack([tensor[..., row, column] for row, column in zip(rows, columns, strict=True)], dim=-1)
    masses = mass.expand(offset.shape[:2])[..., None]
    return torch.cat([entries, masses * offset, masses], dim=-1)


def rotation_matrices(quaternion: Float[Tensor, "W bodies 4"]) -> Float[Tensor, "W bodies 3 3"]:
    """Rotation matrices of unit quaternions (w, x, y, z)."""
    w, x, y, z = quaternion.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
