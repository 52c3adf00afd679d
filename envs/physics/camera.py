"""Pictures of a scene's worlds, with everything that the simulation model leaves out."""

from collections.abc import Mapping

import mujoco
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from metarl.envs.physics.scene import Scene

PICTURE_SIZE = 256
"""Pixels along each side."""
_MARK_RADIUS = 0.015  # metres
_MARK_COLOUR = (0.1, 0.9, 0.1, 0.6)


class Camera:
    """Draws worlds of one scene, 256 x 256 pixels each.

    `view` names a camera of the scene; if the scene has none of that name, a free camera shows the whole of it.
    `sites=False` hides the scene's sites.

    >>> camera = Camera(scene, view="track")
    >>> pictures = camera.take(physics.get_state())
    """

    def __init__(self, scene: Scene, *, view: str | None = None, sites: bool = True):
        self._model = scene.rendering_model()
        self._data = mujoco.MjData(self._model)
        self._renderer = mujoco.Renderer(self._model, PICTURE_SIZE, PICTURE_SIZE)
        self._options = mujoco.MjvOption()
        if not sites:
            self._options.sitegroup[:] = 0
        known = view is not None and mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_CAMERA, view) >= 0
        self._view: str | int = view if view is not None and known else -1

    def take(
        self, state: Mapping[str, Tensor], marks: Float[Tensor, "W 3"] | None = None
    ) -> list[UInt8[np.ndarray, "size size 3"]]:
        """A picture of each world from `Physics.get_state()`, with a green ball at each of `marks` (m)."""
        names = [name for name in ("qpos", "mocap_pos", "mocap_quat") if name in state]
        values = {name: state[name].cpu().numpy() for name in names}
        points = None if marks is None else marks.cpu().double().numpy()
        pictures = []
        for world in range(len(values["qpos"])):
            for name, rows in values.items():
                target = getattr(self._data, name)
                target[:] = rows[world].reshape(target.shape)
            mujoco.mj_forward(self._model, self._data)
            self._renderer.update_scene(self._data, camera=self._view, scene_option=self._options)
            if points is not None:
                self._mark(points[world])
            pictures.append(self._renderer.render())
        return pictures

    def close(self) -> None:
        self._renderer.close()

    def _mark(self, point: Float[np.ndarray, "3"]) -> None:
        drawn = self._renderer.scene
        mujoco.mjv_initGeom(
            drawn.geoms[drawn.ngeom],
            mujoco.mjtGeom.mjGEOM_SPHERE,
            np.full(3, _MARK_RADIUS),
            point,
            np.eye(3).flatten(),
            np.array(_MARK_COLOUR, np.float32),
        )
        drawn.ngeom += 1
