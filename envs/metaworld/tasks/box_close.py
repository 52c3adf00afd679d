"""box-close-v3: put the lid onto a box."""

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
from metarl.envs.metaworld.rewards import alignment, distance, funnel, hamacher, staying_above, tolerance
from metarl.envs.metaworld.rewards_v1 import lift_and_place, longest_way
from metarl.envs.metaworld.views import View, at_height, constant

LID_HEIGHT = 0.019999999552965164  # 0.02 metres in single precision
TARGET_RADIUS = 0.08
LIFT = 0.12
UPRIGHT = (0.707, 0.0, 0.0, 0.707)


class BoxClose(TaskDefinition):
    """The random vector is the lid's position (without the height) and the target, below which the box is put."""

    name = "box-close-v3"
    scene = "sawyer_box.xml"
    fixture = "boxbody"
    frames = ("body:top_link", "body_quat:top_link", "geom:BoxHandleGeom")
    random_low, random_high = (-0.05, 0.5, 0.02, -0.1, 0.7, 0.133), (0.05, 0.55, 0.02, 0.1, 0.8, 0.133)
    goal_low, goal_high = (-0.1, 0.7, 0.133), (0.1, 0.8, 0.133)
    hand_start = (0.0, 0.6000000238418579, 0.20000000298023224)  # 0.6 and 0.2 in single precision
    settling_steps = 51  # the package steps once more here

    def fixture_position(self, vector: Vectors) -> Points:
        return at_height(vector[:, 3:5], 0.0)

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: _on_table(vector)}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        lid, target, height = _on_table(vector), vector[:, 3:], placed.geom("BoxHandleGeom")[:, 2]
        extra = {"height": height, "longest": longest_way(lid, target, height + LIFT)}
        return Start(target=target, object=lid, tcp=settled.tcp, extra=extra)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("top_link"), view.body_quat("top_link"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        lid = view.body("top_link")
        handle = lid + constant(lid, 0.0, 0.0, 0.02)
        success = distance(lid, start.target) < TARGET_RADIUS
        ready, grasp = _ready_to_lift(view.hand, handle), (action[:, 3].clamp(-1, 1) + 1) / 2
        miss = distance((start.target - handle) * constant(lid, 1.0, 1.0, 3.0))
        near = 0.8 * tolerance(miss, 0.0, 0.05, 0.25)
        lifted = torch.where(handle[:, 2] > 0.04, near + 0.2, near)
        reward = torch.where(success, 10.0, 2 * hamacher(grasp, ready) + 8 * lifted)
        return Outcome(
            # A lid that is flung over earns nothing, success or not.
            reward=reward * alignment(view.body_quat("top_link"), UPRIGHT, 0.2),
            success=success,
            near_object=ready,
            grasp_success=grasp >= 0.5,
            grasp_reward=grasp,
            in_place_reward=lifted,
            obj_to_target=torch.zeros_like(grasp),
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        lid = view.body("top_link")
        reward = lift_and_place(view, start, action, lid, LIFT)
        success = distance(lid, start.target) < TARGET_RADIUS
        return Outcome.v1(reward, torch.zeros_like(reward), success=success, near_object=False)


def _on_table(vector: Vectors) -> Points:
    return at_height(vector, LID_HEIGHT)


def _ready_to_lift(hand: Points, handle: Points) -> Scalars:
    """How near the hand is to the handle, having come from above: less below a funnel over the handle."""
    floor = funnel(distance(hand[:, :2], handle[:, :2]), 0.02, 0.04, 0.4)
    from_above = staying_above(floor, hand[:, 2], floor / 2)
    return hamacher(from_above, tolerance(distance(hand, handle), 0.0, 0.02, 0.5))
