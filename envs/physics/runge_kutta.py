"""MuJoCo's Runge-Kutta frame taken apart, for the readings of its last evaluation.

`mj_step` reads sensors at the first of a frame's four evaluations only. What else it leaves in `mjData`, and what
Gymnasium's environments observe, belongs to the last.
"""

from collections.abc import Callable

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

Evaluate = Callable[[Tensor, Tensor, bool], Tensor]

_STAGES = (0.5, 0.5, 1.0)


class PositionIntegrator:
    """`mj_integratePos` for batches: moves positions along velocities, on the sphere for quaternions.

    >>> PositionIntegrator(model)(qpos, qvel, 0.01)  # [W, nq]
    """

    def __init__(self, model: mujoco.MjModel):
        scalars, self._quaternions = [], []
        for kind, q, v in zip(model.jnt_type, model.jnt_qposadr.tolist(), model.jnt_dofadr.tolist(), strict=True):
            if kind == mujoco.mjtJoint.mjJNT_FREE:
                scalars += [(q + i, v + i) for i in range(3)]
                self._quaternions.append((q + 3, v + 3))
            elif kind == mujoco.mjtJoint.mjJNT_BALL:
                self._quaternions.append((q, v))
            else:
                scalars.append((q, v))
        self._runs = _neighbours(scalars)

    def __call__(
        self, qpos: Float[Tensor, "W nq"], qvel: Float[Tensor, "W nv"], seconds: float
    ) -> Float[Tensor, "W nq"]:
        moved = torch.empty_like(qpos)
        for q, v in self._runs:
            torch.add(qpos[:, q], qvel[:, v], alpha=seconds, out=moved[:, q])
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

    `evaluate(qpos, qvel, sense)` gives the acceleration times `seconds`; with `sense`, the last evaluation reads the
    sensors.
    """
    velocities, gains = [qvel], [evaluate(qpos, qvel, False)]
    for number, share in enumerate(_STAGES, start=1):
        stage_qpos = integrate(qpos, velocities[-1], share * seconds)
        velocities.append(torch.add(qvel, gains[-1], alpha=share))
        gains.append(evaluate(stage_qpos, velocities[-1], sense and number == len(_STAGES)))
    return integrate(qpos, _mean(velocities), seconds), qvel + _mean(gains), gains[-1] / seconds


def _mean(stages: list[Tensor]) -> Tensor:
    first, second, third, fourth = stages
    return (first + fourth).add_(second + third, alpha=2).div_(6)


def _neighbours(pairs: list[tuple[int, int]]) -> list[tuple[slice, slice]]:
    """Pairs of numbers that count up together, as pairs of slices."""
    runs: list[tuple[slice, slice]] = []
    for q, v in pairs:
        if runs and (runs[-1][0].stop, runs[-1][1].stop) == (q, v):
            (first_q, first_v) = (part.start for part in runs.pop())
        else:
            first_q, first_v = q, v
        runs.append((slice(first_q, q + 1), slice(first_v, v + 1)))
    return runs


def _turn(
    quaternion: Float[Tensor, "W 4"], angular_velocity: Float[Tensor, "W 3"], seconds: float
) -> Float[Tensor, "W 4"]:
    """`mju_quatIntegrate`: the unit quaternion turned by a rotation given in its own frame."""
    half = angular_velocity * (0.5 * seconds)
    angle = torch.linalg.vector_norm(half, dim=-1, keepdim=True)
    scalar, vector = torch.cos(angle), half * torch.sinc(angle / torch.pi)
    first, axis = quaternion[:, :1], quaternion[:, 1:]
    turned = torch.cat(
        [
            first * scalar - (axis * vector).sum(-1, keepdim=True),
            first * vector + scalar * axis + torch.linalg.cross(axis, vector),
        ],
        dim=-1,
    )
    return turned / torch.linalg.vector_norm(quaternion, dim=-1, keepdim=True)
