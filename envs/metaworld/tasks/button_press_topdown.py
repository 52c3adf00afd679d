"""button-press-topdown-v3: press a button on the top of a box."""

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
from metarl.envs.metaworld.rewards import distance, hamacher, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.tasks.button_press import HEIGHT
from metarl.envs.metaworld.views import View, constant

PRESSED = 0.024  # metres from its target where the button counts as pressed


class ButtonPressTopdown(TaskDefinition):
    """The random vector places the box; the target is the hole of the button, 9 cm below where it stands out."""

    name = "button-press-topdown-v3"
    scene = "sawyer_button_press_topdown.xml"
    fixture = "box"
    frames = ("body:button", "body_quat:button", "site:buttonStart", "site:hole")
    random_low, random_high = (-0.1, 0.8, 0.115), (0.1, 0.9, 0.115)
    goal_low, goal_high = (-0.5, 0.40, 0.05), (0.5, 1.0, 0.5)
    hand_start = (0.0, 0.4, 0.2)

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def place(self, vector: Vectors, settled: View) -> Placement:
        return Placement()  # nothing moves, but the package computes all places anew

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        hole = placed.site("hole")
        travel = (placed.site("buttonStart")[:, 2] - hole[:, 2]).abs()
        return Start(target=hole, object=vector, tcp=settled.tcp, extra={"travel": travel})

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(button_of(view), view.body_quat("button"))]

    def ready(self, gripper: Scalars) -> Scalars:
        """How far the gripper is closed, as it has to be."""
        return 1 - gripper

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        button, gripper = button_of(view), view.gripper
        reach, to_target = distance(button, view.tcp), (start.target[:, 2] - button[:, 2]).abs()
        reaching = tolerance(reach, 0.0, 0.01, distance(button, start.tcp))
        pressing = tolerance(to_target, 0.0, 0.005, start["travel"])
        return Outcome(
            reward=5 * hamacher(self.ready(gripper), reaching) + 5 * (reach <= 0.03) * pressing,
            success=to_target <= PRESSED,
            near_object=reach <= 0.05,
            grasp_success=gripper > 0,
            grasp_reward=reaching,
            in_place_reward=pressing,
            obj_to_target=to_target,
        )

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        button = button_of(view)
        reach, to_target = distance(button, view.tcp), (start.target[:, 2] - button[:, 2]).abs()
        reward = reach_and_move(reach, start["travel"], to_target)
        return Outcome.v1(reward, to_target, success=to_target <= PRESSED)


def button_of(view: View) -> Points:
    button = view.body("button")
    return button + constant(button, 0.0, 0.0, HEIGHT)
