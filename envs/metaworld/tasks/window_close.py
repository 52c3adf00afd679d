"""window-close-v3: push a sliding window closed by its handle, to the left."""

from metarl.envs.metaworld.definition import Start, Vectors
from metarl.envs.metaworld.tasks.window_open import WIDTH, WindowOpen
from metarl.envs.metaworld.views import View


class WindowClose(WindowOpen):
    """As window-open-v3 the other way: the random vector places the window, open, and is the target."""

    name = "window-close-v3"
    frames = ("site:handleCloseStart",)
    random_low, random_high = (0.0, 0.75, 0.2), (0.0, 0.9, 0.2)

    handle = "handleCloseStart"
    slide = WIDTH
    reach_sigmoid = "gaussian"

    def start(self, vector: Vectors, settled: View, placed: View) -> Start:
        # While the hand settles, the window is still closed.
        handle = settled.site(self.handle) + vector.new_tensor([WIDTH, 0.0, 0.0])
        way = (handle[:, 0] - vector[:, 0]).abs()
        return Start(target=vector, object=handle, tcp=settled.tcp, extra={"way": way})
