"""bin-picking-v3: move a block from one bin into another."""

from collections.abc import Mapping

import torch
from torch import Tensor

from metarl.envs.metaworld.definition import (
    OBJECT,
    Actions,
    Marks,
    Outcome,
    Placement,
    Points,
    Quaternions,
    Scalars,
    Start,
    TaskDefinition,
    Vectors,
)
from metarl.envs.metaworld.rewards import caging, distance, funnel, hamacher, staying_above, tolerance
from metarl.envs.metaworld.rewards_v1 import approach, closing_in, dropped, lift
from metarl.envs.metaworld.views import View, at_height

TARGET = (0.12, 0.7, 0.0)  # metres: the second bin
TARGET_RADIUS = 0.05
LIFT = 0.1


class BinPicking(TaskDefinition):
    """The random vector is the block's position in the first bin (x and y) and four numbers that nothing uses.

    The reward remembers how far the block was from the target after the first step of the episode.
    """

    name = "bin-picking-v3"
    scene = "sawyer_bin_picking.xml"
    frames = ("body:obj", "body_quat:obj")
    random_low, random_high = (-0.21, 0.65, 0.02, 0.1199, 0.699, -0.001), (-0.03, 0.75, 0.02, 0.1201, 0.701, 0.001)
    goal_low, goal_high = (0.1199, 0.699, -0.001), (0.1201, 0.701, 0.001)
    hand_low = (-0.5, 0.40, 0.07)

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: _at_rest(vector, settled)}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        block = _at_rest(vector, settled)
        target = vector.new_tensor(TARGET).expand_as(block)
        longest = distance(block[:, :2], target[:, :2]) + block[:, 2] + LIFT
        extra = {"longest": longest, "way": torch.zeros_like(longest)}
        return Start(target=target, object=block, tcp=settled.tcp, extra=extra)

    def remember(self, view: View, start: Start, first: Marks) -> Mapping[str, Tensor]:
        return {"way": torch.where(first, distance(view.body("obj"), start.target), start["way"])}

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("obj"), view.body_quat("obj"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        hand, block = view.hand, view.body("obj")
        to_target = distance(block, start.target)
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, start["way"])
        grasp = caging(
            view,
            start,
            action,
            block,
            object_radius=0.015,
            pad_radius=0.05,
            xz_radius=0.01,
            wanted_effort=0.7,
            density="high",
        )
        near = distance(block, hand) < 0.04
        # Held, but not pinched with nothing between the fingers.
        held = near & (block[:, 2] - 0.02 > start.object[:, 2]) & (view.gripper >= 0.43)
        reward = hamacher(grasp, in_place) + held * (1 + 5 * hamacher(_above_rims(hand, start), in_place))
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, reward),
            success=to_target <= TARGET_RADIUS,
            near_object=near,
            grasp_success=held,
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        block, tcp = view.body("obj"), view.tcp
        height, lifted_height = start.object[:, 2], start.object[:, 2] + LIFT
        reach, to_target = distance(block, tcp), distance(block[:, :2], start.target[:, :2])
        picked = (block[:, 2] >= lifted_height - 0.01) & ~dropped(block, height, to_target, reach)
        over_bin = ((block - start.target)[:, :2].abs() < 0.05).all(-1)
        placed = over_bin & (block[:, 2] < height + 0.05)
        release = closing_in(start["longest"], to_target) - over_bin * 200 * action[:, 3]
        reward = (
            approach(tcp, block, action, rest_height=start.tcp[:, 2], drop=1.0, above=0.06)
            + lift(block, height=height, lifted_height=lifted_height, near=reach < 0.1, picked=picked)
            + torch.where(picked & (reach < 0.1), release, 0.0)
        )
        return Outcome.v1(
            torch.where(placed, release, reward), to_target, success=to_target <= TARGET_RADIUS, near_object=False
        )


def _at_rest(vector: Vectors, settled: View) -> Points:
    """The block's position at the height where it lies once the scene has settled."""
    return at_height(vector, settled.body("obj")[:, 2])


def _above_rims(hand: Points, start: Start) -> Scalars:
    """1 where the hand is above one of two funnels, over the block's position and over the target; less below them."""
    floors = [funnel(distance(hand[:, :2], place[:, :2]), 0.03, 0.02, 0.2) for place in (start.object, start.target)]
    return staying_above(torch.minimum(*floors), hand[:, 2], 0.05)
