"""MuJoCo's Runge-Kutta frame taken apart, for the readings of its last evaluation.

`mujoco.rollout` reads sensors at the first of a frame's four evaluations only. What `mj_step` leaves in `mjData`, and
what Gymnasium's environments observe, belongs to the last.
"""

from collections.abc import Callable

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

Evaluate = Callable[[Tensor, Tensor, bool], Tensor]

_STAGES = (0.5, 0.5, 1.0)


class PositionIntegrator:
    """`mj_integratePos` for batches: moves positions along velocities, on the sphere for quaternions."""

    def __init__(self, model: mujoco.MjModel):
        scalars, quaternions = [], []
        for kind, q, v in zip(model.jnt_type, model.jnt_qposadr, model.jnt_dofadr, strict=True):
            if kind == mujoco.mjtJoint.mjJNT_FREE:
                scalars += [(q + i, v + i) for i in range(3)]
                quaternions.append((q + 3, v + 3))
            elif kind == mujoco.mjtJoint.mjJNT_BALL:
                quaternions.append((q, v))
            else:
                scalars.append((q, v))
        self._scalar_q = torch.tensor([int(q) for q, _ in scalars], dtype=torch.int64)
        self._scalar_v = torch.tensor([int(v) for _, v in scalars], dtype=torch.int64)
        self._quaternions = [(int(q), int(v)) for q, v in quaternions]

    def __call__(
        self, qpos: Float[Tensor, "W nq"], qvel: Float[Tensor, "W nv"], seconds: float
    ) -> Float[Tensor, "W nq"]:
        moved = torch.empty_like(qpos)
        moved[:, self._scalar_q] = qpos[:, self._scalar_q] + seconds * qvel[:, self._scalar_v]
        for q, v in self._quaternions:
            moved[:, q : q + 4] = _turn(qpos[:, q : q + 4], qvel[:, v : v + 3], seconds)
        return moved


def runge_kutta_frame(
    evaluate: Evaluate,
    integrate: PositionIntegrator,
    qpos: Float[Tensor, "W nq"],
    qvel: Float[Tensor, "W nv"],
    seconds: float,
    *,
    sense: bool,
) -> tuple[Float[Tensor, "W nq"], Float[Tensor, "W nv"], Float[Tensor, "W nv"]]:
    """Position and velocity after one frame, and the acceleration at its last evaluation.

    `evaluate(qpos, qvel, sense)` gives the acceleration; with `sense` the last one is asked to take readings.
    """
    velocities, accelerations = [qvel], [evaluate(qpos, qvel, False)]
    for number, share in enumerate(_STAGES, start=1):
        stage_qpos = integrate(qpos, velocities[-1], share * seconds)
        stage_qvel = qvel + share * seconds * accelerations[-1]
        velocities.append(stage_qvel)
        accelerations.append(evaluate(stage_qpos, stage_qvel, sense and number == len(_STAGES)))
    mean_velocity, mean_acceleration = _mean(velocities), _mean(accelerations)
    return integrate(qpos, mean_velocity, seconds), qvel + seconds * mean_acceleration, accelerations[-1]


def _mean(stages: list[Tensor]) -> Tensor:
    first, second, third, fourth = stages
    return (first + 2 * second + 2 * third + fourth) / 6


def _turn(
    quaternion: Float[Tensor, "W 4"], angular_velocity: Float[Tensor, "W 3"], seconds: float
) -> Float[Tensor, "W 4"]:
    """`mju_quatIntegrate`: the unit quaternion turned by a rotation given in its own frame."""
    quaternion = quaternion / torch.linalg.vector_norm(quaternion, dim=-1, keepdim=True)
    speed = torch.linalg.vector_norm(angular_velocity, dim=-1, keepdim=True)
    axis = angular_velocity / speed.clamp(min=1e-300)
    half = 0.5 * seconds * speed
    w1, x1, y1, z1 = quaternion.unbind(-1)
    w2, (x2, y2, z2) = torch.cos(half)[:, 0], (torch.sin(half) * axis).unbind(-1)
    return torch.stack(
        [
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ],
        dim=-1,
    )
