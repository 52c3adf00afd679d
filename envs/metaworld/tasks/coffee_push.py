"""coffee-push-v3: push a mug under the spout of a coffee machine."""

from metarl.envs.metaworld.definition import (
    Actions,
    Outcome,
    Points,
    Start,
    Vectors,
)
from metarl.envs.metaworld.tasks.coffee_pull import CoffeePull, machine_above, move_mug_v1
from metarl.envs.metaworld.views import View


class CoffeePush(CoffeePull):
    """The random vector is the mug's position on the table, and the goal under the spout of the machine."""

    name = "coffee-push-v3"
    random_low, random_high = (-0.1, 0.55, -0.001, -0.05, 0.7, -0.001), (0.1, 0.65, 0.001, 0.05, 0.75, 0.001)
    goal_low, goal_high = (-0.05, 0.7, -0.001), (0.05, 0.75, 0.001)

    def fixture_position(self, vector: Vectors) -> Points:
        return machine_above(vector[:, 3:])

    def evaluate_v1(self, view: View, start: Start, action: Actions) -> Outcome:
        return move_mug_v1(view, start)
