"""hammer-v3: drive a nail into a block with a hammer."""

import torch

from metarl.envs.metaworld.definition import (
    OBJECT,
    Actions,
    Marks,
    Outcome,
    Placement,
    Points,
    Quaternions,
    Start,
    TaskDefinition,
    Vectors,
)
from metarl.envs.metaworld.rewards import alignment, along_handle, caging, distance, tolerance
from metarl.envs.metaworld.rewards_v1 import closing_in, dropped, lift
from metarl.envs.metaworld.views import View, constant

TARGET = (0.24, 0.74, 0.11)  # metres: where the block keeps the nail; the block never moves
NAIL = (0.24, 0.635, 0.11)  # metres: the nail's head at the start
DRIVEN_IN = 0.09  # metres of the nail's way
HANDLE = 0.07  # half the length of the handle
LIFT = 0.09


class Hammer(TaskDefinition):
    """The random vector is the hammer's position; the target is fixed, and success is the nail's alone."""

    name = "hammer-v3"
    scene = "sawyer_hammer.xml"
    frames = ("body:hammer", "body_quat:hammer", "body:nail_link", "body_quat:nail_link", "geom:HammerHead")
    random_low, random_high = (-0.1, 0.4, 0.0), (0.1, 0.5, 0.0)
    goal_low, goal_high = (0.2399, 0.7399, 0.109), (0.2401, 0.7401, 0.111)
    hand_start = (0.0, 0.4, 0.2)

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: vector}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        return Start(target=vector.new_tensor(TARGET).expand_as(vector), object=vector, tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body(name), view.body_quat(name)) for name in ("hammer", "nail_link")]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        hammer, success = view.body("hammer"), _driven_in(view)
        head = hammer + constant(hammer, 0.16, 0.06, 0.0)
        near = 0.9 * tolerance(distance(head, start.target), 0.0, 0.02, 0.2)
        in_place = torch.where(head[:, 2] > 0.02, near + 0.1, near)
        flat = alignment(view.body_quat("hammer"), (1.0, 0.0, 0.0, 0.0), 0.4)
        grasp = caging(
            view,
            start,
            action,
            along_handle(hammer, view.hand, HANDLE),
            object_radius=0.015,
            pad_radius=0.02,
            xz_radius=0.01,
            density="high",
        )
        reward = (2 * grasp + 6 * in_place) * flat
        return Outcome(
            reward=torch.where(success & (reward > 5), 10.0, reward),
            success=success,
            near_object=flat,
            grasp_success=grasp >= 0.5,
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=torch.zeros_like(grasp),
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        hammer, nail = view.body("hammer"), constant(start.target, *NAIL)
        height, lifted_height = start.object[:, 2], start.object[:, 2] + LIFT
        # The package marks the nail's head with a site of the block, so that its way stays the whole.
        reach, strike = distance(hammer, view.tcp), distance(view.geom("HammerHead") - nail)
        to_drive = TARGET[1] - NAIL[1]
        near = reach < 0.1
        picked = (hammer[:, 2] >= lifted_height - 0.01) & ~dropped(hammer, height, strike, reach)
        longest = 2 * lifted_height - height + (start.object[:, 1] - start.target[:, 1]).abs()
        reward = (
            torch.where(reach < 0.05, action[:, 3].clamp(min=0) / 50, 0.0)
            - reach
            + lift(hammer, height=height, lifted_height=lifted_height, near=near, picked=picked)
            + torch.where(picked & near, closing_in(longest, strike + to_drive), 0.0)
        )
        return Outcome.v1(reward, torch.zeros_like(reward), success=_driven_in(view), near_object=False)


def _driven_in(view: View) -> Marks:
    return view.joint("NailSlideJoint") > DRIVEN_IN
