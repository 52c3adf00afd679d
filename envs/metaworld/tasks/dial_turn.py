"""dial-turn-v3: turn a dial."""

import torch

from metarl.envs.metaworld.definition import Actions, Outcome, Points, Quaternions, Start, TaskDefinition, Vectors
from metarl.envs.metaworld.rewards import distance, effort, hamacher, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View, constant

# Metres.
DIAL_RADIUS = 0.05
TARGET_RADIUS = 0.07
REACH_RADIUS = 0.005


class DialTurn(TaskDefinition):
    """The random vector places the dial; a mark on its front (-y) has to turn to the target, reached after some 80°."""

    name = "dial-turn-v3"
    scene = "sawyer_dial.xml"
    fixture = "dial"
    frames = ("body:dial", "body_quat:dial")
    random_low, random_high = (-0.1, 0.7, 0.0), (0.1, 0.8, 0.0)
    goal_low, goal_high = (-0.1, 0.73, 0.0299), (0.1, 0.83, 0.0301)

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target = vector + vector.new_tensor([0.0, 0.03, 0.03])
        handle = handle_by(mark_of(placed))
        return Start(target=target, object=vector, tcp=settled.tcp, extra={"handle": handle})

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(mark_of(view), view.body_quat("dial"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        mark = mark_of(view)
        to_target, reach = distance(mark, start.target), distance(handle_by(mark), view.tcp)
        margin = (distance(start["handle"], start.target) - TARGET_RADIUS).abs()
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, margin)
        margin = (distance(start["handle"], start.tcp) - REACH_RADIUS).abs()
        reaching = hamacher(tolerance(reach, 0.0, REACH_RADIUS, margin, "gaussian"), effort(action))
        success = to_target <= TARGET_RADIUS
        return Outcome(
            reward=10 * hamacher(reaching, in_place),
            success=success,
            near_object=reach <= 0.01,
            grasp_success=torch.ones_like(success),
            grasp_reward=reaching,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        mark = mark_of(view)
        reach, to_target = distance(mark, view.tcp), (mark[:, 1] - start.target[:, 1]).abs()
        far = (start.object[:, 1] - start.target[:, 1]).abs()
        reward = reach_and_move(reach, far, to_target, width=0.001)
        return Outcome.v1(reward, to_target, success=to_target <= TARGET_RADIUS, grasp_success=True)


def mark_of(view: View) -> Points:
    """A point on the dial's rim that turns with it."""
    angle = view.joint("knob_Joint_1")
    offset = torch.stack([angle.sin(), -angle.cos(), torch.zeros_like(angle)], 1)
    return view.body("dial") + DIAL_RADIUS * offset


def handle_by(mark: Points) -> Points:
    """Where the gripper has to push."""
    return mark + constant(mark, 0.05, 0.02, 0.09)
