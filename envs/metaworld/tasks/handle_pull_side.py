"""handle-pull-side-v3: pull the handle of a box that stands sideways."""

from metarl.envs.metaworld.definition import Points, Scalars, Start, Vectors
from metarl.envs.metaworld.rewards import distance
from metarl.envs.metaworld.tasks.handle_pull import HandlePull
from metarl.envs.metaworld.views import View


class HandlePullSide(HandlePull):
    """As handle-pull-v3 with the box on the left, turned so that its handle points to the right.

    The rewards measure from the handle's own start, in all three dimensions.
    """

    name = "handle-pull-side-v3"
    scene = "sawyer_handle_press_sideways.xml"
    frames = ("site:handleStart", "site:handleCenter", "site:goalPull")
    random_low, random_high = (-0.35, 0.65, 0.0), (-0.25, 0.75, 0.0)
    goal_low, goal_high = (-0.5, 0.40, 0.05), (0.5, 1.0, 0.5)

    handle = "handleCenter"
    handle_radius = 0.032
    pad_radius = 0.06
    success_radius = 0.08
    lifted_axis = 2

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        target = placed.site("goalPull")
        travel = (placed.site("handleStart")[:, 2] - target[:, 2]).abs()
        return Start(target=target, object=placed.site(self.handle), tcp=settled.tcp, extra={"travel": travel})

    def error(self, offset: Points) -> Scalars:
        return distance(offset)
