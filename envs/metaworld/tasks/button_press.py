"""button-press-v3: press a button on the front of a box."""

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
from metarl.envs.metaworld.rewards import distance, hamacher, tolerance
from metarl.envs.metaworld.rewards_v1 import reach_and_move
from metarl.envs.metaworld.views import View, constant

HEIGHT = 0.193  # metres from the button's origin, within the box, to its top
NEAR = 0.05  # metres


class ButtonPress(TaskDefinition):
    """The random vector places the box; the target is the hole of the button, 9 cm behind where it stands out."""

    name = "button-press-v3"
    scene = "sawyer_button_press.xml"
    fixture = "box"
    frames = ("body:button", "body_quat:button", "site:buttonStart", "site:hole")
    random_low, random_high = (-0.1, 0.85, 0.115), (0.1, 0.9, 0.115)
    goal_low, goal_high = (-0.5, 0.40, 0.05), (0.5, 1.0, 0.5)
    hand_start = (0.0, 0.4, 0.2)

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def place(self, vector: Vectors, settled: View) -> Placement:
        out = vector.new_zeros(len(vector), 1)
        return Placement({OBJECT: out}, {OBJECT: out})

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        hole = placed.site("hole")
        travel = (placed.site("buttonStart") - hole).abs()
        return Start(target=hole, object=vector, tcp=settled.tcp, extra={"travel": travel})

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        return [(button_of(view), view.body_quat("button"))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        return press(view, start, button_of(view), start["travel"][:, 1])

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        return press_v1(view, start, button_of(view), start["travel"][:, 1], within=0.02)


def button_of(view: View) -> Points:
    button = view.body("button")
    return button + constant(button, 0.0, -HEIGHT, 0.0)


def press(view: View, start: Start, button: Points, travel: Scalars | float) -> Outcome:
    """The reward for reaching a button with the gripper open (2), then for pressing it (8) along y, `travel` m long."""
    gripper = view.gripper
    reach, to_target = distance(button, view.tcp), (start.target[:, 1] - button[:, 1]).abs()
    reaching = tolerance(reach, 0.0, NEAR, distance(button, start.tcp))
    pressing = tolerance(to_target, 0.0, 0.005, travel)
    near = reach <= NEAR
    return Outcome(
        reward=2 * hamacher(gripper, reaching) + 8 * near * pressing,
        success=to_target <= 0.02,
        near_object=near,
        grasp_success=gripper > 0,
        grasp_reward=reaching,
        in_place_reward=pressing,
        obj_to_target=to_target,
    )


def press_v1(view: View, start: Start, button: Points, travel: Scalars, *, within: float) -> Outcome:
    """Reward v1 of the buttons that are pressed along y: it is the left finger that counts.

    `within`: how near to its target the button is pressed, metres.
    """
    reach = distance(button, view.site("leftEndEffector"))
    to_target = (start.target[:, 1] - button[:, 1]).abs()
    reward = reach_and_move(reach, travel, to_target)
    return Outcome.v1(reward, to_target, success=to_target <= within)
