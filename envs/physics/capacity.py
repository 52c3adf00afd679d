"""How many contacts a scene can have at a time, for which a GPU has to reserve memory."""

from dataclasses import dataclass

import mujoco
import numpy as np

_PLANE, _SPHERE = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_SPHERE
_CAPSULE, _ELLIPSOID = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_ELLIPSOID
_MOST = 96
_LEAST = 8


@dataclass(frozen=True)
class ContactCapacity:
    """Room that a world needs.

    >>> capacity = contact_capacity(scene.model)
    >>> capacity.rows(capacity.contacts)
    """

    contacts: int
    """Contacts at a time."""
    rows_per_contact: int
    """Constraint rows of the contact with the most friction dimensions."""
    other_rows: int
    """Constraint rows of joint limits, friction losses and equalities."""

    def rows(self, contacts: int) -> int:
        """Constraint rows for `contacts` contacts and everything else."""
        return contacts * self.rows_per_contact + self.other_rows


def contact_capacity(model: mujoco.MjModel) -> ContactCapacity:
    """Counts every pair of geoms that may collide, with as many contacts as its shapes allow, but at most 96.

    In scenes with more, not all pairs touch at once. A world that needs more is reported as a fault, never silently
    wrong.
    """
    contacts, dimension = 0, 1
    for first in range(model.ngeom):
        for second in range(first + 1, model.ngeom):
            if _may_collide(model, first, second):
                contacts += _contacts_of_shapes(int(model.geom_type[first]), int(model.geom_type[second]))
                dimension = max(dimension, int(model.geom_condim[first]), int(model.geom_condim[second]))
    for pair in range(model.npair):
        shapes = (int(model.geom_type[model.pair_geom1[pair]]), int(model.geom_type[model.pair_geom2[pair]]))
        contacts += _contacts_of_shapes(*shapes)
        dimension = max(dimension, int(model.pair_dim[pair]))
    pyramidal = model.opt.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL
    rows = 1 if dimension == 1 else 2 * (dimension - 1) if pyramidal else dimension
    limits = int(np.count_nonzero(model.jnt_limited)) + 2 * int(np.count_nonzero(model.tendon_limited))
    losses = int(np.count_nonzero(model.dof_frictionloss)) + int(np.count_nonzero(model.tendon_frictionloss))
    return ContactCapacity(min(max(contacts, _LEAST), _MOST), rows, limits + losses + 6 * model.neq)


def _may_collide(model: mujoco.MjModel, first: int, second: int) -> bool:
    """MuJoCo's own filters: masks, the same body, parent and child."""
    masks = (model.geom_contype[first] & model.geom_conaffinity[second]) | (
        model.geom_contype[second] & model.geom_conaffinity[first]
    )
    bodies = model.body_weldid[model.geom_bodyid[[first, second]]]
    if not masks or bodies[0] == bodies[1]:
        return False
    parents = model.body_weldid[model.body_parentid[bodies]]
    related = (bodies[0] and bodies[0] == parents[1]) or (bodies[1] and bodies[1] == parents[0])
    return not related or bool(model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_FILTERPARENT)


def _contacts_of_shapes(first: int, second: int) -> int:
    shapes = {first, second}
    if shapes & {int(_SPHERE), int(_ELLIPSOID)}:
        return 1
    if shapes <= {int(_PLANE), int(_CAPSULE)}:
        return 2
    return 4 if int(_PLANE) in shapes else 8
