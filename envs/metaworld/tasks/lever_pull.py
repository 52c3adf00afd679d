"""lever-pull-v3: swing a horizontal lever up until it points at the ceiling."""

import math

from metarl.envs.metaworld.definition import Actions, Outcome, Points, Quaternions, Start, TaskDefinition, Vectors
from metarl.envs.metaworld.rewards import distance, hamacher, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View, constant, scalar_last

LEVER_LENGTH = 0.2
AXIS = (0.12, 0.0, 0.25)  # metres from the lever's foot to its axis
LONGEST_WAY = math.hypot(0.12, 0.25 + LEVER_LENGTH)  # reward v1 measures it from the foot to the target
UPRIGHT = math.pi / 2


class LeverPull(TaskDefinition):
    """The random vector places the lever's foot; the target is the position of the lever's end when it points up."""

    name = "lever-pull-v3"
    scene = "sawyer_lever_pull.xml"
    fixture = "lever"
    frames = ("site:leverStart", "geom_quat:objGeom")
    random_low, random_high = (-0.1, 0.7, 0.0), (0.1, 0.8, 0.0)
    goal_low, goal_high = (-0.5, 0.40, -0.15), (0.5, 1.0, 0.5)
    hand_low, hand_high = (-0.5, 0.40, -0.15), (0.5, 1.0, 0.5)
    hand_start = (0.0, 0.4000000059604645, 0.20000000298023224)  # float32's 0.4 and 0.2, as in the package

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        axis = vector + vector.new_tensor(AXIS)
        lever = axis - vector.new_tensor([0.0, LEVER_LENGTH, 0.0])
        target = axis + vector.new_tensor([0.0, 0.0, LEVER_LENGTH])
        return Start(target=target, object=lever, tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.site("leverStart"), scalar_last(view.geom_quat("objGeom")))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        lever = view.site("leverStart")
        # The hand's shoulder, not its fingers, is to come under the lever; errors in x and z count more.
        shoulder, weights = constant(lever, 0.0, 0.055, 0.07), constant(lever, 4.0, 1.0, 4.0)
        reach = distance((view.hand + shoulder - lever) * weights)
        margin = distance((start.tcp + shoulder - start.object) * weights)
        ready = tolerance(reach, 0.0, 0.02, margin)
        error = (view.joint("LeverAxis") + UPRIGHT).abs()
        raised = tolerance(error, 0.0, math.pi / 48, UPRIGHT - math.pi / 12)
        in_place = tolerance(distance(lever, start.target), 0.0, 0.04, distance(start.object, start.target))
        return Outcome(
            reward=10 * hamacher(ready, in_place),
            success=error <= math.pi / 24,
            near_object=reach < 0.03,
            grasp_success=ready > 0.9,
            grasp_reward=ready,
            in_place_reward=raised,
            obj_to_target=reach,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        """For success, the package takes the distance in metres as if it were the angle; it reports no distance."""
        lever = view.site("leverStart")
        to_target, reach = distance(lever, start.target), distance(lever, view.tcp)
        reward = reach_and_move(reach, LONGEST_WAY, to_target)
        return Outcome.v1(reward, to_target.new_zeros(len(to_target)), success=to_target <= math.pi / 24)
