"""coffee-pull-v3: pull a mug away from a coffee machine."""

import torch

from metarl.envs.metaworld.definition import (
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
from metarl.envs.metaworld.rewards import caging, distance, hamacher, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View, at_height, constant, scalar_last

TARGET_RADIUS = 0.05  # metres, weighted (see `move_mug`)
SUCCESS = 0.07  # metres
UNDER_SPOUT = -0.22  # metres in y from the machine's origin to where a mug is filled


class CoffeePull(TaskDefinition):
    """The random vector is the mug's position under the spout of the machine, and the goal on the table."""

    name = "coffee-pull-v3"
    scene = "sawyer_coffee.xml"
    fixture = "coffee_machine"
    frames = ("body:obj", "geom_quat:mug")
    random_low, random_high = (-0.05, 0.7, -0.001, -0.1, 0.55, -0.001), (0.05, 0.75, 0.001, 0.1, 0.65, 0.001)
    goal_low, goal_high = (-0.1, 0.55, -0.001), (0.1, 0.65, 0.001)
    hand_start = (0.0, 0.4, 0.2)

    def fixture_position(self, vector: Vectors) -> Points:
        return machine_above(vector[:, :3])

    def place(self, vector: Vectors, settled: View) -> Placement:
        return place_mug(vector[:, :3])

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        return Start(target=vector[:, 3:], object=vector[:, :3], tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.body("obj"), scalar_last(view.geom_quat("mug")))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        return move_mug(view, start, action)

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        # The package means to measure how far the gripper is from above the mug, but takes the mug's own coordinates.
        away = distance(at_height(view.body("obj"), start.tcp[:, 2]))
        return move_mug_v1(view, start, away)


def place_mug(mug: Points) -> Placement:
    """The mug comes before the arm in this scene: the package stops joints of the arm and the fingers, not the mug."""
    return Placement({0: mug}, {9: mug.new_zeros(len(mug), 6)})


def machine_above(mug: Points) -> Points:
    return mug - constant(mug, 0.0, UNDER_SPOUT, 0.0)


def move_mug(view: View, start: Start, action: Actions) -> Outcome:
    """The reward for gripping the mug and bringing it to the target; errors in x and y count double."""
    mug = view.body("obj")
    weights = constant(mug, 2.0, 2.0, 1.0)
    weighted, reach = distance((mug - start.target) * weights), distance(mug, view.tcp)
    in_place = tolerance(weighted, 0.0, TARGET_RADIUS, distance((start.object - start.target) * weights))
    grasp = caging(
        view,
        start,
        action,
        mug,
        object_radius=0.02,
        pad_radius=0.05,
        reach_radius=0.04,
        xz_radius=0.05,
        wanted_effort=0.7,
        density="medium",
    )
    held = (reach < 0.04) & (view.gripper > 0)
    to_target = distance(mug, start.target)
    return Outcome(
        reward=torch.where(weighted < TARGET_RADIUS, 10.0, hamacher(grasp, in_place) + held * (1 + 5 * in_place)),
        success=to_target <= SUCCESS,
        near_object=reach <= 0.03,
        grasp_success=torch.zeros_like(held),  # the package asks for contact with a visual mesh, which has none
        grasp_reward=grasp,
        in_place_reward=in_place,
        obj_to_target=to_target,
    )


def move_mug_v1(view: View, start: Start, away: Scalars | None = None) -> Outcome:
    """Reward v1 for coming to the mug (`away`: how far it is, by default from the tool centre) and for moving it."""
    mug, plane = view.body("obj"), slice(0, 2)
    reach, to_target = distance(mug, view.tcp), distance(mug, start.target)
    far = distance(start.object[:, plane], start.target[:, plane])
    reward = reach_and_move(reach, far, distance(mug[:, plane], start.target[:, plane]))
    if away is not None:
        reward = reward + reach - away
    return Outcome.v1(reward, to_target, success=to_target <= SUCCESS)
