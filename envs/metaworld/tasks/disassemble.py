"""disassemble-v3: lift a wrench off a peg."""

import torch

from metarl.envs.metaworld.definition import Actions, Outcome, Points, Start, Vectors
from metarl.envs.metaworld.rewards import distance, tolerance
from metarl.envs.metaworld.rewards_v1 import approach, closing_in, dropped, lift, longest_way
from metarl.envs.metaworld.tasks.assembly import Assembly, flatness, grasp_of_wrench, handle_of
from metarl.envs.metaworld.views import View, constant

HIGH = 0.15  # metres above its start where the wrench is off the peg
LIFT = 0.05


class Disassemble(Assembly):
    """The random vector is the wrench's position, where the peg stands too, and three numbers that nothing uses."""

    name = "disassemble-v3"
    random_low, random_high = (0.0, 0.6, 0.025, -0.1, 0.6, 0.1699), (0.1, 0.75, 0.02501, 0.1, 0.75, 0.1701)
    goal_low, goal_high = (-0.1, 0.6, 0.1749), (0.1, 0.75, 0.1751)
    hand_start = (0.0, 0.4000000059604645, 0.20000000298023224)  # 0.4 and 0.2 in single precision

    def fixture_position(self, vector: Vectors) -> Points:
        return vector[:, :3] + vector.new_tensor([0.0, 0.0, 0.03])

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        wrench, height = vector[:, :3], placed.body("RoundNut")[:, 2]
        target = wrench + vector.new_tensor([0.0, 0.0, HIGH])
        extra = {"height": height, "longest": longest_way(wrench, target, height + LIFT)}
        return Start(target=target, object=wrench, tcp=settled.tcp, extra=extra)

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        ring, success = view.body("RoundNut"), handle_of(view)[:, 2] > start.target[:, 2]
        # The ring is drawn to a place 10 cm above the target, which the handle has to pass.
        miss = distance(ring, start.target + constant(ring, 0.0, 0.0, 0.1))
        near = 0.9 * tolerance(miss, 0.0, 0.02, 0.2)
        in_place = torch.where(ring[:, 2] > 0.02, near + 0.1, near)
        grasp, flat = grasp_of_wrench(view, start, action, density="high"), flatness(view)
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
        handle, tcp = handle_of(view), view.tcp
        height, lifted_height = start["height"], start["height"] + LIFT
        reach, to_target = distance(handle, tcp), distance(handle, start.target)
        picked = (handle[:, 2] >= lifted_height - 0.01) & ~dropped(handle, height, to_target, reach) & (reach < 0.04)
        on_the_way = approach(tcp, handle, action, rest_height=start.tcp[:, 2], drop=2.0, above=0.04, near=0.04)
        raised = lift(handle, height=height, lifted_height=lifted_height, near=reach < 0.04, picked=picked)
        off_peg = ((view.body("RoundNut") - start.object)[:, :2].abs() > 0.05).any(-1)
        pulled = torch.where(picked & (reach < 0.03), closing_in(start["longest"], to_target), 0.0)
        reward = torch.where(off_peg, 100 * lifted_height, on_the_way + raised) + pulled
        return Outcome.v1(
            reward, torch.zeros_like(reward), success=handle[:, 2] > start.target[:, 2], near_object=False
        )
