"""plate-slide-side-v3: slide a puck to the left, towards a hockey goal."""

from typing import ClassVar

import torch

from metarl.envs.metaworld.definition import Actions, Outcome, Start
from metarl.envs.metaworld.rewards import distance, tolerance
from metarl.envs.metaworld.tasks.plate_slide import RADIUS, SUCCESS_RADIUS, PlateSlide
from metarl.envs.metaworld.views import View


class PlateSlideSide(PlateSlide):
    """As plate-slide-v3 to the left, and paid for sliding only while the fingers are down at the puck.

    The goal does not stand at the target: the package moves it in MuJoCo's results, which the next frame overwrites.
    """

    name = "plate-slide-side-v3"
    scene = "sawyer_plate_slide_sideway.xml"
    fixture: ClassVar[str | None] = None
    random_low, random_high = (0.0, 0.6, 0.0, -0.3, 0.54, 0.0), (0.0, 0.6, 0.0, -0.25, 0.66, 0.0)
    goal_low, goal_high = (-0.3, 0.54, 0.0), (-0.25, 0.66, 0.0)

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        puck, tcp = view.geom("puck"), view.tcp
        to_target, reach = distance(puck, start.target), distance(puck, tcp)
        in_place = tolerance(to_target, 0.0, RADIUS, distance(start.object, start.target) - RADIUS)
        reaching = tolerance(reach, 0.0, RADIUS, distance(start.object, start.tcp) - RADIUS)
        at_puck = (tcp[:, 2] <= 0.03) & (reach < 0.07)
        reward = torch.where(at_puck, 2 + 7 * in_place, 1.5 * reaching)
        return Outcome(
            reward=torch.where(to_target < RADIUS, 10.0, reward),
            success=to_target <= SUCCESS_RADIUS,
            near_object=reach <= 0.03,
            grasp_success=torch.zeros_like(at_puck),
            grasp_reward=reaching,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )
