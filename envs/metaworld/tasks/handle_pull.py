"""handle-pull-v3: pull the handle of a box up."""

from typing import ClassVar

import torch

from metarl.envs.metaworld.definition import (
    OBJECT,
    Actions,
    Outcome,
    Placement,
    Points,
    Quaternions,
    Scalars,
    Start,
    TaskDefinition,
    Vectors,
)
from metarl.envs.metaworld.rewards import caging, distance, hamacher, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View

PRESSED = -0.1  # metres on the handle's slide, whose upper end is 0
TARGET_RADIUS = 0.05
GRIP_RADIUS = 0.01
TRAVEL_ORIGIN = 0.022  # metres: height of the site handleStart in its own body, not in the world


class HandlePull(TaskDefinition):
    """The random vector places the box, its handle down; the target is the height of the handle pulled up."""

    name = "handle-pull-v3"
    scene = "sawyer_handle_press.xml"
    fixture = "box"
    frames: ClassVar[tuple[str, ...]] = ("site:handleRight", "site:goalPull")
    random_low, random_high = (-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)
    goal_low, goal_high = (-0.1, 0.55, 0.04), (0.1, 0.70, 0.18)

    handle: ClassVar[str] = "handleRight"
    """The site that is observed as the handle."""
    handle_radius: ClassVar[float] = 0.022
    pad_radius: ClassVar[float] = 0.05
    success_radius: ClassVar[float] = TARGET_RADIUS
    lifted_axis: ClassVar[int] = 1
    """What tells that the handle was lifted. The package takes y for the height here, so it always is."""

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def place(self, vector: Vectors, settled: View) -> Placement:
        rows = len(vector)
        return Placement({OBJECT: vector.new_full((rows, 1), PRESSED)}, {OBJECT: vector.new_zeros(rows, 1)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target = placed.site("goalPull")
        travel = (TRAVEL_ORIGIN - target[:, 2]).abs()
        return Start(target=target, object=vector, tcp=settled.tcp, extra={"travel": travel})

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        handle = view.site(self.handle)
        return [(handle, handle.new_zeros(len(handle), 4))]

    def error(self, offset: Points) -> Scalars:
        """How far the handle is from the target: here in height alone."""
        return offset[:, 2].abs()

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        handle, held = view.site(self.handle), view.gripper > 0
        to_target, reach = self.error(handle - start.target), distance(handle, view.tcp)
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, self.error(start.object - start.target))
        grasp = caging(
            view,
            start,
            action,
            handle,
            object_radius=self.handle_radius,
            pad_radius=self.pad_radius,
            xz_radius=GRIP_RADIUS,
            density="high",
        )
        lifted = (reach < 0.035) & held & (handle[:, self.lifted_axis] - 0.01 > start.object[:, 2])
        reward = hamacher(grasp, in_place) + lifted * (1 + 5 * in_place)
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, reward),
            success=to_target <= self.success_radius,
            near_object=reach <= 0.05,
            grasp_success=held & (handle[:, 2] - 0.03 > start.object[:, 2]),
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        handle = view.site(self.handle)
        to_target = (handle[:, 2] - start.target[:, 2]).abs()
        reach = distance(handle, view.site("leftEndEffector"))
        reward = reach_and_move(reach, start["travel"], to_target)
        return Outcome.v1(reward, to_target, success=to_target <= self.success_radius)
