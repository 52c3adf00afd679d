"""Randomised dynamics: models that differ in a few numbers, and in the constants that follow from these."""

import copy
from collections.abc import Mapping

import mujoco
import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from metarl.envs.physics.scene import Scene
from metarl.errors import UsageError

VARIABLE_FIELDS = (
    "body_mass",
    "body_inertia",
    "body_ipos",
    "body_gravcomp",
    "dof_armature",
    "dof_damping",
    "dof_frictionloss",
    "geom_friction",
    "geom_solref",
    "geom_solimp",
    "jnt_stiffness",
    "actuator_gear",
)
"""Fields of `MjModel` that may differ between worlds."""

DERIVED_FIELDS = (
    "body_subtreemass",
    "body_invweight0",
    "dof_invweight0",
    "tendon_length0",
    "tendon_invweight0",
    "actuator_acc0",
)
"""Fields that the compiler (`mj_setConst`) derives from the others; `stat.meaninertia` is one more."""


def check_fields(
    scene: Scene, fields: Mapping[str, Shaped[Tensor, "K ..."]], num_worlds: int, worlds_per_row: int
) -> None:
    """Raises `UsageError` unless every field may vary and has one row of the model's shape per group of worlds."""
    for name, value in fields.items():
        if name not in VARIABLE_FIELDS:
            raise UsageError(f"field {name!r} cannot differ between worlds: choose from {', '.join(VARIABLE_FIELDS)}")
        expected = (num_worlds // worlds_per_row, *getattr(scene.model, name).shape)
        if num_worlds % worlds_per_row or tuple(value.shape) != expected:
            raise UsageError(f"field {name!r} of scene {scene.name!r}: want {list(expected)}, got {list(value.shape)}")


def build_models(model: mujoco.MjModel, fields: Mapping[str, Shaped[Tensor, "K ..."]]) -> list[mujoco.MjModel]:
    """One copy of `model` per row of `fields`, with the derived constants recomputed."""
    rows = {name: value.detach().cpu().numpy().astype(np.float64) for name, value in fields.items()}
    count = len(next(iter(rows.values())))
    models = []
    data = mujoco.MjData(model)
    for row in range(count):
        variant = copy.copy(model)
        for name, value in rows.items():
            getattr(variant, name)[:] = value[row]
        mujoco.mj_setConst(variant, data)
        models.append(variant)
    return models


def scale_body(model: mujoco.MjModel, body: str, factor: Float[Tensor, "K"]) -> dict[str, Tensor]:
    """Fields (`Physics.set_fields`) that multiply the mass of a body by `factor`, and with it the moments of inertia.

    That is a body of the same shape and another density. Raises `UsageError` for an unknown body.

    >>> scale_body(scene.model, "torso", torch.tensor([0.5, 2.0]))["body_mass"]  # [2, bodies], kg
    """
    number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, body)
    if number < 0:
        known = ", ".join(model.body(number).name for number in range(1, model.nbody))
        raise UsageError(f"the model has no body {body!r}: it has {known}")
    fields = {}
    for name in ("body_mass", "body_inertia"):
        rows = torch.as_tensor(np.array(getattr(model, name))).repeat(len(factor), *[1] * getattr(model, name).ndim)
        rows[:, number] *= factor.cpu().double().view(-1, *[1] * (rows.ndim - 2))
        fields[name] = rows
    return fields
