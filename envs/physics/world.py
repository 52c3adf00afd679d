"""One simulated world as a viewer shows it."""

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
from jaxtyping import Float
from torch import Tensor

from metarl.envs.physics.scene import Scene

_PLACES = ("qpos", "mocap_pos", "mocap_quat")


@dataclass(frozen=True)
class World:
    """A scene and where everything in it is.

    >>> world = env.world(0)
    >>> model = world.scene.rendering_model()
    >>> data = mujoco.MjData(model)
    >>> world.place(model, data)
    """

    scene: Scene
    state: Mapping[str, np.ndarray]
    """`qpos`, and `mocap_pos` and `mocap_quat` if the scene has mocap bodies, of this world."""
    mark: Float[np.ndarray, "3"] | None = None
    """Where the goal is (m); None if the family has none to show."""

    @classmethod
    def of(cls, scene: Scene, state: Mapping[str, Tensor], index: int, marks: Tensor | None = None) -> "World":
        """World `index` of `Physics.get_state()`."""
        rows = {name: state[name][index].cpu().double().numpy() for name in _PLACES if name in state}
        return cls(scene, rows, None if marks is None else marks[index].cpu().double().numpy())

    def place(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Puts the bodies of the scene's rendering model where they are in this world."""
        for name, row in self.state.items():
            target = getattr(data, name)
            target[:] = row.reshape(target.shape)
        mujoco.mj_kinematics(model, data)
