"""basketball-v3: drop a ball through a hoop."""

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
from metarl.envs.metaworld.rewards import caging, distance, hamacher, tolerance
from metarl.envs.metaworld.rewards_v1 import lift_and_place, longest_way
from metarl.envs.metaworld.views import View, at_height, constant

BALL_HEIGHT = 0.029999999329447746  # 0.03 metres in single precision
HOOP = (0.0, -0.083, 0.25)  # metres from the foot of the stand
AIM_HEIGHT = 0.3  # metres, a little above the hoop
TARGET_RADIUS = 0.08
LIFT = 0.3


class Basketball(TaskDefinition):
    """The random vector is the ball's position (without the height) and that of the stand; the target is its hoop."""

    name = "basketball-v3"
    scene = "sawyer_basketball.xml"
    fixture = "basket_goal"
    frames = ("body:bsktball", "body_quat:bsktball", "geom:objGeom")
    random_low, random_high = (-0.1, 0.6, 0.0299, -0.1, 0.85, 0.0), (0.1, 0.7, 0.0301, 0.1, 0.9 + 1e-7, 0.0)
    goal_low, goal_high = (-0.1, 0.767, 0.2499), (0.1, 0.817 + 1e-7, 0.2501)
    hand_start = (0.0, 0.6000000238418579, 0.20000000298023224)  # 0.6 and 0.2 in single precision

    def fixture_position(self, vector: Vectors) -> Points:
        return vector[:, 3:]

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: _on_table(vector)}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        ball, target, height = _on_table(vector), vector[:, 3:] + vector.new_tensor(HOOP), placed.geom("objGeom")[:, 2]
        extra = {"height": height, "longest": longest_way(ball, target, height + LIFT)}
        return Start(target=target, object=ball, tcp=settled.tcp, extra=extra)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("bsktball"), view.body_quat("bsktball"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        ball = view.body("bsktball")
        aim = at_height(start.target, AIM_HEIGHT)
        weights = constant(ball, 1.0, 1.0, 2.0)
        to_target, reach = distance((ball - aim) * weights), distance(ball, view.tcp)
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, distance((start.object - aim) * weights))
        grasp = caging(
            view,
            start,
            action,
            ball,
            object_radius=0.025,
            pad_radius=0.06,
            xz_radius=0.005,
            density="high",
        )
        opened, raised = view.gripper > 0, ball[:, 2] - start.object[:, 2]
        held = (reach < 0.035) & opened & (raised > 0.01)
        grasp = torch.where(held, 1.0, grasp)
        reward = hamacher(grasp, in_place) + held * (1 + 5 * in_place)
        return Outcome(
            reward=torch.where(to_target < TARGET_RADIUS, 10.0, reward),
            success=to_target <= TARGET_RADIUS,
            near_object=reach <= 0.05,
            grasp_success=opened & (raised > 0.03),
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        ball = view.body("bsktball")
        reward = lift_and_place(view, start, action, ball, LIFT)
        to_target = distance(ball, start.target)
        return Outcome.v1(reward, to_target, success=to_target <= TARGET_RADIUS)


def _on_table(vector: Vectors) -> Points:
    return at_height(vector, BALL_HEIGHT)
