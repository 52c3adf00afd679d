"""button-press-wall-v3: press a button on the front of a box that stands behind a wall."""

import torch

from metarl.envs.metaworld.definition import Actions, Outcome, Start
from metarl.envs.metaworld.rewards import distance, hamacher, tolerance
from metarl.envs.metaworld.tasks.button_press import ButtonPress, button_of, press_v1
from metarl.envs.metaworld.views import View


class ButtonPressWall(ButtonPress):
    """As button-press-v3, with a wall that always stands in the same place, and a reward of its own."""

    name = "button-press-wall-v3"
    scene = "sawyer_button_press_wall.xml"
    random_low, random_high = (-0.05, 0.85, 0.1149), (0.05, 0.9, 0.1151)

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        button, gripper = button_of(view), view.gripper
        reach, to_target = distance(button, view.tcp), (start.target[:, 1] - button[:, 1]).abs()
        reaching = tolerance(reach, 0.0, 0.01, distance(button, start.tcp))
        pressing = tolerance(to_target, 0.0, 0.005, start["travel"][:, 1])
        # On the way the gripper has to be closed, at the button open.
        approach = 2 * hamacher((1 - gripper) / 2, reaching)
        return Outcome(
            reward=torch.where(reach > 0.07, approach, 2 + 2 * (1 + gripper) + 4 * pressing.square()),
            success=to_target <= 0.03,
            near_object=reach <= 0.05,
            grasp_success=gripper > 0,
            grasp_reward=reaching,
            in_place_reward=pressing,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        # The package measures the button's travel along z, where there is none.
        return press_v1(view, start, button_of(view), start["travel"][:, 2], within=0.03)
