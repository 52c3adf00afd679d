"""Meta-World's scenes for batches: the package's own models, with fixtures that can be placed world by world."""

import functools
from dataclasses import dataclass

import mujoco
import numpy as np

from metarl.envs.metaworld.package import scene_file
from metarl.envs.metaworld.task_sets import TASKS
from metarl.envs.metaworld.tasks import definition
from metarl.envs.metaworld.views import ARM_FRAMES, Layout
from metarl.envs.physics.scene import Scene, SceneBuilder

_KINDS = {
    "body": "body_position",
    "site": "site_position",
    "geom": "geom_position",
    "body_quat": "body_quaternion",
    "geom_quat": "geom_quaternion",
}
_PADS = ("leftpad_geom", "rightpad_geom")
_WELD = [0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 5]
"""What the package puts into `eq_data` for the weld that drags the hand: no offset, a torque scale of 5."""


@dataclass(frozen=True, eq=False)
class TaskScene:
    """A compiled scene that serves all the tasks of its file.

    >>> task_scene("sawyer_door_pull.xml").layout.joints["doorjoint"]
    """

    scene: Scene
    layout: Layout
    hand_mocap: int
    """The number of the mocap body that drags the hand."""
    fixture_mocap: int | None
    """The number of the mocap body that is the fixture, if the scene has one."""


@functools.cache
def task_scene(file: str) -> TaskScene:
    """The scene of the package's `file`, with sensors for everything that its tasks read."""
    tasks = [task for task in map(definition, TASKS) if task.scene == file]
    fixtures = {task.fixture for task in tasks if task.fixture}
    frames = list(dict.fromkeys([*ARM_FRAMES, *(frame for task in tasks for frame in task.frames)]))
    builder = SceneBuilder(scene_file(file))
    for weld in builder.spec.equalities:
        if weld.type == mujoco.mjtEq.mjEQ_WELD:
            weld.data[: len(_WELD)] = _WELD
    for fixture in fixtures:
        _make_placeable(builder.spec, fixture)
    for frame in frames:
        kind, name = frame.split(":")
        if kind == "touch":
            builder.sense_contact(frame, [(pad, name) for pad in _PADS])
        else:
            builder.sense(frame, _KINDS[kind], [name])
    scene = builder.build()
    mocap = {body: int(scene.model.body(body).mocapid[0]) for body in ("mocap", *fixtures)}
    hand = mocap.pop("mocap")
    return TaskScene(scene, _layout(scene, frames), hand, next(iter(mocap.values()), None))


def _layout(scene: Scene, frames: list[str]) -> Layout:
    places = {}
    for frame in frames:
        group = scene.sensors[frame]
        # Of a contact's force only the first number is wanted, the normal one.
        step = group.size if frame.startswith("touch:") else 1
        places[frame] = slice(group.start, group.start + group.count * group.size, step)
    model = scene.model
    joints = {model.joint(number).name: int(model.jnt_qposadr[number]) for number in range(model.njnt)}
    return Layout(places, joints)


def _make_placeable(spec: mujoco.MjSpec, fixture: str) -> None:
    """Turns a body that stands still into a mocap body, whose pose is state, and keeps the physics the same.

    A body fixed to the world collides with its own moving parts; a mocap body does not, because MuJoCo lets no parent
    collide with its child unless the parent is the world. The pairs that are lost are added explicitly. On the other
    hand, MuJoCo checks a mocap body against what is fixed to the world, which cannot move it: these pairs are excluded.
    """
    body = spec.body(fixture)
    fixed, moving = _attached(body), []
    for part in fixed:
        moving += [piece for child in part.bodies if child.joints for piece in _attached(child)]
    body.mocap = True
    for number, geom in enumerate(spec.geoms):
        if not geom.name:
            geom.name = f"geom{number}"
    for first in (geom for part in fixed for geom in part.geoms):
        for second in (geom for part in moving for geom in part.geoms):
            if first.contype & second.conaffinity or second.contype & first.conaffinity:
                _add_pair(spec, first, second)
    for part in fixed:
        for still in [spec.worldbody, *(child for child in spec.worldbody.bodies if child.name != fixture)]:
            if not still.joints and not still.mocap:
                for piece in _attached(still) if still.name != "world" else [still]:
                    spec.add_exclude(bodyname1=part.name, bodyname2=piece.name)


def _attached(body: mujoco.MjsBody) -> list[mujoco.MjsBody]:
    """The body and all that is rigidly fixed to it."""
    return [body, *(piece for child in body.bodies if not child.joints for piece in _attached(child))]


def _add_pair(spec: mujoco.MjSpec, first: mujoco.MjsGeom, second: mujoco.MjsGeom) -> None:
    """The contact that MuJoCo would have made of the two geoms ("Contact parameters" in its documentation)."""
    friction = np.maximum(first.friction, second.friction)
    total = first.solmix + second.solmix
    share = first.solmix / total if total > 0 else 0.5
    spec.add_pair(
        geomname1=first.name,
        geomname2=second.name,
        condim=max(first.condim, second.condim),
        friction=[friction[0], friction[0], friction[1], friction[2], friction[2]],
        solref=share * first.solref + (1 - share) * second.solref,
        solimp=share * first.solimp + (1 - share) * second.solimp,
        margin=max(first.margin, second.margin),
        gap=max(first.gap, second.gap),
    )
