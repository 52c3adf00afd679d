"""hand-insert-v3: bring a block into a hole in the table."""

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
from metarl.envs.metaworld.rewards import caging, distance, hamacher, held, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View

TARGET_RADIUS = 0.05


class HandInsert(TaskDefinition):
    """The random vector is the block's position and the target in the hole. Reward v1 asks only for the hand there."""

    name = "hand-insert-v3"
    scene = "sawyer_table_with_hole.xml"
    frames = ("body:obj", "body_quat:obj", "touch:objGeom")
    random_low, random_high = (-0.1, 0.6, 0.05, -0.04, 0.8, -0.0201), (0.1, 0.7, 0.05, 0.04, 0.88, -0.0199)
    goal_low, goal_high = (-0.04, 0.8, -0.0201), (0.04, 0.88, -0.0199)
    hand_low = (-0.5, 0.40, -0.15)
    hand_start = (0.0, 0.6000000238418579, 0.20000000298023224)  # 0.6 and 0.2 in single precision

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: vector[:, :3]}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        return Start(target=vector[:, 3:], object=vector[:, :3], tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("obj"), view.body_quat("obj"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        block = view.body("obj")
        to_target, reach = distance(block, start.target), distance(block, view.tcp)
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, distance(start.object, start.target))
        grasp = caging(
            view,
            start,
            action,
            block,
            object_radius=0.015,
            pad_radius=0.05,
            xz_radius=0.005,
            density="high",
        )
        taken = (reach < 0.02) & (view.gripper > 0)
        reward = hamacher(grasp, in_place) + taken * (1 + 7 * in_place)
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, reward),
            success=to_target <= TARGET_RADIUS,
            near_object=reach <= 0.03,
            grasp_success=held(view, start, block),
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        miss, target = view.tcp - start.target, start.target
        beside, above = distance(miss[:, :2]), miss[:, 2].abs()
        highest = (self.hand_start[2] - target[:, 2]).abs()
        reward = reach_and_move(beside, highest, above)
        # The package compares the distance at the start, so this reward knows no success.
        to_target = distance(start.object, target)
        return Outcome.v1(reward, to_target, success=to_target <= TARGET_RADIUS)
