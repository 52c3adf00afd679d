"""soccer-v3: push a ball into a goal."""

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
from metarl.envs.metaworld.rewards import distance, held, pinching, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View, constant, scalar_last

TARGET_RADIUS = 0.07
BALL_RADIUS = 0.013
PAD_RADIUS = 0.05
GRIP_RADIUS = BALL_RADIUS + 0.01  # how near a pad must come to grip
XZ_RADIUS = 0.005
GOAL_HALF_WIDTH = 0.1
GOAL_DEPTH = 0.1


class Soccer(TaskDefinition):
    """The random vector is the ball's position and that of the goal, which is the target."""

    name = "soccer-v3"
    scene = "sawyer_soccer.xml"
    fixture = "goal_whole"
    frames = ("body:soccer_ball", "body_quat:soccer_ball", "touch:objGeom")
    random_low, random_high = (-0.1, 0.6, 0.03, -0.1, 0.8, 0.0), (0.1, 0.7, 0.03, 0.1, 0.9, 0.0)
    goal_low, goal_high = (-0.1, 0.8, 0.0), (0.1, 0.9, 0.0)

    def fixture_position(self, vector: Vectors) -> Points:
        return vector[:, 3:]

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: vector[:, :3]}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        return Start(target=vector[:, 3:], object=vector[:, :3], tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("soccer_ball"), scalar_last(view.body_quat("soccer_ball")))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        ball = view.body("soccer_ball")
        to_target, reach = distance(ball, start.target), distance(ball, view.tcp)
        weights = constant(ball, 3.0, 1.0, 1.0)
        weighted = distance((ball - start.target) * weights)
        in_place = tolerance(weighted, 0.0, TARGET_RADIUS, distance((ball - start.object) * weights))
        # A ball beside the goal loses the more, the further it is behind the goal line.
        line = start.target[:, 1] - GOAL_DEPTH
        beside = (ball[:, 1] > line) & ((ball - start.target)[:, 0].abs() > GOAL_HALF_WIDTH)
        in_place = torch.where(beside, (in_place - 2 * (ball[:, 1] - line) / (1 - line)).clamp(0, 1), in_place)
        grasp = pinching(
            view,
            start,
            ball,
            object_radius=BALL_RADIUS,
            grip_radius=GRIP_RADIUS,
            pad_radius=PAD_RADIUS,
            xz_radius=XZ_RADIUS,
        )
        return Outcome(
            reward=torch.where(weighted < TARGET_RADIUS, 10.0, 3 * grasp + 6.5 * in_place),
            success=to_target <= TARGET_RADIUS,
            near_object=reach <= 0.03,
            grasp_success=held(view, start, ball),
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        ball = view.body("soccer_ball")
        reach, to_target = distance(ball, view.tcp), distance(ball[:, :2], start.target[:, :2])
        longest = distance(start.object[:, :2], start.target[:, :2])
        reward = reach_and_move(reach, longest, to_target)
        return Outcome.v1(reward, to_target, success=to_target <= TARGET_RADIUS)
