"""coffee-button-v3: press the button of a coffee machine."""

from metarl.envs.metaworld.definition import (
    Actions,
    Outcome,
    Placement,
    Points,
    Quaternions,
    Start,
    TaskDefinition,
    Vectors,
)
from metarl.envs.metaworld.tasks.button_press import press, press_v1
from metarl.envs.metaworld.tasks.coffee_pull import UNDER_SPOUT, place_mug
from metarl.envs.metaworld.views import View, constant

DEPTH = 0.03  # metres that the button goes in
BUTTON = (0.0, -0.22, 0.3)  # metres from the machine's origin


class CoffeeButton(TaskDefinition):
    """The random vector places the machine, with a mug under its spout; the target is where the pressed button is."""

    name = "coffee-button-v3"
    scene = "sawyer_coffee.xml"
    fixture = "coffee_machine"
    frames = ("site:buttonStart",)
    random_low, random_high = (-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)
    goal_low, goal_high = (-0.101, 0.61, 0.298), (0.101, 0.71, 0.302)
    hand_start = (0.0, 0.4, 0.2)

    def fixture_position(self, vector: Vectors) -> Points:
        return vector

    def place(self, vector: Vectors, settled: View) -> Placement:
        return place_mug(vector + vector.new_tensor([0.0, UNDER_SPOUT, 0.0]))

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target = vector + vector.new_tensor(BUTTON) + vector.new_tensor([0.0, DEPTH, 0.0])
        travel = (placed.site("buttonStart")[:, 1] - target[:, 1]).abs()
        return Start(target=target, object=vector, tcp=settled.tcp, extra={"travel": travel})

    def objects(self, view: View) -> list[tuple[Points, Quaternions]]:
        button = view.site("buttonStart")
        return [(button, constant(button, 1.0, 0.0, 0.0, 0.0).expand(len(button), 4))]

    def evaluate(self, view: View, start: Start, action: Actions) -> Outcome:
        return press(view, start, view.site("buttonStart"), DEPTH)

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        return press_v1(view, start, view.site("buttonStart"), start["travel"], within=0.02)
