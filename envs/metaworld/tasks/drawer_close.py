"""drawer-close-v3: push the drawer of a nightstand shut."""

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
from metarl.envs.metaworld.rewards import distance, effort, hamacher, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View, constant

# Metres.
OPENING = 0.15  # from closed to open
TARGET_RADIUS = 0.05
SUCCESS = TARGET_RADIUS + 0.015
REACH_RADIUS = 0.005


class DrawerClose(TaskDefinition):
    """The random vector places the nightstand, its drawer pulled out; the target is near the closed drawer's handle."""

    name = "drawer-close-v3"
    scene = "sawyer_drawer.xml"
    fixture = "drawer"
    frames = ("body:drawer_link",)
    random_low, random_high = (-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)
    goal_low, goal_high = (-0.5, 0.40, 0.05), (0.5, 1.0, 0.5)

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: vector.new_full((len(vector), 1), -OPENING)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target = vector + vector.new_tensor([0.0, -0.16, 0.09])
        return Start(target=target, object=handle_of(placed), tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        handle = handle_of(view)
        return [(handle, handle.new_zeros(len(handle), 4))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        handle = handle_of(view)
        to_target, reach = distance(handle, start.target), distance(handle, view.tcp)
        margin = (distance(start.object, start.target) - TARGET_RADIUS).abs()
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, margin)
        margin = (distance(start.object, start.tcp) - REACH_RADIUS).abs()
        reaching = hamacher(tolerance(reach, 0.0, REACH_RADIUS, margin, "gaussian"), effort(action))
        success = to_target <= SUCCESS
        return Outcome(
            reward=10 * torch.where(success, 1.0, hamacher(reaching, in_place)),
            success=success,
            near_object=reach <= 0.01,
            grasp_success=torch.ones_like(success),
            grasp_reward=reaching,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        handle = handle_of(view)
        reach, to_target = distance(handle, view.tcp), (handle[:, 1] - start.target[:, 1]).abs()
        reward = reach_and_move(reach, OPENING, to_target)
        return Outcome.v1(reward, to_target, success=to_target <= SUCCESS, grasp_success=True)


def handle_of(view: View) -> Points:
    link = view.body("drawer_link")
    return link + constant(link, 0.0, -0.16, 0.05)
