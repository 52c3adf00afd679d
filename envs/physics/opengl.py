"""OpenGL without a screen: which of EGL and OSMesa works here, and the error if neither does."""

import functools
import importlib
import os
import subprocess
import sys

import mujoco

from metarl.errors import RenderingUnavailable

OFFSCREEN = ("egl", "osmesa")
"""What can draw without a screen, preferred first: EGL uses a GPU, OSMesa the CPU."""
_TRIAL = "import mujoco; context = mujoco.GLContext(16, 16); context.make_current(); context.free()"


def choose_opengl() -> None:
    """Makes MuJoCo draw with EGL, or with OSMesa if EGL does not work here.

    It sets `MUJOCO_GL`, which MuJoCo and Gymnasium read. A value that the user has set stays, and so does the screen's
    OpenGL on other systems than Linux. Raises `RenderingUnavailable` if nothing works.
    """
    if os.environ.get("MUJOCO_GL") or not sys.platform.startswith("linux"):
        return
    os.environ["MUJOCO_GL"] = _working()
    # MuJoCo has read the variable when it was imported: its module that chooses has to be run again.
    importlib.reload(importlib.import_module(mujoco.Renderer.__module__).gl_context)


@functools.cache
def _working() -> str:
    """Tries each in a process of its own, because PyOpenGL cannot change its mind and a bad driver may crash."""
    for name in OFFSCREEN:
        environment = os.environ | {"MUJOCO_GL": name, "PYOPENGL_PLATFORM": name}
        trial = subprocess.run([sys.executable, "-c", _TRIAL], env=environment, capture_output=True, check=False)
        if trial.returncode == 0:
            return name
    raise RenderingUnavailable(
        "no picture can be drawn here, for neither EGL nor OSMesa works: install one of them "
        "(Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri, or libosmesa6)"
    )
