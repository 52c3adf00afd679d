"""faucet-open-v3: turn a faucet's handle counter-clockwise by pushing it to the right."""

from typing import ClassVar

import torch

from metarl.envs.metaworld.definition import (
    Actions,
    Outcome,
    Points,
    Quaternions,
    Start,
    TaskDefinition,
    Triple,
    Vectors,
)
from metarl.envs.metaworld.rewards import distance, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View, constant

HANDLE_LENGTH = 0.175  # metres from the faucet's axis to the handle's tip
HANDLE_HEIGHT = 0.125
TARGET_RADIUS = 0.07
REACH_RADIUS = 0.01


class FaucetOpen(TaskDefinition):
    """The random vector places the faucet; the target is the tip of its handle after a quarter turn."""

    name = "faucet-open-v3"
    scene = "sawyer_faucet.xml"
    fixture = "faucetBase"
    frames = ("site:handleStartOpen", "body_quat:faucetBase")
    random_low, random_high = (-0.05, 0.8, 0.0), (0.05, 0.85, 0.0)
    goal_low, goal_high = (-0.5, 0.40, -0.15), (0.5, 1.0, 0.5)
    hand_low, hand_high = (-0.5, 0.40, -0.15), (0.5, 1.0, 0.5)
    hand_start = (0.0, 0.4, 0.2)

    tip: ClassVar[str] = "handleStartOpen"
    """The site on the side of the tip that is to be pushed."""
    push_offset: ClassVar[Triple] = (-0.04, 0.0, 0.03)
    """From the observed tip to the point that reward v2 looks at (m)."""
    way: ClassVar[float] = 1.0
    """The side on which the target lies: 1 right, -1 left."""

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target = vector + vector.new_tensor([self.way * HANDLE_LENGTH, 0.0, HANDLE_HEIGHT])
        return Start(target=target, object=vector, tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(self._handle(view), view.body_quat("faucetBase"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        handle = self._handle(view)
        handle = handle + constant(handle, *self.push_offset)
        to_target, reach = distance(handle, start.target), distance(handle, view.tcp)
        # Both margins are measured from the faucet's foot, not from its handle.
        margin = (distance(start.object, start.target) - TARGET_RADIUS).abs()
        turned = tolerance(to_target, 0.0, TARGET_RADIUS, margin)
        margin = (distance(start.object, start.tcp) - REACH_RADIUS).abs()
        reaching = tolerance(reach, 0.0, REACH_RADIUS, margin, "gaussian")
        success = to_target <= TARGET_RADIUS
        return Outcome(
            reward=torch.where(success, 10.0, 4 * reaching + 6 * turned),
            success=success,
            near_object=reach <= 0.01,
            grasp_success=torch.ones_like(success),
            grasp_reward=reaching,
            in_place_reward=turned,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        handle = self._handle(view)
        to_target, reach = distance(handle, start.target), distance(handle, view.tcp)
        reward = reach_and_move(reach, distance(start.object, start.target), to_target)
        return Outcome.v1(reward, to_target, success=to_target <= TARGET_RADIUS, grasp_success=True)

    def _handle(self, view: View) -> Points:
        tip = view.site(self.tip)
        return tip + constant(tip, 0.0, 0.0, -0.01)
