"""shelf-place-v3: put a block on a shelf."""

import torch

from metarl.envs.metaworld.definition import (
    OBJECT,
    Actions,
    Outcome,
    Placement,
    Points,
    Quaternions,
    Scalars,
    Start,
    TaskDefinition,
    Vectors,
)
from metarl.envs.metaworld.rewards import caging, distance, hamacher, held, tolerance
from metarl.envs.metaworld.rewards_v1 import lift_and_place, longest_way
from metarl.envs.metaworld.views import View, at_height, scalar_last

SUCCESS_RADIUS = 0.07
TARGET_RADIUS = 0.05
BOARD = 0.3  # metres from the shelf's foot up to the goal on its board
BELOW = 0.24  # metres: lower than this is below the board
BEFORE = 0.15  # metres from the goal to where the shelf begins, to the sides and to the front
LIFT = 0.04


class ShelfPlace(TaskDefinition):
    """The random vector is the block's position (its height is where it came to rest) and the goal on the shelf."""

    name = "shelf-place-v3"
    scene = "sawyer_shelf_placing.xml"
    fixture = "shelf"
    frames = ("body:obj", "geom:objGeom", "geom_quat:objGeom", "touch:objGeom")
    random_low, random_high = (-0.1, 0.5, 0.019, -0.1, 0.8, 0.299), (0.1, 0.6, 0.021, 0.1, 0.9, 0.301)
    goal_low, goal_high = (-0.1, 0.8, 0.299), (0.1, 0.9, 0.301)
    hand_start = (0.0, 0.6000000238418579, 0.20000000298023224)  # 0.6 and 0.2 in single precision

    def fixture_position(self, vector: Vectors) -> Points:
        return vector[:, 3:] - vector.new_tensor([0.0, 0.0, BOARD])

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: _at_rest(vector, settled)}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        block, target, height = _at_rest(vector, settled), vector[:, 3:], placed.geom("objGeom")[:, 2]
        longest = longest_way(block, target, height + LIFT)
        return Start(target=target, object=block, tcp=settled.tcp, extra={"height": height, "longest": longest})

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("obj"), scalar_last(view.geom_quat("objGeom")))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        block = view.body("obj")
        to_target, reach = distance(block, start.target), distance(block, view.tcp)
        near = tolerance(to_target, 0.0, TARGET_RADIUS, distance(start.object, start.target))
        in_place = _unless_below(near, block, start.target)
        grasp = caging(
            view,
            start,
            action,
            block,
            object_radius=0.02,
            pad_radius=0.05,
            xz_radius=0.01,
        )
        lifted = (reach < 0.025) & (view.gripper > 0) & (block[:, 2] - 0.01 > start.object[:, 2])
        reward = hamacher(grasp, near) + lifted * (1 + 5 * in_place)
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, reward),
            success=to_target <= SUCCESS_RADIUS,
            near_object=reach <= 0.03,
            grasp_success=held(view, start, block),
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        block = view.body("obj")
        reward = lift_and_place(view, start, action, block, LIFT)
        to_target = distance(block, start.target)
        return Outcome.v1(reward, to_target, success=to_target <= SUCCESS_RADIUS)


def _at_rest(vector: Vectors, settled: View) -> Points:
    return at_height(vector, settled.body("obj")[:, 2])


def _unless_below(in_place: Scalars, block: Points, target: Points) -> Scalars:
    """Takes the pay for being near the goal away from a block that is below the board.

    Before the goal it goes the more, the lower and the nearer to the goal's y the block is; behind it, altogether.
    """
    x, y = (block[:, :2] - target[:, :2]).unbind(1)
    height = block[:, 2]
    below = (height > 0) & (height < BELOW) & (x.abs() < BEFORE)
    inside = hamacher((y / BEFORE + 1).clamp(0, 1), (1 - height / BELOW).clamp(0, 1))
    lessened = (in_place - inside).clamp(0, 1)
    return torch.where(below & (y > 0), 0.0, torch.where(below & (y > -BEFORE) & (y < 0), lessened, in_place))
