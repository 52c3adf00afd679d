"""window-open-v3: push a sliding window open by its handle, to the right."""

from typing import ClassVar

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
from metarl.envs.metaworld.rewards import distance, hamacher, tolerance
from metarl.envs.metaworld.rewards_v1 import progress
from metarl.envs.metaworld.views import View

WIDTH = 0.2  # metres that the window slides, from closed to open
TARGET_RADIUS = 0.05
HANDLE_RADIUS = 0.02


class WindowOpen(TaskDefinition):
    """The random vector places the window, closed; the target is 20 cm to the right. Only x counts."""

    name = "window-open-v3"
    scene = "sawyer_window_horizontal.xml"
    fixture = "window"
    frames = ("site:handleOpenStart",)
    random_low, random_high = (-0.1, 0.7, 0.16), (0.1, 0.9, 0.16)
    goal_low, goal_high = (-0.5, 0.40, 0.05), (0.5, 1.0, 0.5)
    hand_start = (0.0, 0.4000000059604645, 0.20000000298023224)  # float32's 0.4 and 0.2, as in the package

    handle: ClassVar[str] = "handleOpenStart"
    """The site on the side of the handle that is to be pushed."""
    slide: ClassVar[float] = 0.0
    """How far the window is open at the start (m)."""
    reach_sigmoid: ClassVar[str] = "long_tail"

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: vector.new_full((len(vector), 1), self.slide)}, seen=False)

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target = vector + vector.new_tensor([WIDTH, 0.0, 0.0])
        way = vector.new_full((len(vector),), WIDTH)
        return Start(target=target, object=settled.site(self.handle), tcp=settled.tcp, extra={"way": way})

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        handle = view.site(self.handle)
        return [(handle, handle.new_zeros(len(handle), 4))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        handle = view.site(self.handle)
        to_target, reach = (handle[:, 0] - start.target[:, 0]).abs(), distance(handle, view.tcp)
        in_place = tolerance(to_target, 0.0, TARGET_RADIUS, (start["way"] - TARGET_RADIUS).abs())
        margin = (distance(start.object, start.tcp) - HANDLE_RADIUS).abs()
        reaching = tolerance(reach, 0.0, HANDLE_RADIUS, margin, self.reach_sigmoid)
        success = to_target <= TARGET_RADIUS
        return Outcome(
            reward=10 * hamacher(reaching, in_place),
            success=success,
            near_object=reach <= 0.05,
            grasp_success=torch.ones_like(success),
            grasp_reward=reaching,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        handle = view.site(self.handle)
        to_target, reach = (handle[:, 0] - start.target[:, 0]).abs(), distance(handle, view.tcp)
        push = (reach < 0.05) * progress(WIDTH, to_target)
        return Outcome.v1(push - reach, to_target, success=to_target <= TARGET_RADIUS, grasp_success=True)
