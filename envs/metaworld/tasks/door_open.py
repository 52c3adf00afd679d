"""door-open-v3: open a door by its handle."""

import math

import torch

from metarl.envs.metaworld.definition import (
    OBJECT,
    Actions,
    Marks,
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
from metarl.envs.metaworld.rewards import distance, funnel, hamacher, staying_above, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View, constant, scalar_last

SUCCESS = 0.08  # metres in x from handle to target
FUNNEL = 0.12  # metres around the handle where the hand may come down
AJAR = -math.pi / 90  # rad
WIDE_OPEN = 2 * math.pi / 3  # rad


class DoorOpen(TaskDefinition):
    """The random vector places the shut door; the target is the handle's position when it is open."""

    name = "door-open-v3"
    scene = "sawyer_door_pull.xml"
    fixture = "door"
    frames = ("geom:handle", "geom_quat:handle")
    random_low, random_high = (0.0, 0.85, 0.15), (0.1, 0.95, 0.15)
    goal_low, goal_high = (-0.3, 0.4, 0.1499), (-0.2, 0.5, 0.1501)
    angle: float = 0.0
    """Of the door at the start, rad."""
    target: Triple = (-0.3, -0.45, 0.0)
    """From the door's frame, metres."""

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def place(self, vector: Vectors, settled: View) -> Placement:
        zero = vector.new_zeros(len(vector), 1)
        return Placement({OBJECT: zero + self.angle}, {OBJECT: zero})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target, handle = vector + vector.new_tensor(self.target), placed.geom("handle")
        far = distance(handle[:, :2], target[:, :2])
        return Start(target=target, object=vector, tcp=settled.tcp, extra={"far": far})

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.geom("handle"), scalar_last(view.geom_quat("handle")))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        angle = view.joint("doorjoint")
        grip = (action[:, 3].clamp(-1, 1) + 1) / 2
        ready = _ready(view.hand, view.geom("handle"))
        opened = 0.8 * tolerance(WIDE_OPEN + angle, 0.0, 0.5, math.pi / 3)
        opened = torch.where(angle < AJAR, opened + 0.2, opened)
        success = _success(view, start)
        return Outcome(
            reward=torch.where(success, 10.0, 2 * hamacher(ready, grip) + 8 * opened),
            success=success,
            near_object=ready,
            grasp_success=grip >= 0.5,
            grasp_reward=grip,
            in_place_reward=opened,
            obj_to_target=torch.zeros_like(ready),
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        reward, _ = moved_v1(view, start)
        return Outcome.v1(reward, torch.zeros_like(reward), success=_success(view, start), near_object=False)


def moved_v1(view: View, start: Start) -> tuple[Scalars, Scalars]:
    """Reward v1 for reaching the handle and moving it to the target, and its distance from there in x and y."""
    handle = view.geom("handle")
    reach, to_target = distance(handle, view.tcp), distance(handle[:, :2], start.target[:, :2])
    return reach_and_move(reach, start["far"], to_target), to_target


def _success(view: View, start: Start) -> Marks:
    return (view.geom("handle")[:, 0] - start.target[:, 0]).abs() <= SUCCESS


def _ready(hand: Points, handle: Points) -> Scalars:
    """How near the hand is to where it can pull, between handle and door, without running into the handle on its way.

    It has to stay above a floor that rises with the distance in x and y from a point left of the handle.
    """
    radius = distance(hand[:, :2], handle[:, :2] - constant(handle, 0.05, 0.0))
    floor = funnel(radius, FUNNEL, 0.04, 0.4)
    from_above = staying_above(floor, hand[:, 2], floor / 2)
    in_place = tolerance(distance(hand, handle + constant(handle, 0.0, 0.03, -0.01)), 0.0, FUNNEL / 2, 0.5)
    return hamacher(from_above, in_place)
