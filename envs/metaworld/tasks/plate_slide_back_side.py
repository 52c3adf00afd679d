"""plate-slide-back-side-v3: slide a puck out of a hockey goal to the right."""

from metarl.envs.metaworld.definition import Points, Vectors
from metarl.envs.metaworld.tasks.plate_slide_side import PlateSlideSide


class PlateSlideBackSide(PlateSlideSide):
    """The random vector is the position of the goal, always the same, and the target.

    The puck starts 10 cm to the right of the goal's position, which the rewards take for the puck's own.
    """

    name = "plate-slide-back-side-v3"
    fixture = "puck_goal"
    random_low, random_high = (-0.25, 0.6, 0.0, -0.05, 0.6, 0.015), (-0.25, 0.6, 0.0, 0.15, 0.6, 0.015)
    goal_low, goal_high = (-0.05, 0.6, 0.015), (0.15, 0.6, 0.015)

    slides = (-0.15, 0.0)

    def fixture_position(self, vector: Vectors) -> Points:
        return vector[:, :3]
