"""button-press-topdown-wall-v3: press a button on the top of a box that stands behind a wall."""

from metarl.envs.metaworld.definition import Scalars
from metarl.envs.metaworld.tasks.button_press_topdown import ButtonPressTopdown


class ButtonPressTopdownWall(ButtonPressTopdown):
    """As button-press-topdown-v3, with a wall that always stands in the same place."""

    name = "button-press-topdown-wall-v3"
    scene = "sawyer_button_press_topdown_wall.xml"

    def ready(self, gripper: Scalars) -> Scalars:
        """How far the gripper is open, as it has to be in metaworld 3.1.1; in 3.0 it has to be closed."""
        return gripper
