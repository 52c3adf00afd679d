"""peg-unplug-side-v3: pull a plug out of a wall."""

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
from metarl.envs.metaworld.rewards import caging, distance, tolerance
from metarl.envs.metaworld.rewards_v1 import approach, closing_in
from metarl.envs.metaworld.views import View

PLUG = (0.044, 0.0, 0.131)  # metres from the wall to the plug in it
PULLED = 0.15  # metres from there to the target
TARGET_RADIUS = 0.05
SUCCESS_RADIUS = 0.07


class PegUnplugSide(TaskDefinition):
    """The random vector places the wall; the plug is in it, and the target 15 cm before it."""

    name = "peg-unplug-side-v3"
    scene = "sawyer_peg_unplug_side.xml"
    fixture = "box"
    frames = ("site:pegEnd", "body_quat:plug1")
    random_low, random_high = (-0.25, 0.6, -0.001), (-0.15, 0.8, 0.001)
    goal_low, goal_high = (-0.056, 0.6, 0.13), (0.044, 0.8, 0.132)

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def place(self, vector: Vectors, settled: View) -> Placement:
        """Upright and in the wall; as in the package, any rotation that the fall has given the plug goes on."""
        plug = torch.cat([_plug(vector), vector.new_tensor([1.0, 0.0, 0.0, 0.0]).expand(len(vector), 4)], 1)
        return Placement({OBJECT: plug}, {OBJECT: torch.zeros_like(vector)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target = _plug(vector) + vector.new_tensor([PULLED, 0.0, 0.0])
        return Start(target=target, object=placed.site("pegEnd"), tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.site("pegEnd"), view.body_quat("plug1"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        end = view.site("pegEnd")
        to_target, reach = distance(end, start.target), distance(end, view.tcp)
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, distance(start.object, start.target))
        grasp = caging(
            view,
            start,
            action,
            end,
            object_radius=0.025,
            pad_radius=0.05,
            xz_radius=0.005,
            wanted_effort=0.8,
            density="high",
        )
        pulled = (view.gripper > 0.5) & (end[:, 0] - start.object[:, 0] > 0.015)
        reward = 2 * grasp + (pulled & (reach < 0.035)) * (1 + 5 * in_place)
        return Outcome(
            reward=torch.where(to_target <= TARGET_RADIUS, 10.0, reward),
            success=to_target <= SUCCESS_RADIUS,
            near_object=reach <= 0.03,
            grasp_success=pulled,
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        end, tcp = view.site("pegEnd"), view.tcp
        reach, to_target = distance(end, tcp), distance(end[:, :2], start.target[:, :2])
        pull = torch.where(reach < 0.05, closing_in(distance(start.object, start.target), to_target), 0.0)
        reward = pull + approach(tcp, end, action, rest_height=self.hand_start[2], drop=2.0)
        return Outcome.v1(reward, to_target, success=to_target <= SUCCESS_RADIUS)


def _plug(vector: Vectors) -> Points:
    return vector + vector.new_tensor(PLUG)
