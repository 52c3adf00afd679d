"""assembly-v3: put the ring of a wrench over a peg."""

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
    Vectors,
)
from metarl.envs.metaworld.rewards import alignment, along_handle, caging, distance, funnel, tolerance
from metarl.envs.metaworld.rewards_v1 import approach, closing_in, dropped, lift, longest_way, progress
from metarl.envs.metaworld.views import View

PEG = 0.05  # metres from the peg's middle to its top
GRIP = 0.01  # metres along the handle, to either side of its end, where the hand may take it
LIFT = 0.1
LAID_DOWN = (0.707, 0.0, 0.0, 0.707)


class Assembly(TaskDefinition):
    """The random vector is the wrench's position, always the same, and the top of the peg."""

    name = "assembly-v3"
    scene = "sawyer_assembly_peg.xml"
    fixture = "peg"
    frames = ("body:RoundNut", "body_quat:RoundNut", "site:RoundNut-8")
    random_low, random_high = (0.0, 0.6, 0.02, -0.1, 0.75, 0.1), (0.0, 0.6, 0.02, 0.1, 0.85, 0.1)
    goal_low, goal_high = (-0.1, 0.75, 0.1), (0.1, 0.85, 0.1)
    hand_start = (0.0, 0.6000000238418579, 0.20000000298023224)  # 0.6 and 0.2 in single precision

    def fixture_position(self, vector: Vectors) -> Points:
        return vector[:, 3:] - vector.new_tensor([0.0, 0.0, PEG])

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement({OBJECT: vector[:, :3]}, {OBJECT: vector.new_zeros(len(vector), 6)})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        wrench, target, height = vector[:, :3], vector[:, 3:], handle_of(placed)[:, 2]
        extra = {"height": height, "longest": longest_way(wrench, target, height + LIFT)}
        return Start(target=target, object=wrench, tcp=settled.tcp, extra=extra)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(handle_of(view), view.body_quat("RoundNut"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        in_place, success = _over_peg(view.body("RoundNut"), start.target)
        grasp, flat = grasp_of_wrench(view, start, action, density="medium"), flatness(view)
        return Outcome(
            reward=torch.where(success, 10.0, (2 * grasp + 6 * in_place) * flat),
            success=success,
            near_object=flat,
            grasp_success=grasp >= 0.5,
            grasp_reward=grasp,
            in_place_reward=in_place,
            obj_to_target=torch.zeros_like(grasp),
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        ring, handle, tcp = view.body("RoundNut"), handle_of(view), view.tcp
        height, lifted_height = start["height"], start["height"] + LIFT
        reach, near = distance(handle, tcp), distance(handle, tcp) < 0.04
        beside, above = distance(ring[:, :2], start.target[:, :2]), (ring[:, 2] - height).abs()
        over_peg = ((ring - start.target)[:, :2].abs() < 0.03).all(-1)
        picked = (ring[:, 2] >= lifted_height - 0.01) & (reach < 0.03) & ~dropped(ring, height, beside, reach)
        lower = 2 * progress(lifted_height, above, width=0.003)
        put = (closing_in(start["longest"], beside) + over_peg * lower).clamp(min=0)
        reward = (
            approach(tcp, handle, action, rest_height=start.tcp[:, 2], drop=1.0, above=0.04, near=0.04)
            + lift(ring, height=height, lifted_height=lifted_height, near=near, picked=picked | over_peg)
            + torch.where(picked | over_peg, put, 0.0)
        )
        return Outcome.v1(reward, torch.zeros_like(reward), success=over_peg & (above <= 0.04), near_object=False)


def handle_of(view: View) -> Points:
    """The end of the wrench's handle."""
    return view.site("RoundNut-8")


def flatness(view: View) -> Scalars:
    return alignment(view.body_quat("RoundNut"), LAID_DOWN, 0.4)


def grasp_of_wrench(view: View, start: Start, action: Actions, density: str) -> Scalars:
    return caging(
        view,
        start,
        action,
        along_handle(handle_of(view), view.hand, GRIP),
        object_radius=0.015,
        pad_radius=0.02,
        reach_radius=0.01,
        xz_radius=0.01,
        density=density,
    )


def _over_peg(ring: Points, target: Points) -> tuple[Scalars, Marks]:
    """How near the ring is to a funnel that leads to the peg's top, and whether it is over the peg."""
    beside = distance(ring[:, :2], target[:, :2])
    success = (beside < 0.02) & (ring[:, 2] < target[:, 2])
    rim = 0.01 + 0.01 * success.to(beside.dtype)
    miss = torch.hypot(beside, 3 * (funnel(beside, rim, 0.02, 0.2) - ring[:, 2]))
    near, lifted = 0.9 * tolerance(miss, 0.0, 0.02, 0.4), (ring[:, 2] > 0.02) | (beside < rim)
    return torch.where(lifted, near + 0.1, near), success
