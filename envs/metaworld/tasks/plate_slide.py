"""plate-slide-v3: slide a puck over the table into a hockey goal."""

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
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View, scalar_last

RADIUS = 0.05  # metres: of the target, and how near the tool centre is to come
SUCCESS_RADIUS = 0.07


class PlateSlide(TaskDefinition):
    """The random vector is the puck's nominal position, always the same, and the position of the goal."""

    name = "plate-slide-v3"
    scene = "sawyer_plate_slide.xml"
    fixture: ClassVar[str | None] = "puck_goal"
    frames = ("geom:puck", "geom_quat:puck")
    random_low, random_high = (0.0, 0.6, 0.0, -0.1, 0.85, 0.0), (0.0, 0.6, 0.0, 0.1, 0.9, 0.0)
    goal_low, goal_high = (-0.1, 0.85, 0.0), (0.1, 0.9, 0.0)
    hand_start = (0.0, 0.6000000238418579, 0.20000000298023224)  # float32's 0.6 and 0.2, as in the package

    slides: ClassVar[tuple[float, float]] = (0.0, 0.0)
    """Where the puck starts on its slides in x and y, whose zero is (0, 0.6) (m)."""

    def fixture_position(self, vector: Vectors) -> Points:
        return vector[:, 3:]

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: vector.new_tensor([self.slides]).expand(len(vector), 2)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target = vector[:, 3:]
        way = distance(placed.geom("puck")[:, :2], target[:, :2])
        return Start(target=target, object=vector[:, :3], tcp=settled.tcp, extra={"way": way})

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.geom("puck"), scalar_last(view.geom_quat("puck")))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        puck = view.geom("puck")
        to_target, reach = distance(puck, start.target), distance(puck, view.tcp)
        in_place = tolerance(to_target, 0.0, RADIUS, distance(start.object, start.target))
        reaching = tolerance(reach, 0.0, RADIUS, distance(start.object, start.tcp))
        return Outcome(
            reward=torch.where(to_target < RADIUS, 10.0, 8 * hamacher(reaching, in_place)),
            success=to_target <= SUCCESS_RADIUS,
            near_object=reach <= 0.03,
            grasp_success=torch.zeros_like(reach, dtype=torch.bool),
            grasp_reward=reaching,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        puck = view.geom("puck")
        to_target, reach = distance(puck[:, :2], start.target[:, :2]), distance(puck, view.tcp)
        reward = reach_and_move(reach, start["way"], to_target)
        return Outcome.v1(reward, to_target, success=to_target <= SUCCESS_RADIUS)
