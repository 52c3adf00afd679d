"""handle-press-side-v3: press the handle of a box that stands sideways."""

from metarl.envs.metaworld.tasks.handle_press import HandlePress


class HandlePressSide(HandlePress):
    """As handle-press-v3 with the box on the left, turned so that its handle points to the right."""

    name = "handle-press-side-v3"
    scene = "sawyer_handle_press_sideways.xml"
    random_low, random_high = (-0.35, 0.65, -0.001), (-0.25, 0.75, 0.001)
    goal_low, goal_high = (-0.5, 0.40, 0.05), (0.5, 1.0, 0.5)
