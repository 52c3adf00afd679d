"""push-wall-v3: push a puck round a wall to a goal behind it."""

import torch

from metarl.envs.metaworld.definition import Marks, Points, Scalars, Start
from metarl.envs.metaworld.rewards import distance, tolerance
from metarl.envs.metaworld.tasks.push import TARGET_RADIUS, Push
from metarl.envs.metaworld.views import at_height, constant

MIDPOINT = (-0.05, 0.77)  # x, y in metres: beside the wall, by which the puck has to go
PAST_WALL = 0.75  # metres in y


class PushWall(Push):
    """As push-v3 (puck and goal), with a wall that always stands in the same place."""

    name = "push-wall-v3"
    scene = "sawyer_push_wall_v3.xml"
    random_low, random_high = (-0.05, 0.6, 0.015, -0.05, 0.85, 0.01), (0.05, 0.65, 0.015, 0.05, 0.9, 0.02)
    goal_low, goal_high = (-0.05, 0.85, 0.01), (0.05, 0.9, 0.02)
    success_radius = 0.07

    def reward(self, puck: Points, start: Start, grasp: Scalars, pushing: Marks, in_place: Scalars) -> Scalars:
        # The midpoint is as high as the puck is now, even for the distance at the start; x counts more.
        weights = constant(puck, 3.0, 1.0, 1.0)
        midpoint = at_height(constant(puck, *MIDPOINT).expand(len(puck), 2), puck[:, 2])
        margin = distance((start.object - midpoint) * weights)
        halfway = tolerance(distance((puck - midpoint) * weights), 0.0, TARGET_RADIUS, margin)
        pushed = torch.where(puck[:, 1] > PAST_WALL, 5 + 3 * in_place, 1 + 4 * halfway)
        return 2 * grasp + torch.where(pushing, pushed, 0.0)
