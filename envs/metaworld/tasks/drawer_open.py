"""drawer-open-v3: pull the drawer of a nightstand open by its handle."""

from metarl.envs.metaworld.definition import Actions, Outcome, Points, Quaternions, Start, TaskDefinition, Vectors
from metarl.envs.metaworld.rewards import distance, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View, constant

OPENING = 0.2  # metres from closed to open


class DrawerOpen(TaskDefinition):
    """The random vector places the nightstand; the target is the handle's position 20 cm further out."""

    name = "drawer-open-v3"
    scene = "sawyer_drawer.xml"
    fixture = "drawer"
    frames = ("body:drawer_link", "body_quat:drawer_link")
    random_low, random_high = (-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)
    goal_low, goal_high = (-0.5, 0.40, 0.05), (0.5, 1.0, 0.5)

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target = vector + vector.new_tensor([0.0, -0.16 - OPENING, 0.09])
        return Start(target=target, object=vector, tcp=settled.tcp)

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(handle_of(view), view.body_quat("drawer_link"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        handle, hand = handle_of(view), view.hand
        to_target, reach = distance(handle, start.target), distance(handle, hand)
        opening = tolerance(to_target, 0.0, 0.02, OPENING)
        # Errors in x and y count more, so that the gripper comes down on the handle rather than against it.
        weights = constant(hand, 3.0, 3.0, 1.0)
        closed = start.target + constant(hand, 0.0, OPENING, 0.0)
        margin = distance((closed - start.tcp) * weights)
        reaching = tolerance(distance((handle - hand) * weights), 0.0, 0.01, margin)
        return Outcome(
            reward=5 * (reaching + opening),
            success=to_target <= 0.03,
            near_object=reach <= 0.03,
            grasp_success=view.gripper > 0,
            grasp_reward=reaching,
            in_place_reward=opening,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        handle = handle_of(view)
        reach, to_target = distance(handle, view.tcp), (handle[:, 1] - start.target[:, 1]).abs()
        reward = reach_and_move(reach, OPENING, to_target)
        return Outcome.v1(reward, to_target, success=to_target <= 0.03)


def handle_of(view: View) -> Points:
    link = view.body("drawer_link")
    return link + constant(link, 0.0, -0.16, 0.0)
