"""pick-place-v3: pick a puck up and hold it at a goal in the air."""

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
from metarl.envs.metaworld.rewards import distance, effort, hamacher, held, signed_caging, tolerance
from metarl.envs.metaworld.rewards_v1 import lift_and_place, longest_way
from metarl.envs.metaworld.views import View, scalar_last

TARGET_RADIUS = 0.05
PUCK_RADIUS = 0.015
PAD_RADIUS = 0.05
XZ_RADIUS = 0.005
LIFT = 0.04


class PickPlace(TaskDefinition):
    """The random vector is the puck's position and the goal."""

    name = "pick-place-v3"
    scene = "sawyer_pick_place_v3.xml"
    frames = ("body:obj", "geom:objGeom", "geom_quat:objGeom", "touch:objGeom")
    random_low, random_high = (-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3)
    goal_low, goal_high = (-0.1, 0.8, 0.05), (0.1, 0.9, 0.3)

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: vector[:, :3]}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        puck, target = vector[:, :3], vector[:, 3:]
        height = placed.geom("objGeom")[:, 2]
        longest = longest_way(puck, target, height + LIFT)
        return Start(target=target, object=puck, tcp=settled.tcp, extra={"height": height, "longest": longest})

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("obj"), scalar_last(view.geom_quat("objGeom")))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        puck = view.body("obj")
        to_target, reach = distance(puck, start.target), distance(puck, view.tcp)
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, distance(start.object, start.target))
        grasp = _grasp(view, start, action, puck)
        lifted = (reach < 0.02) & (view.gripper > 0) & (puck[:, 2] - 0.01 > start.object[:, 2])
        reward = hamacher(grasp, in_place) + lifted * (1 + 5 * in_place)
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, reward),
            success=to_target <= 0.07,
            near_object=reach <= 0.03,
            grasp_success=held(view, start, puck),
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        puck = view.body("obj")
        reward = lift_and_place(view, start, action, puck, LIFT)
        to_target = distance(puck, start.target)
        return Outcome.v1(reward, to_target, success=to_target <= 0.07)


def _grasp(view: View, start: Start, action: Actions, puck: Points) -> Scalars:
    caged = signed_caging(view, start, puck, object_radius=PUCK_RADIUS, pad_radius=PAD_RADIUS, xz_radius=XZ_RADIUS)
    gripped = hamacher(caged, torch.where(caged > 0.97, effort(action), 0.0))
    return (gripped + caged) / 2
