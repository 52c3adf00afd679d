"""push-v3: push a puck over the table to a goal."""

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
    Scalars,
    Start,
    TaskDefinition,
    Vectors,
)
from metarl.envs.metaworld.rewards import caging, distance, held, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View, at_height, scalar_last

TARGET_RADIUS = 0.05
PUCK_RADIUS = 0.015
PAD_RADIUS = 0.05
XZ_RADIUS = 0.005
REACH_RADIUS = 0.01


class Push(TaskDefinition):
    """The random vector is the puck's position and the goal; both get the height at which the puck came to rest."""

    name = "push-v3"
    scene = "sawyer_push_v3.xml"
    frames = ("body:obj", "geom_quat:objGeom", "touch:objGeom")
    random_low, random_high = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.01), (0.1, 0.7, 0.02, 0.1, 0.9, 0.02)
    goal_low, goal_high = (-0.1, 0.8, 0.01), (0.1, 0.9, 0.02)
    success_radius: ClassVar[float] = 0.05

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: at_rest(vector[:, :2], settled)}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        return Start(target=at_rest(vector[:, 3:5], settled), object=at_rest(vector[:, :2], settled), tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("obj"), scalar_last(view.geom_quat("objGeom")))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        puck = view.body("obj")
        to_target, reach = distance(puck, start.target), distance(puck, view.tcp)
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
        reward = self.reward(puck, start, grasp, pushing, in_place)
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, reward),
            success=to_target <= self.success_radius,
            near_object=reach <= 0.03,
            grasp_success=held(view, start, puck),
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def reward(self, puck: Points, start: Start, grasp: Scalars, pushing: Marks, in_place: Scalars) -> Scalars:
        """Reward v2 of a puck that is not at the target yet."""
        return torch.where(pushing, 4 * grasp + 1 + 5 * in_place, 2 * grasp)

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        puck = view.body("obj")
        reach, to_target = distance(puck, view.tcp), distance(puck[:, :2], start.target[:, :2])
        longest = distance(start.object[:, :2], start.target[:, :2])
        reward = reach_and_move(reach, longest, to_target)
        return Outcome.v1(reward, to_target, success=to_target <= self.success_radius)


def at_rest(xy: Vectors, settled: View) -> Points:
    """A place on the table at the height where the puck lies once the scene has settled."""
    return at_height(xy, settled.body("obj")[:, 2])
