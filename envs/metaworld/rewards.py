"""Terms that Meta-World's rewards v2 are made of, for a batch of scenes.

Tolerances are dm_control's (Tassa et al. 2018, section 4.1); their fuzzy conjunction is the Hamacher t-norm.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.metaworld.definition import Start
from metarl.envs.metaworld.views import View, constant

_AT_MARGIN = 0.1  # what a tolerance is worth one margin outside its bounds


def distance(a: Float[Tensor, "*R D"], b: Float[Tensor, "*R D"] | None = None) -> Float[Tensor, "*R"]:
    """The Euclidean distance of two points, or the length of a vector."""
    return torch.linalg.vector_norm(a if b is None else a - b, dim=-1)


def tolerance(
    x: Float[Tensor, "*R"],
    low: float | Float[Tensor, "*R"],
    high: float | Float[Tensor, "*R"],
    margin: float | Float[Tensor, "*R"],
    sigmoid: str = "long_tail",
) -> Float[Tensor, "*R"]:
    """1 where `low <= x <= high`, falling to 0.1 at `margin` outside; 0 at once where the margin is 0.

    `sigmoid`: `"long_tail"` or `"gaussian"`, as dm_control names them.
    """
    outside, tiny = torch.maximum(low - x, x - high).clamp(min=0), torch.finfo(x.dtype).tiny
    ratio = outside / (margin.clamp(min=tiny) if isinstance(margin, Tensor) else max(margin, tiny))
    if sigmoid == "long_tail":
        return (ratio.square() * (1 / _AT_MARGIN - 1) + 1).reciprocal()
    return torch.exp(ratio.square() * math.log(_AT_MARGIN))


def hamacher(a: Float[Tensor, "*R"], b: Float[Tensor, "*R"]) -> Float[Tensor, "*R"]:
    """The Hamacher product of two numbers in 0 … 1: large only where both are."""
    product = a * b
    return product / (a + b - product).clamp(min=torch.finfo(a.dtype).tiny)  # 0 where both are


def inside_prism(
    point: Float[Tensor, "R 3"], zero: Float[Tensor, "R 3"], one: Float[Tensor, "R 3"]
) -> Float[Tensor, "R"]:
    """1 outside a box; inside, from 0 at the corner `zero` to 1 at the corner `one`: the product over the axes."""
    fraction = (point - zero) / (one - zero)
    inside = ((fraction >= 0) & (fraction <= 1)).all(-1)
    return torch.where(inside, fraction.prod(-1), 1.0)


def effort(action: Float[Tensor, "R 4"], wanted: float = 1.0) -> Float[Tensor, "R"]:
    """How much of the wanted closing effort the action asks of the gripper, 0 … 1."""
    return action[:, 3].clamp(0, wanted) / wanted


def held(view: View, start: Start, position: Float[Tensor, "R 3"], height: float = 0.02) -> Bool[Tensor, "R"]:
    """Whether both pads press on the object at `position`, which is more than `height` above its start."""
    raised = position[:, 2] - height > start.object[:, 2]
    return view.touching("objGeom") & (view.gripper > 0) & raised


def caging(
    view: View,
    start: Start,
    action: Float[Tensor, "R 4"],
    position: Float[Tensor, "R 3"],
    *,
    object_radius: float,
    pad_radius: float,
    xz_radius: float,
    reach_radius: float = 0.01,
    wanted_effort: float = 1.0,
    density: str = "low",
) -> Float[Tensor, "R"]:
    """How well the gripper surrounds and grips what lies at `position`, 0 … 1.

    `object_radius`: of the object's bounding sphere; `pad_radius`: how near in y a pad must come; `xz_radius`: how near
    the tool centre in x and z; `reach_radius`: how near altogether, used with `density="medium"` only. `density`:
    `"low"` rewards the grip alone, `"medium"` the way to the object as well, `"high"` the surrounding as well.
    """
    pads = torch.stack([view.left_pad[:, 1], view.right_pad[:, 1]])
    margins = ((pads - start.object[:, 1]).abs() - pad_radius).abs()
    left, right = tolerance((pads - position[:, 1]).abs(), object_radius, pad_radius, margins)
    caged = hamacher(hamacher(left, right), _around(view, start, position, xz_radius))
    gripped = hamacher(caged, torch.where(caged > 0.97, effort(action, wanted_effort), 0.0))
    if density == "high":
        return (gripped + caged) / 2
    if density == "medium":
        margin = (distance(start.object, start.tcp) - reach_radius).abs()
        return (gripped + tolerance(distance(position, view.tcp), 0.0, reach_radius, margin)) / 2
    return gripped


def signed_caging(
    view: View,
    start: Start,
    position: Float[Tensor, "R 3"],
    *,
    object_radius: float,
    pad_radius: float,
    xz_radius: float,
) -> Float[Tensor, "R"]:
    """How well the pads stand left and right of `position`, and the tool centre at its x and z, 0 … 1.

    A pad on the wrong side counts as far away.
    """
    between = _between_pads(view, position, object_radius, pad_radius, pad_radius)
    return hamacher(between, _around(view, start, position, xz_radius))


def pinching(
    view: View,
    start: Start,
    position: Float[Tensor, "R 3"],
    *,
    object_radius: float,
    grip_radius: float,
    pad_radius: float,
    xz_radius: float,
) -> Float[Tensor, "R"]:
    """`signed_caging`, then the pads' closing in to `grip_radius`: where they are counts, not the effort; 0 … 1."""
    around = _around(view, start, position, xz_radius)
    caged = hamacher(_between_pads(view, position, object_radius, pad_radius, pad_radius), around)
    pinched = _between_pads(view, position, object_radius, grip_radius, pad_radius)
    return (caged + torch.where(caged > 0.95, pinched, 0.0)) / 2


def _around(view: View, start: Start, position: Float[Tensor, "R 3"], radius: float) -> Float[Tensor, "R"]:
    """How near the tool centre is to `position` in x and z."""
    tcp, plane = view.tcp, slice(0, 3, 2)
    margin = distance(start.object[:, plane], start.tcp[:, plane]) - radius
    return tolerance(distance(tcp[:, plane], position[:, plane]), 0.0, radius, margin)


def _between_pads(
    view: View, position: Float[Tensor, "R 3"], nearest: float, farthest: float, pad_radius: float
) -> Float[Tensor, "R"]:
    """Whether the left pad is to the left and the right one to the right, `nearest` to `farthest` from `position` in y.

    The pads' margins follow from where they are now: the package means their places at the start, but holds views of
    MuJoCo's arrays, which move on.
    """
    y = position[:, 1]
    sides = torch.stack([view.left_pad[:, 1] - y, y - view.right_pad[:, 1]])
    left, right = tolerance(sides, nearest, farthest, (sides.abs() - pad_radius).abs())
    return hamacher(left, right)


def funnel(
    radius: Float[Tensor, "R"], rim: float | Float[Tensor, "R"], steepness: float, height: float
) -> Float[Tensor, "R"]:
    """The floor of a funnel at `radius` metres from its axis: 0 up to `rim`, from there on the log of the distance.

    `height`: of the floor one metre outside the rim.
    """
    outside = radius - rim
    rising = steepness * outside.clamp(min=torch.finfo(radius.dtype).tiny).log() + height
    return torch.where(outside > 0, rising, 0.0)


def staying_above(
    floor: Float[Tensor, "R"], height: Float[Tensor, "R"], margin: float | Float[Tensor, "R"]
) -> Float[Tensor, "R"]:
    """1 above a floor (and to 1 cm below it), falling to 0.1 at `margin` metres more."""
    return tolerance((floor - height).clamp(min=0), 0.0, 0.01, margin)


def alignment(
    quaternion: Float[Tensor, "R 4"], wanted: tuple[float, float, float, float], limit: float
) -> Float[Tensor, "R"]:
    """1 at the wanted orientation, falling to 0 at `limit` (as the numbers of quaternions differ, not their angle)."""
    return (1 - distance(quaternion - constant(quaternion, *wanted)) / limit).clamp(min=0)


def along_handle(position: Float[Tensor, "R 3"], hand: Float[Tensor, "R 3"], reach: float) -> Float[Tensor, "R 3"]:
    """The point of a handle in x direction, `reach` to either side of `position`, where the hand should take it."""
    x, at = position[:, :1], hand[:, :1]
    return torch.cat([torch.where((x - at).abs() < reach, at, x), position[:, 1:]], 1)
