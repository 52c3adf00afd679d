"""Terms that Meta-World's rewards v1 are made of, for a batch of scenes: distances, bells about the ends, heights."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.metaworld.definition import Start
from metarl.envs.metaworld.rewards import distance
from metarl.envs.metaworld.views import View, at_height


def progress(
    far: float | Float[Tensor, "R"], near: Float[Tensor, "R"], *, width: float = 0.01, height: float = 1000.0
) -> Float[Tensor, "R"]:
    """The pay for a distance that was `far` at the start and is `near` now: 1000 a metre, and more near the end.

    There two bells are `height` high; `width`: of the wider one, m²; the other has a tenth of it.
    """
    squared = -near.square() / width
    return 1000 * (far - near) + height * (torch.exp(squared) + torch.exp(10 * squared))


def closing_in(far: float | Float[Tensor, "R"], near: Float[Tensor, "R"], *, width: float = 0.01) -> Float[Tensor, "R"]:
    """As `progress`, but never negative."""
    return progress(far, near, width=width).clamp(min=0)


def reach_and_move(
    reach: Float[Tensor, "R"],
    far: float | Float[Tensor, "R"],
    near: Float[Tensor, "R"],
    *,
    width: float = 0.01,
) -> Float[Tensor, "R"]:
    """The reward of most tasks that move an object without lifting it: first the way to it, then the object's own.

    `reach`: how far the hand is from the object; the rest as `progress` has it.
    """
    return torch.where(reach < 0.05, closing_in(far, near, width=width), 0.0) - reach


def approach(
    tcp: Float[Tensor, "R 3"],
    position: Float[Tensor, "R 3"],
    action: Float[Tensor, "R 4"],
    *,
    rest_height: float | Float[Tensor, "R"],
    drop: float,
    above: float = 0.05,
    near: float = 0.05,
) -> Float[Tensor, "R"]:
    """The pay for reaching an object from above: first staying at `rest_height`, then down, then the grip.

    `above`: how near in x and y the hand may come down; `near`: where closing the gripper pays; `drop`: the weight of
    the height.
    """
    reach, reach_xy = distance(position, tcp), distance(position[:, :2], tcp[:, :2])
    reward = torch.where(reach_xy < above, -reach, -reach_xy - drop * (tcp[:, 2] - rest_height).abs())
    return torch.where(reach < near, -reach + action[:, 3].clamp(min=0) / 50, reward)


def lift(
    position: Float[Tensor, "R 3"],
    *,
    height: float | Float[Tensor, "R"],
    lifted_height: float | Float[Tensor, "R"],
    near: Bool[Tensor, "R"],
    picked: Bool[Tensor, "R"],
    ground: float | Float[Tensor, "R"] = 0.0,
) -> Float[Tensor, "R"]:
    """The pay for lifting an object: its height above `ground`, while the hand is `near`; all of it once `picked`.

    `height`: of the object at the start; `lifted_height`: where it counts as lifted.
    """
    lifting = near & (position[:, 2] > height + 0.005)
    raised = torch.where(lifting, position[:, 2].clamp(max=lifted_height) - ground, 0.0)
    return 100 * torch.where(picked, lifted_height - ground, raised)


def lift_and_place(
    view: View,
    start: Start,
    action: Float[Tensor, "R 4"],
    position: Float[Tensor, "R 3"],
    lifted_by: float,
    *,
    ground: float | Float[Tensor, "R"] = 0.0,
) -> Float[Tensor, "R"]:
    """The reward of most tasks that lift an object: reach it, lift it by so much, bring it to the target.

    The start remembers the object's `height` and the `longest` placing distance; `ground` as `lift` has it.
    """
    tcp, height, lifted_height = view.tcp, start["height"], start["height"] + lifted_by
    reach, to_target = distance(position, tcp), distance(position, start.target)
    near = reach < 0.1
    picked = (position[:, 2] >= lifted_height - 0.01) & ~dropped(position, height, to_target, reach)
    return (
        approach(tcp, position, action, rest_height=start.tcp[:, 2], drop=2.0)
        + lift(position, height=height, lifted_height=lifted_height, near=near, picked=picked, ground=ground)
        + torch.where(picked & near, closing_in(start["longest"], to_target), 0.0)
    )


def dropped(
    position: Float[Tensor, "R 3"],
    height: Float[Tensor, "R"],
    target_distance: Float[Tensor, "R"],
    reach: Float[Tensor, "R"],
) -> Bool[Tensor, "R"]:
    """Back on the ground, away from the target and from the gripper."""
    return (position[:, 2] < height + 0.005) & (target_distance > 0.02) & (reach > 0.02)


def longest_way(
    object_start: Float[Tensor, "R 3"], target: Float[Tensor, "R 3"], lifted_height: Float[Tensor, "R"]
) -> Float[Tensor, "R"]:
    """The largest placing distance: from the object's position, lifted, to the target, and the lift itself."""
    return distance(at_height(object_start, lifted_height), target) + lifted_height
