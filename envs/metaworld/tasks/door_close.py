"""door-close-v3: push a door shut."""

import dataclasses

import torch

from metarl.envs.metaworld.definition import Actions, Outcome, Start
from metarl.envs.metaworld.rewards import distance, tolerance
from metarl.envs.metaworld.tasks.door_open import SUCCESS, DoorOpen, moved_v1
from metarl.envs.metaworld.views import View, constant

TARGET_RADIUS = 0.05  # metres


class DoorClose(DoorOpen):
    """The random vector places the door, open at a right angle; the target is the handle's position when it is shut."""

    name = "door-close-v3"
    goal_low, goal_high = (0.2, 0.65, 0.1499), (0.3, 0.75, 0.1501)
    hand_start = (-0.5, 0.6, 0.2)
    angle = -1.5708
    target = (0.2, -0.2, 0.0)

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        handle = view.geom("handle")
        to_target, hand_to_target = distance(handle, start.target), distance(view.tcp, start.target)
        margin = distance(start.object, start.target)
        shut = tolerance(to_target, 0.0, TARGET_RADIUS, margin, "gaussian")
        margin = distance(handle - constant(handle, *self.hand_start)) + 0.1
        hand_in_place = tolerance(hand_to_target, 0.0, TARGET_RADIUS / 4, margin, "gaussian")
        success = to_target <= SUCCESS
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, 3 * hand_in_place + 6 * shut),
            success=success,
            near_object=torch.zeros_like(success),
            grasp_success=torch.ones_like(success),
            grasp_reward=torch.ones_like(shut),
            in_place_reward=hand_in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        reward, to_target = moved_v1(view, start)
        outcome = Outcome.v1(reward, to_target, success=to_target <= SUCCESS, near_object=False, grasp_success=True)
        return dataclasses.replace(outcome, grasp_reward=torch.ones_like(reward))
