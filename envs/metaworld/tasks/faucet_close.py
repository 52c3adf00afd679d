"""faucet-close-v3: turn a faucet's handle clockwise by pushing it to the left."""

from metarl.envs.metaworld.definition import Placement, Vectors
from metarl.envs.metaworld.tasks.faucet_open import FaucetOpen
from metarl.envs.metaworld.views import View


class FaucetClose(FaucetOpen):
    """As faucet-open-v3 with the target on the other side; the faucet stands in a wider area."""

    name = "faucet-close-v3"
    frames = ("site:handleStartClose", "body_quat:faucetBase")
    random_low, random_high = (-0.1, 0.8, 0.0), (0.1, 0.85, 0.0)

    tip = "handleStartClose"
    push_offset = (0.0, 0.0, 0.0)
    way = -1.0

    def place(self, vector: Vectors, settled: View) -> Placement:
        """Nothing moves, but unlike faucet-open-v3 the package looks at the scene anew before it observes."""
        return Placement()
