"""pick-place-wall-v3: lift a puck over a wall and hold it at a goal behind it."""

import torch

from metarl.envs.metaworld.definition import Actions, Outcome, Start
from metarl.envs.metaworld.rewards import caging, distance, hamacher, held, tolerance
from metarl.envs.metaworld.tasks.pick_place import PAD_RADIUS, PUCK_RADIUS, TARGET_RADIUS, XZ_RADIUS, PickPlace
from metarl.envs.metaworld.views import View, constant

REACH_RADIUS = 0.01
MIDPOINT = (0.77, 0.25)  # y, z in metres: above the wall, over which the puck has to go, at the goal's x
PAST_WALL = 0.75  # metres in y


class PickPlaceWall(PickPlace):
    """As pick-place-v3 (puck and goal), with a wall that always stands in the same place."""

    name = "pick-place-wall-v3"
    scene = "sawyer_pick_place_wall_v3.xml"
    random_low, random_high = (-0.05, 0.6, 0.015, -0.05, 0.85, 0.05), (0.05, 0.65, 0.015, 0.05, 0.9, 0.3)
    goal_low, goal_high = (-0.05, 0.85, 0.05), (0.05, 0.9, 0.3)

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        puck = view.body("obj")
        to_target, reach = distance(puck, start.target), distance(puck, view.tcp)
        weights = constant(puck, 1.0, 1.0, 3.0)  # errors in height count more
        midpoint = torch.cat([start.target[:, :1], constant(puck, *MIDPOINT).expand(len(puck), 2)], 1)
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
        )
        lifted = (reach < 0.02) & (view.gripper > 0) & (puck[:, 2] - 0.015 > start.object[:, 2])
        carried = torch.where(puck[:, 1] > PAST_WALL, 5 + 3 * in_place, 1 + 4 * halfway)
        reward = hamacher(grasp, halfway) + torch.where(lifted, carried, 0.0)
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, reward),
            success=to_target <= 0.07,
            near_object=reach <= 0.03,
            grasp_success=held(view, start, puck),
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )
