"""push-wall-v3: push a puck round a wall to a goal behind it."""

import torch

from metarl.envs.metaworld.definition import Actions, Outcome, Start
from metarl.envs.metaworld.rewards import caging, distance, held, tolerance
from metarl.envs.metaworld.tasks.push import PAD_RADIUS, PUCK_RADIUS, TARGET_RADIUS, XZ_RADIUS, Push
from metarl.envs.metaworld.views import View, at_height, constant

MIDPOINT = (-0.05, 0.77)  # x, y in metres: beside the wall, by which the puck shall go
PAST_WALL = 0.75  # metres in y


class PushWall(Push):
    """As push-v3 (puck and goal), with a wall that always stands in the same place."""

    name = "push-wall-v3"
    scene = "sawyer_push_wall_v3.xml"
    random_low, random_high = (-0.05, 0.6, 0.015, -0.05, 0.85, 0.01), (0.05, 0.65, 0.015, 0.05, 0.9, 0.02)
    goal_low, goal_high = (-0.05, 0.85, 0.01), (0.05, 0.9, 0.02)
    success_radius = 0.07

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        puck = view.body("obj")
        to_target, reach = distance(puck, start.target), distance(puck, view.tcp)
        # The midpoint is as high as the puck is now, even where the start's distance to it is asked; x counts more.
        weights = constant(puck, 3.0, 1.0, 1.0)
        midpoint = at_height(constant(puck, *MIDPOINT).expand(len(puck), 2), puck[:, 2])
        margin = distance((start.object - midpoint) * weights)
        halfway = tolerance(distance((puck - midpoint) * weights), 0.0, TARGET_RADIUS, margin)
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, distance(start.object, start.target))
        grasp = caging(
            view,
            start,
            action,
            puck,
            object_radius=PUCK_RADIUS,
            pad_radius=PAD_RADIUS,
            xz_radius=XZ_RADIUS,
            density="high",
        )
        pushing = (reach < 0.02) & (view.gripper > 0)
        pushed = torch.where(puck[:, 1] > PAST_WALL, 5 + 3 * in_place, 1 + 4 * halfway)
        reward = 2 * grasp + torch.where(pushing, pushed, 0.0)
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, reward),
            success=to_target <= self.success_radius,
            near_object=reach <= 0.03,
            grasp_success=held(view, start, puck),
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )
