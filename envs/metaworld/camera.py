"""Pictures of Meta-World scenes, with everything that simulation models leave out."""

import mujoco
import numpy as np
import torch
from jaxtyping import Float, UInt8

from metarl.envs.metaworld.group import SceneGroup

PICTURE_SIZE = 256
_CAMERA = "corner"
_GOAL_RADIUS = 0.015
_GOAL_COLOUR = (0.1, 0.9, 0.1, 0.6)


class Camera:
    """Looks at the worlds of one scene from the package's camera `corner`, which is mounted upside down.

    A green ball marks the goal, the same for all tasks. The package's own markers are left out: some show a place that
    is not the task's.
    """

    def __init__(self, group: SceneGroup):
        self._model = group.scene.scene.rendering_model()
        self._data = mujoco.MjData(self._model)
        self._renderer = mujoco.Renderer(self._model, PICTURE_SIZE, PICTURE_SIZE)
        self._options = mujoco.MjvOption()
        self._options.sitegroup[:] = 0

    def take(self, group: SceneGroup) -> list[UInt8[np.ndarray, "size size 3"]]:
        """A picture of each world."""
        state = {name: value.cpu().numpy() for name, value in group.physics.get_state().items()}
        return [self._picture(state, world, target) for world, target in enumerate(group.targets.cpu().double())]

    def close(self) -> None:
        self._renderer.close()

    def _picture(
        self, state: dict[str, np.ndarray], world: int, target: Float[torch.Tensor, "3"]
    ) -> UInt8[np.ndarray, "size size 3"]:
        for name in ("qpos", "mocap_pos", "mocap_quat"):
            place = getattr(self._data, name)
            place[:] = state[name][world].reshape(place.shape)
        mujoco.mj_forward(self._model, self._data)
        self._renderer.update_scene(self._data, camera=_CAMERA, scene_option=self._options)
        scene = self._renderer.scene
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom],
            mujoco.mjtGeom.mjGEOM_SPHERE,
            np.full(3, _GOAL_RADIUS),
            target.numpy(),
            np.eye(3).flatten(),
            np.array(_GOAL_COLOUR, np.float32),
        )
        scene.ngeom += 1
        return self._renderer.render()[::-1, ::-1].copy()
