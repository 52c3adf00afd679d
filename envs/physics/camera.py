"""Pictures of a scene's worlds, with everything that the simulation model leaves out."""

import atexit
import os
import weakref
from collections.abc import Mapping

import mujoco
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from metarl.envs.physics.opengl import choose_opengl
from metarl.envs.physics.scene import Scene
from metarl.errors import RenderingUnavailable

PICTURE_SIZE = 256
"""Pixels along each side."""
_MARK_RADIUS = 0.015  # metres
_MARK_COLOUR = (0.1, 0.9, 0.1, 0.6)


class Camera:
    """Draws worlds of one scene, 256 x 256 pixels each, with EGL or OSMesa.

    `view` names a camera of the scene; if the scene has none of that name, a free camera shows the whole of it.
    `sites=False` hides the scene's sites. Raises `RenderingUnavailable` if nothing here can draw.

    >>> camera = Camera(scene, view="track")
    >>> pictures = camera.take(physics.get_state())
    """

    def __init__(self, scene: Scene, *, view: str | None = None, sites: bool = True):
        self._model = scene.rendering_model()
        self._data = mujoco.MjData(self._model)
        self._renderer = _open_renderer(self._model)
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


def _open_renderer(model: mujoco.MjModel) -> mujoco.Renderer:
    choose_opengl()
    try:
        renderer = mujoco.Renderer(model, PICTURE_SIZE, PICTURE_SIZE)
    except Exception as error:  # whatever the driver, PyOpenGL or ctypes raises
        engine = os.environ.get("MUJOCO_GL", "its default")
        raise RenderingUnavailable(
            f"MuJoCo cannot draw with MUJOCO_GL={engine} ({type(error).__name__}): "
            "unset MUJOCO_GL to have one chosen that works"
        ) from error
    # At the end of the interpreter, MuJoCo terminates EGL first and then frees contexts that are gone, with tracebacks.
    atexit.register(_close_if_alive, weakref.ref(renderer))
    return renderer


def _close_if_alive(reference: weakref.ref[mujoco.Renderer]) -> None:
    renderer = reference()
    if renderer is not None:
        renderer.close()
