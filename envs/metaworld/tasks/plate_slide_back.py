"""plate-slide-back-v3: slide a puck out of a hockey goal, back towards the robot."""

from metarl.envs.metaworld.tasks.plate_slide_side import PlateSlideSide


class PlateSlideBack(PlateSlideSide):
    """The random vector is the puck's nominal position, always the same, and the target.

    The puck starts 10 cm in front of its nominal place; the goal stays where the scene has it.
    """

    name = "plate-slide-back-v3"
    scene = "sawyer_plate_slide.xml"
    random_low, random_high = (0.0, 0.85, 0.0, -0.1, 0.6, 0.015), (0.0, 0.85, 0.0, 0.1, 0.6, 0.015)
    goal_low, goal_high = (-0.1, 0.6, 0.015), (0.1, 0.6, 0.015)

    slides = (0.0, 0.15)
