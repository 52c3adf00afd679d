"""stick-push-v3: take a stick and push a thermos to a goal with it."""

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
    Triple,
    Vectors,
)
from metarl.envs.metaworld.rewards import caging, distance, held, tolerance
from metarl.envs.metaworld.rewards_v1 import closing_in, lift, progress
from metarl.envs.metaworld.views import View, at_height, constant, scalar_last

STICK_HEIGHT = 0.02  # metres: of the lying stick
LIFT = 0.04
THERMOS_FOOT: Triple = (0.2, 0.6, 0.0)
THERMOS = OBJECT + 7  # its two slides in `qpos`, behind the stick
TARGET_RADIUS = 0.12


class StickPush(TaskDefinition):
    """The random vector is the stick's position and the goal's x and y; the goal is as high as the thermos's handle."""

    name = "stick-push-v3"
    scene = "sawyer_stick_obj.xml"
    frames = ("body:stick", "body_quat:stick", "touch:objGeom", "site:insertion")
    random_low, random_high = (-0.08, 0.58, 0.0, 0.399, 0.55, 0.1319), (-0.03, 0.62, 0.001, 0.401, 0.6, 0.1321)
    goal_low, goal_high = (0.399, 0.55, 0.1319), (0.401, 0.6, 0.1321)

    def place(self, vector: Vectors, settled: View) -> Placement:
        return place_stick_and_thermos(vector, (0.0, 0.0))

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target = at_height(vector[:, 3:5], settled.site("insertion")[:, 2])
        return Start(target=target, object=lying_stick(vector), tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        quaternion = scalar_last(view.body_quat("stick"))
        return [(view.body("stick"), quaternion), (_thermos(view), torch.zeros_like(quaternion))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        stick = view.body("stick")
        grip, thermos = stick + constant(stick, 0.015, 0.0, 0.0), _thermos(view)
        reach, to_target = distance(grip, view.tcp), distance(thermos, start.target)
        stick_way = distance(start.object, start.target)
        stick_in_place = tolerance(distance(grip, start.target), 0.0, TARGET_RADIUS, stick_way - TARGET_RADIUS)
        thermos_way = distance(constant(start.target, *THERMOS_FOOT) - start.target)
        thermos_in_place = tolerance(to_target, 0.0, TARGET_RADIUS, thermos_way - TARGET_RADIUS)
        caged = caging(
            view,
            start,
            action,
            grip,
            object_radius=0.04,
            pad_radius=0.05,
            xz_radius=0.01,
            density="high",
        )
        lifted = (reach < 0.02) & (view.gripper > 0) & (stick[:, 2] - 0.01 > start.object[:, 2])
        pushed = torch.where(to_target <= TARGET_RADIUS, 10.0, 2 + 5 * stick_in_place + 3 * thermos_in_place)
        grasped = held(view, start, stick, height=0.01)
        return Outcome(
            reward=torch.where(lifted, pushed, caged),
            success=grasped & (to_target <= TARGET_RADIUS),
            near_object=reach <= 0.03,
            grasp_success=grasped,
            grasp_reward=torch.where(lifted, 1.0, caged),
            in_place_reward=stick_in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        reward, to_target = carry_v1(view, start, action, start.object, width=0.001)
        # Success asks for a grasp, which reward v1 never reports.
        return Outcome.v1(reward, to_target, success=torch.zeros_like(reward, dtype=torch.bool))


def place_stick_and_thermos(vector: Vectors, slides: tuple[float, float]) -> Placement:
    """Lays the stick down and slides the thermos along x and y (m), leaving it the velocity in x that it has.

    The package, too, addresses the thermos's velocities where its positions are: one number too far.
    """
    positions = {OBJECT: lying_stick(vector), THERMOS: vector.new_tensor(slides).expand(len(vector), 2)}
    return Placement(positions, {OBJECT: vector.new_zeros(len(vector), 6), THERMOS: vector.new_zeros(len(vector), 1)})


def lying_stick(vector: Vectors) -> Points:
    return at_height(vector, STICK_HEIGHT)


def _thermos(view: View) -> Points:
    """The thermos's axis at the height of its handle."""
    insertion = view.site("insertion")
    return insertion + constant(insertion, 0.0, 0.09, 0.0)


def carry_v1(view: View, start: Start, action: Actions, stick_start: Points, width: float) -> tuple[Scalars, Scalars]:
    """Reward v1 of both stick tasks, and the distance in it to the target.

    `width`: of the wider bell about the target, m². The package means the thermos's position but reads the observation
    five numbers too early: the stick's height and the first two of its quaternion.
    """
    stick = view.body("stick")
    misread = torch.cat([stick[:, 2:], scalar_last(view.body_quat("stick"))[:, :2]], 1)
    reach, to_stick = distance(stick, view.tcp), distance(misread, stick)
    to_target = distance(misread[:, :2], start.target[:, :2])
    foot, lifted_height = constant(stick, *THERMOS_FOOT), STICK_HEIGHT + LIFT
    picked, near = stick[:, 2] >= lifted_height - 0.01, reach < 0.1
    above = foot + constant(foot, 0.0, 0.0, lifted_height)
    place = closing_in(distance(above - stick_start) + lifted_height, to_stick)
    longest = distance(foot[:2] - start.target[:, :2])
    move = torch.where(to_stick < 0.05, progress(longest, to_target, width=width, height=2000.0), 0.0)
    carry = torch.where(picked & near, (place + move).clamp(min=0), 0.0)
    grip = torch.where(reach < 0.05, action[:, 3].clamp(min=0) / 50, 0.0)
    raised = lift(stick, height=STICK_HEIGHT, lifted_height=lifted_height, near=near, picked=picked)
    return grip - reach + raised + carry, to_target
