"""Pictures without a screen: an OpenGL that works is chosen, and a machine without one is told what to install."""

import ctypes.util
import os
import subprocess
import sys

import pytest

LOOK = """
import os, sys, warnings
import metarl
from metarl.envs.physics import opengl
from metarl.errors import RenderingUnavailable

opengl.OFFSCREEN = tuple(sys.argv[1:]) or opengl.OFFSCREEN
family = metarl.make("HopperRandParams-v0")
env = family.make_env(2, 1, render_mode="rgb_array")
env.set_tasks(family.sample(2, seed=0))
env.reset(seed=0)
try:
    pictures = env.render()
    print(pictures[0].shape, pictures[0].std() > 5, os.environ.get("MUJOCO_GL"))
except RenderingUnavailable as error:
    print(error)
"""
"""It does not close the environment: the end of the interpreter has to be silent."""

has_engine = pytest.mark.skipif(
    not any(map(ctypes.util.find_library, ("EGL", "OSMesa"))), reason="neither libEGL nor libOSMesa is installed"
)


def look(*engines, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    command = [sys.executable, "-W", "error", "-c", LOOK, *engines]
    found = subprocess.run(command, env=environment | variables, capture_output=True, text=True)
    assert not found.returncode, found.stderr
    return found.stdout.strip(), found.stderr


@has_engine
def test_an_engine_is_chosen_by_itself():
    assert look() in {(f"(256, 256, 3) True {name}", "") for name in ("egl", "osmesa")}


@has_engine
def test_an_engine_that_does_not_work_is_passed_over():
    drawn = {(f"(256, 256, 3) True {name}", "") for name in ("egl", "osmesa")}
    assert look("no-such-engine", "egl", "osmesa") in drawn


def test_a_machine_without_any_is_told_what_to_install():
    assert "neither EGL nor OSMesa works: install one of them" in look("no-such-engine")[0]


def test_a_choice_of_the_user_stays_and_is_named_if_it_fails():
    assert "cannot draw with MUJOCO_GL=glfw" in look(MUJOCO_GL="glfw", DISPLAY="")[0]
