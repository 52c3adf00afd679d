"""handle-press-v3: press the handle of a box down."""

import torch

from metarl.envs.metaworld.definition import (
    OBJECT,
    Actions,
    Outcome,
    Placement,
    Points,
    Quaternions,
    Start,
    TaskDefinition,
    Vectors,
)
from metarl.envs.metaworld.rewards import distance, hamacher, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View

RELEASED = -0.001  # metres on the handle's slide, which ends at 0
TARGET_RADIUS = 0.02
HANDLE_RADIUS = 0.02


class HandlePress(TaskDefinition):
    """The random vector places the box, its handle up; the target is the height of the handle pressed down."""

    name = "handle-press-v3"
    scene = "sawyer_handle_press.xml"
    fixture = "box"
    frames = ("site:handleStart", "site:goalPress")
    random_low, random_high = (-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)
    goal_low, goal_high = (-0.1, 0.55, 0.04), (0.1, 0.70, 0.08)

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def place(self, vector: Vectors, settled: View) -> Placement:
        rows = len(vector)
        return Placement({OBJECT: vector.new_full((rows, 1), RELEASED)}, {OBJECT: vector.new_zeros(rows, 1)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        return Start(target=placed.site("goalPress"), object=placed.site("handleStart"), tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        handle = view.site("handleStart")
        return [(handle, handle.new_zeros(len(handle), 4))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        handle = view.site("handleStart")
        to_target, reach = (handle[:, 2] - start.target[:, 2]).abs(), distance(handle, view.tcp)
        travel = (start.object[:, 2] - start.target[:, 2]).abs()
        pressed = tolerance(to_target, 0.0, TARGET_RADIUS, (travel - TARGET_RADIUS).abs())
        margin = (distance(start.object, start.tcp) - HANDLE_RADIUS).abs()
        reaching = tolerance(reach, 0.0, HANDLE_RADIUS, margin)
        success = to_target <= TARGET_RADIUS
        return Outcome(
            reward=torch.where(success, 10.0, 10 * hamacher(reaching, pressed)),
            success=success,
            near_object=reach <= 0.05,
            grasp_success=torch.ones_like(success),
            grasp_reward=reaching,
            in_place_reward=pressed,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        handle = view.site("handleStart")
        to_target = (handle[:, 2] - start.target[:, 2]).abs()
        reach = distance(handle, view.site("leftEndEffector"))
        travel = (start.object[:, 2] - start.target[:, 2]).abs()
        reward = reach_and_move(reach, travel, to_target)
        return Outcome.v1(reward, to_target, success=to_target <= TARGET_RADIUS, grasp_success=True)
