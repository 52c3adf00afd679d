"""sweep-v3: sweep a block off the table."""

from typing import ClassVar

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
from metarl.envs.metaworld.rewards import distance, hamacher, pinching, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View

TARGET_RADIUS = 0.05
BLOCK_RADIUS = 0.02
PAD_RADIUS = 0.05


class Sweep(TaskDefinition):
    """The random vector is the block's position; the target lies beside the table at the same y."""

    name = "sweep-v3"
    scene = "sawyer_sweep_v3.xml"
    frames = ("body:obj", "body_quat:obj", "touch:objGeom")
    random_low: ClassVar[tuple[float, ...]] = (-0.1, 0.6, 0.02)
    random_high: ClassVar[tuple[float, ...]] = (0.1, 0.7, 0.02)
    goal_low, goal_high = (0.49, 0.6, 0.0), (0.51, 0.7, 0.02)
    grip_radius: ClassVar[float] = BLOCK_RADIUS + 0.01
    """How near a pad must come to grip (m)."""
    xz_radius: ClassVar[float] = 0.005

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: vector}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target = vector * vector.new_tensor([0.0, 1.0, 0.0]) + vector.new_tensor([0.5, 0.0, 0.01])
        return Start(target=target, object=vector, tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("obj"), view.body_quat("obj"))]

    def aim(self, block: Points, start: Start) -> Points:
        """Where the block has to be now."""
        return start.target

    def fallen(self, block: Points, start: Start) -> Marks:
        """Whether the block is off the table, which ends reward v1's interest in it."""
        return block[:, 2] < start.object[:, 2] - 0.05

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        block = view.body("obj")
        aim = self.aim(block, start)
        to_target, reach = distance(block, aim), distance(block, view.tcp)
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, distance(start.object, aim))
        grasp = pinching(
            view,
            start,
            block,
            object_radius=BLOCK_RADIUS,
            grip_radius=self.grip_radius,
            pad_radius=PAD_RADIUS,
            xz_radius=self.xz_radius,
        )
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, 2 * grasp + 6 * hamacher(grasp, in_place)),
            success=to_target <= TARGET_RADIUS,
            near_object=reach <= 0.03,
            grasp_success=view.touching("objGeom") & (view.gripper > 0),
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        block, fallen = view.body("obj"), self.fallen(view.body("obj"), start)
        reach = distance(block, view.tcp)
        to_target = torch.where(fallen, 0.0, distance(block[:, :2], start.target[:, :2]))
        longest = distance(start.object[:, :2], start.target[:, :2])
        reward = reach_and_move(reach, longest, to_target) + torch.where(fallen, reach, 0.0)
        return Outcome.v1(reward, to_target, success=to_target <= TARGET_RADIUS)
