"""reach-v3: bring the gripper to a goal in the air."""

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
from metarl.envs.metaworld.rewards import distance, tolerance
from metarl.envs.metaworld.rewards_v1 import closing_in
from metarl.envs.metaworld.views import View, constant, scalar_last

TARGET_RADIUS = 0.05  # metres


class Reach(TaskDefinition):
    """The random vector is the position of a puck that only lies about, and the goal."""

    name = "reach-v3"
    scene = "sawyer_reach_v3.xml"
    frames = ("body:obj", "geom_quat:objGeom")
    random_low, random_high = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3)
    goal_low, goal_high = (-0.1, 0.8, 0.05), (0.1, 0.9, 0.3)

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: vector[:, :3]}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        return Start(target=vector[:, 3:], object=vector[:, :3], tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("obj"), scalar_last(view.geom_quat("objGeom")))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        to_target = distance(view.tcp, start.target)
        margin = distance(constant(start.target, *self.hand_start) - start.target)
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, margin)
        return self.outcome(10 * in_place, in_place, to_target)

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        to_target = distance(view.tcp, start.target)
        reward = closing_in(distance(start.tcp, start.target), to_target)
        return self.outcome(reward, torch.zeros_like(reward), to_target)

    def outcome(self, reward: Scalars, in_place: Scalars, to_target: Scalars) -> Outcome:
        """Nothing is grasped here: the package fills those numbers of `info` with the distance, and with a one."""
        success = to_target <= TARGET_RADIUS
        return Outcome(
            reward,
            success=success,
            near_object=to_target,
            grasp_success=torch.ones_like(success),
            grasp_reward=to_target,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )
