"""peg-insert-side-v3: push a peg into a hole in the side of a box."""

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
    Vectors,
)
from metarl.envs.metaworld.rewards import caging, distance, hamacher, inside_prism, tolerance
from metarl.envs.metaworld.rewards_v1 import approach, closing_in, dropped, lift, longest_way
from metarl.envs.metaworld.views import View, constant, scalar_last

HOLE = (0.03, 0.0, 0.13)  # metres from the box
TARGET_RADIUS = 0.07
WEIGHTS = (1.0, 2.0, 2.0)  # what a miss counts in x, y and z
LIFT = 0.11


class PegInsertSide(TaskDefinition):
    """The random vector is the peg's position and that of the box; the target is the hole, for the peg's head."""

    name = "peg-insert-side-v3"
    scene = "sawyer_peg_insertion_side.xml"
    fixture = "box"
    frames = (
        "site:pegGrasp",
        "site:pegHead",
        "body_quat:peg",
        "site:bottom_right_corner_collision_box_1",
        "site:top_left_corner_collision_box_1",
        "site:bottom_right_corner_collision_box_2",
        "site:top_left_corner_collision_box_2",
    )
    random_low, random_high = (0.0, 0.5, 0.02, -0.35, 0.4, -0.001), (0.2, 0.7, 0.02, -0.25, 0.7, 0.001)
    goal_low, goal_high = (-0.32, 0.4, 0.129), (-0.22, 0.7, 0.131)

    def fixture_position(self, vector: Vectors) -> Points:
        return vector[:, 3:]

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: vector[:, :3]}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        # The package takes the head's position from before the peg is put where the vector says.
        peg, target, head = vector[:, :3], vector[:, 3:] + vector.new_tensor(HOLE), settled.site("pegHead")
        extra = {
            "way": distance((head - target) * vector.new_tensor(WEIGHTS)),
            "longest": longest_way(peg, target, peg[:, 2] + LIFT),
        }
        return Start(target=target, object=peg, tcp=settled.tcp, extra=extra)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(view.site("pegGrasp"), scalar_last(view.body_quat("peg")))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        peg, head = view.site("pegGrasp"), view.site("pegHead")
        reach, opened = distance(peg, view.tcp), view.gripper > 0
        to_target = distance((head - start.target) * constant(head, *WEIGHTS))
        in_place = hamacher(tolerance(to_target, 0.0, TARGET_RADIUS, start["way"]), _clear_of_box(view, head))
        grasp = caging(
            view,
            start,
            action,
            peg,
            object_radius=0.0075,
            pad_radius=0.03,
            xz_radius=0.005,
            density="high",
        )
        lifted = opened & (peg[:, 2] - 0.01 > start.object[:, 2])
        held = lifted & (reach < 0.08)
        grasp = torch.where(held, 1.0, grasp)
        reward = hamacher(grasp, in_place) + held * (1 + 5 * in_place)
        success = to_target <= TARGET_RADIUS
        return Outcome(
            reward=torch.where(success, 10.0, reward),
            success=success,
            near_object=reach <= 0.03,
            grasp_success=lifted & (reach < 0.02),
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        peg, tcp = view.site("pegGrasp"), view.tcp
        height, lifted_height = start.object[:, 2], start.object[:, 2] + LIFT
        reach, to_target = distance(peg, tcp), distance(peg, start.target)
        near = reach < 0.1
        picked = (peg[:, 2] >= lifted_height - 0.01) & ~dropped(peg, height, to_target, reach)
        head_to_target = distance(view.site("pegHead"), start.target)
        # First the head is brought to the hole, then the position of the grip.
        way = torch.where(head_to_target <= 0.05, to_target, head_to_target)
        reward = (
            approach(tcp, peg, action, rest_height=start.tcp[:, 2], drop=1.0)
            + lift(peg, height=height, lifted_height=lifted_height, near=near, picked=picked)
            + torch.where(picked & near, closing_in(start["longest"], way), 0.0)
        )
        return Outcome.v1(reward, to_target, success=to_target <= TARGET_RADIUS)


def _clear_of_box(view: View, head: Points) -> Scalars:
    """1 where the head is neither below nor above the hole in the box's front, 0 at the far corners of these parts."""
    below, above = (
        inside_prism(
            head,
            zero=view.site(f"bottom_right_corner_collision_box_{part}"),
            one=view.site(f"top_left_corner_collision_box_{part}"),
        )
        for part in (1, 2)
    )
    return hamacher(above, below)
