"""stick-pull-v3: take a stick, put it through a thermos's handle and pull the thermos to a goal with it."""

import torch

from metarl.envs.metaworld.definition import (
    Actions,
    Marks,
    Outcome,
    Placement,
    Points,
    Quaternions,
    Start,
    TaskDefinition,
    Vectors,
)
from metarl.envs.metaworld.rewards import caging, distance, hamacher, held, tolerance
from metarl.envs.metaworld.tasks.stick_push import (
    STICK_HEIGHT,
    THERMOS_FOOT,
    carry_v1,
    lying_stick,
    place_stick_and_thermos,
)
from metarl.envs.metaworld.views import View, at_height, constant, scalar_last

TARGET_RADIUS = 0.05
SUCCESS_RADIUS = 0.12


class StickPull(TaskDefinition):
    """The random vector is the stick's position and the goal's x and y; the goal is as high as the lying stick."""

    name = "stick-pull-v3"
    scene = "sawyer_stick_obj.xml"
    frames = ("body:stick", "body_quat:stick", "touch:objGeom", "site:insertion", "site:stick_end")
    random_low, random_high = (-0.1, 0.55, 0.0, 0.35, 0.45, 0.0199), (0.0, 0.65, 0.001, 0.45, 0.55, 0.0201)
    goal_low, goal_high = (0.35, 0.45, 0.0199), (0.45, 0.55, 0.0201)
    hand_low = (-0.5, 0.35, 0.05)

    def place(self, vector: Vectors, settled: View) -> Placement:
        return place_stick_and_thermos(vector, (0.0, 0.09))

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        """The object is the thermos here, even where the stick is gripped, and its place that of slides at zero."""
        stick = lying_stick(vector)
        target = at_height(vector[:, 3:5], STICK_HEIGHT)
        thermos = vector.new_tensor(THERMOS_FOOT).expand(len(vector), 3)
        return Start(target=target, object=thermos, tcp=settled.tcp, extra={"stick": stick})

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        quaternion = scalar_last(view.body_quat("stick"))
        return [(view.body("stick"), quaternion), (view.site("insertion"), torch.zeros_like(quaternion))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        stick, handle, target = view.body("stick"), view.site("insertion"), start.target
        reach, to_target = distance(stick, view.tcp), distance(handle, target)
        axis, weights = constant(stick, 0.05, 0.0, 0.0), constant(stick, 1.0, 1.0, 2.0)
        thermos = handle + axis
        way = distance((start["stick"] - start.object - axis) * weights)
        at_thermos = tolerance(distance((stick - thermos) * weights), 0.0, TARGET_RADIUS, way)
        stick_in_place = tolerance(distance(stick, target), 0.0, TARGET_RADIUS, distance(start["stick"], target))
        thermos_in_place = tolerance(distance(thermos, target), 0.0, TARGET_RADIUS, distance(start.object, target))
        caged = caging(
            view,
            start,
            action,
            stick,
            object_radius=0.014,
            pad_radius=0.05,
            xz_radius=0.01,
            density="high",
        )
        lifted = (reach < 0.02) & (view.gripper > 0) & (stick[:, 2] - 0.01 > start["stick"][:, 2])
        inserted, close = _inserted(view), to_target <= SUCCESS_RADIUS
        grasp = torch.where(lifted, 1.0, caged)
        base = hamacher(grasp, at_thermos)
        pull = torch.where(inserted, 6 + 2 * stick_in_place + thermos_in_place, 1 + 5 * at_thermos)
        reward = base + torch.where(lifted, pull, 0.0)
        return Outcome(
            reward=torch.where(lifted & inserted & close, 10.0, reward),
            success=inserted & close,
            near_object=reach <= 0.03,
            grasp_success=held(view, start, stick),
            grasp_reward=grasp,
            in_place_reward=at_thermos,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        reward, to_target = carry_v1(view, start, action, start["stick"], width=0.01)
        success = _inserted(view) & (distance(view.site("insertion"), start.target) <= SUCCESS_RADIUS)
        return Outcome.v1(reward, to_target, success=success)


def _inserted(view: View) -> Marks:
    """Whether the stick's end has gone through the handle."""
    past = view.site("stick_end") - view.site("insertion")
    return (past[:, 0] >= 0) & (past[:, 1].abs() <= 0.04) & (past[:, 2].abs() <= 0.06)
