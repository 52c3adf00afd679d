"""pick-out-of-hole-v3: lift a puck out of a hole in the table and hold it at a goal in the air."""

import torch

from metarl.envs.metaworld.definition import (
    OBJECT,
    Actions,
    Outcome,
    Placement,
    Points,
    Quaternions,
    Start,
    TaskDefinition,
    Vectors,
)
from metarl.envs.metaworld.rewards import caging, distance, funnel, hamacher, staying_above, tolerance
from metarl.envs.metaworld.rewards_v1 import lift_and_place, longest_way
from metarl.envs.metaworld.views import View

SUCCESS_RADIUS = 0.07
TARGET_RADIUS = 0.05
LIFT = 0.11
HOLE_RADIUS = 0.03


class PickOutOfHole(TaskDefinition):
    """The random vector is the puck's position, always the hole's middle, and the goal."""

    name = "pick-out-of-hole-v3"
    scene = "sawyer_pick_out_of_hole.xml"
    frames = ("body:obj", "body_quat:obj", "geom:objGeom")
    random_low, random_high = (0.0, 0.75, 0.02, -0.1, 0.5, 0.15), (0.0, 0.75, 0.02, 0.1, 0.6, 0.3)
    goal_low, goal_high = (-0.1, 0.5, 0.15), (0.1, 0.6, 0.3)
    hand_low = (-0.5, 0.40, -0.05)

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: vector[:, :3]}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        puck, target, height = vector[:, :3], vector[:, 3:], placed.geom("objGeom")[:, 2]
        longest = longest_way(puck, target, height + LIFT)
        return Start(target=target, object=puck, tcp=settled.tcp, extra={"height": height, "longest": longest})

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("obj"), view.body_quat("obj"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        puck, tcp = view.body("obj"), view.tcp
        to_target, reach = distance(puck, start.target), distance(puck, tcp)
        in_place = tolerance(to_target, 0.0, 0.02, distance(start.object, start.target))
        grasp = caging(
            view,
            start,
            action,
            puck,
            object_radius=0.015,
            pad_radius=0.02,
            xz_radius=0.03,
            wanted_effort=0.1,
            density="high",
        )
        # Held, but not pinched with nothing between the fingers.
        held = (reach < 0.04) & (view.gripper >= 0.33) & (puck[:, 2] - 0.02 > start.object[:, 2])
        rim = funnel(distance(tcp[:, :2], start.object[:, :2]), HOLE_RADIUS, 0.015, 0.15)
        clear = staying_above(rim, tcp[:, 2], 0.02)
        reward = hamacher(grasp, in_place) + held * (1 + 5 * hamacher(in_place, clear))
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, reward),
            success=to_target <= SUCCESS_RADIUS,
            near_object=reach <= 0.03,
            grasp_success=held,
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        puck = view.body("obj")
        reward = lift_and_place(view, start, action, puck, LIFT, ground=start["height"] - 0.02)
        to_target = distance(puck, start.target)
        return Outcome.v1(reward, to_target, success=to_target <= SUCCESS_RADIUS)
