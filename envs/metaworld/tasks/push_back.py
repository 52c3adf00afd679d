"""push-back-v3: push a block over the table towards the robot, to a goal."""

import torch

from metarl.envs.metaworld.definition import Actions, Outcome, Start
from metarl.envs.metaworld.rewards import distance, hamacher, held, pinching, tolerance
from metarl.envs.metaworld.tasks.push import TARGET_RADIUS, Push
from metarl.envs.metaworld.views import View

BLOCK_RADIUS = 0.007
PAD_RADIUS = 0.05
GRIP_RADIUS = BLOCK_RADIUS + 0.003  # how near a pad must come to grip
XZ_RADIUS = 0.01


class PushBack(Push):
    """As push-v3 (the block's position and the goal), the other way."""

    name = "push-back-v3"
    scene = "sawyer_push_back_v3.xml"
    random_low, random_high = (-0.1, 0.8, 0.02, -0.1, 0.6, 0.0199), (0.1, 0.85, 0.02, 0.1, 0.7, 0.0201)
    goal_low, goal_high = (-0.1, 0.6, 0.0199), (0.1, 0.7, 0.0201)
    hand_start = (0.0, 0.6000000238418579, 0.20000000298023224)  # 0.6 and 0.2 in single precision
    success_radius = 0.07

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        block = view.body("obj")
        to_target, reach = distance(block, start.target), distance(block, view.tcp)
        way = distance(start.object, start.target)
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, way)
        grasp = pinching(
            view,
            start,
            block,
            object_radius=BLOCK_RADIUS,
            grip_radius=GRIP_RADIUS,
            pad_radius=PAD_RADIUS,
            xz_radius=XZ_RADIUS,
        )
        pushing = (reach < 0.01) & (view.gripper > 0) & (view.gripper < 0.55) & (way - to_target > 0.01)
        reward = hamacher(grasp, in_place) + pushing * (1 + 5 * in_place)
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, reward),
            success=to_target <= self.success_radius,
            near_object=reach <= 0.03,
            grasp_success=held(view, start, block),
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )
