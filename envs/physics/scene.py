"""Scenes: an MJCF model without what only pictures need, with sensors for what tasks observe."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.errors import UsageError

_BODY, _XBODY = mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_XBODY
_SITE, _GEOM = mujoco.mjtObj.mjOBJ_SITE, mujoco.mjtObj.mjOBJ_GEOM
_SENSOR = mujoco.mjtSensor

# The force (bit 1) of the one strongest contact (reduction 2) of two geoms.
_STRONGEST_CONTACT = [0b10, 2, 1]

# Force, torque and position (bits 1, 2 and 4 of mjtConDataField) of the one net contact (reduction 3) of a body.
_NET_CONTACT = [0b10110, 3, 1]

SENSOR_KINDS = {
    "subtree_com": (_SENSOR.mjSENS_SUBTREECOM, _BODY),
    "body_position": (_SENSOR.mjSENS_FRAMEPOS, _XBODY),
    "body_quaternion": (_SENSOR.mjSENS_FRAMEQUAT, _XBODY),
    "inertial_position": (_SENSOR.mjSENS_FRAMEPOS, _BODY),
    "inertial_quaternion": (_SENSOR.mjSENS_FRAMEQUAT, _BODY),
    "inertial_linear_velocity": (_SENSOR.mjSENS_FRAMELINVEL, _BODY),
    "inertial_angular_velocity": (_SENSOR.mjSENS_FRAMEANGVEL, _BODY),
    "site_position": (_SENSOR.mjSENS_FRAMEPOS, _SITE),
    "site_quaternion": (_SENSOR.mjSENS_FRAMEQUAT, _SITE),
    "geom_position": (_SENSOR.mjSENS_FRAMEPOS, _GEOM),
    "geom_quaternion": (_SENSOR.mjSENS_FRAMEQUAT, _GEOM),
    "contact_wrench": (_SENSOR.mjSENS_CONTACT, _BODY),
}
"""What `SceneBuilder.sense` can measure: `body_*` at a body's own frame, `inertial_*` at its centre of mass.

Positions, quaternions (w, x, y, z) and velocities are in world coordinates. `contact_wrench` holds, in world
coordinates, the net force of all contacts of the body, their torque about a point, and that point: nine numbers.
"""


@dataclass(frozen=True)
class SensorGroup:
    """Sensors of one kind for several objects, next to each other in `sensordata`.

    >>> scene.sensors["contacts"].read(sensordata)  # [W, count, size]
    """

    start: int
    count: int
    size: int

    def read(self, sensordata: Float[Tensor, "W S"]) -> Float[Tensor, "W count size"]:
        return sensordata[:, self.start : self.start + self.count * self.size].unflatten(1, (self.count, self.size))


@dataclass(frozen=True)
class Touch:
    """Tells from the centres of two geoms, each read by a sensor, that they are too far apart to touch.

    >>> scene.touches["touch/ball/top"].possible(sensordata)  # [W] bool
    """

    first: SensorGroup
    second: SensorGroup
    reach: float
    """Largest distance (m) of the centres at which they may touch."""

    def possible(self, sensordata: Float[np.ndarray, "W S"]) -> Bool[np.ndarray, "W"]:
        first, second = (sensordata[:, group.start : group.start + 3] for group in (self.first, self.second))
        between = first - second
        return (between * between).sum(1) <= self.reach**2


@dataclass(frozen=True, eq=False)
class Scene:
    """A compiled simulation model, and which of its sensor data belong to which sensor.

    >>> scene = SceneBuilder("arm.xml").build()
    >>> scene.read(physics.sensordata, "tip")  # [W, 1, 3]
    """

    name: str
    model: mujoco.MjModel
    sensors: dict[str, SensorGroup]
    touches: dict[str, Touch]
    """One for each sensor that `SceneBuilder.sense_contact` has added, by the sensor's name."""
    spec: mujoco.MjSpec
    """What the model was compiled from, with the sensors and everything that pictures need: for rendering and tests."""

    def read(self, sensordata: Float[Tensor, "W S"], group: str) -> Float[Tensor, "W count size"]:
        """The readings of `group`, one row an object; raises `UsageError` if the scene has no such group."""
        if group not in self.sensors:
            raise UsageError(
                f"scene {self.name!r} has no sensors {group!r}: it has {', '.join(self.sensors) or 'none'}"
            )
        return self.sensors[group].read(sensordata)

    def rendering_model(self) -> mujoco.MjModel:
        """The model with everything that pictures need."""
        return _compile(self.spec, self.name)


class SceneBuilder:
    """Loads an MJCF file, adds sensors to it and compiles the result.

    Every body has a name afterwards: those without one are called `body1`, `body2`, … by their number. Sensors that the
    file itself defines can be read by their names, each as a group of one.

    >>> scene = SceneBuilder("arm.xml").sense("tip", "site_position", ["tip"]).build()
    >>> scene.read(physics.sensordata, "tip")[:, 0]  # [W, 3], metres
    """

    def __init__(self, source: str | Path):
        """`source`: the path of an MJCF file, or the XML itself. Raises `UsageError` if it does not load."""
        text = str(source)
        inline = text.lstrip().startswith("<")
        self.name = "scene" if inline else Path(text).stem
        if not inline and not Path(text).is_file():
            raise UsageError(f"scene file {text} is not there")
        load: Callable[[str], mujoco.MjSpec] = mujoco.MjSpec.from_string if inline else mujoco.MjSpec.from_file
        try:
            self.spec = load(text)
        except ValueError as error:
            raise UsageError(f"scene {self.name!r} does not load: {_one_line(error)}") from None
        self._groups: dict[str, list[str]] = {}
        self._touches: dict[str, tuple[str, str]] = {}
        for sensor in self.spec.sensors:
            if sensor.name:
                self._groups[sensor.name] = [sensor.name]
        for number, body in enumerate(self.spec.bodies):
            if not body.name:
                body.name = f"body{number}"

    @property
    def bodies(self) -> list[str]:
        """The names of all bodies except the world, in the order of their numbers."""
        return [body.name for body in self.spec.bodies[1:]]

    def sense(self, group: str, kind: str, objects: Sequence[str]) -> "SceneBuilder":
        """Adds one sensor of `kind` (see `SENSOR_KINDS`) for each of `objects`; their readings are named `group`."""
        if kind not in SENSOR_KINDS:
            raise UsageError(f"unknown kind of sensor {kind!r}: choose from {', '.join(SENSOR_KINDS)}")
        if group in self._groups:
            raise UsageError(f"scene {self.name!r} has sensors {group!r} already")
        sensor_type, object_type = SENSOR_KINDS[kind]
        self._groups[group] = []
        for name in objects:
            self._check(object_type, name)
            sensor = self.spec.add_sensor(
                name=f"{group}/{name}", type=sensor_type, objtype=object_type, objname=name, needstage=0
            )
            if sensor_type == _SENSOR.mjSENS_CONTACT:
                sensor.intprm[: len(_NET_CONTACT)] = _NET_CONTACT
            self._groups[group].append(sensor.name)
        return self

    def sense_contact(self, group: str, pairs: Sequence[tuple[str, str]]) -> "SceneBuilder":
        """Adds a sensor for each pair of geoms: the force (N) of their strongest contact, its normal part first."""
        for name in dict.fromkeys(name for pair in pairs for name in pair):
            if f"centre/{name}" not in self._groups:
                self.sense(f"centre/{name}", "geom_position", [name])
        self._groups[group] = []  # its sensors are neighbours: no centres in between
        for pair in pairs:
            sensor = self.spec.add_sensor(
                name=f"{group}/{'/'.join(pair)}",
                type=_SENSOR.mjSENS_CONTACT,
                objtype=_GEOM,
                objname=pair[0],
                reftype=_GEOM,
                refname=pair[1],
                needstage=0,
            )
            sensor.intprm[: len(_STRONGEST_CONTACT)] = _STRONGEST_CONTACT
            self._groups[group].append(sensor.name)
            self._touches[sensor.name] = pair
        return self

    def build(self) -> Scene:
        """The compiled scene; raises `UsageError` if it does not compile."""
        stripped = self._copy()
        stripped.compiler.discardvisual = True
        model = _compile(stripped, self.name)
        groups = {}
        for group, names in self._groups.items():
            first = model.sensor(names[0]) if names else None
            start, size = (int(first.adr[0]), int(first.dim[0])) if first is not None else (0, 0)
            groups[group] = SensorGroup(start, len(names), size)
        touches = {sensor: _touch(model, groups, *pair) for sensor, pair in self._touches.items()}
        return Scene(self.name, model, groups, touches, self.spec)

    def _copy(self) -> mujoco.MjSpec:
        """A copy of the whole. `MjSpec.copy` silently leaves out what refers to something that is not there."""
        copy = self.spec.copy()
        kinds = ("actuators", "equalities", "excludes", "pairs", "sensors", "tendons")
        lost = [kind for kind in kinds if len(getattr(copy, kind)) < len(getattr(self.spec, kind))]
        if lost:
            _compile(self.spec, self.name)  # raises, and names the culprit
            raise UsageError(f"scene {self.name!r}: some of its {lost[0]} refer to what is not there")
        return copy

    def _check(self, object_type: mujoco.mjtObj, name: str) -> None:
        kind = {_BODY: "body", _XBODY: "body", _SITE: "site", _GEOM: "geom"}[object_type]
        if getattr(self.spec, kind)(name) is None:
            plural = {"body": "bodies"}.get(kind, f"{kind}s")
            known = ", ".join(element.name for element in getattr(self.spec, plural) if element.name)
            raise UsageError(f"scene {self.name!r} has no {kind} {name!r}: it has {known or 'none with a name'}")


def _touch(model: mujoco.MjModel, groups: dict[str, SensorGroup], first: str, second: str) -> Touch:
    geoms = [model.geom(first).id, model.geom(second).id]
    bounds = model.geom_rbound[geoms]
    reach = float(bounds.sum() + model.geom_margin[geoms].sum()) if bounds.all() else float("inf")  # planes have none
    return Touch(groups[f"centre/{first}"], groups[f"centre/{second}"], reach)


def _compile(spec: mujoco.MjSpec, name: str) -> mujoco.MjModel:
    try:
        return spec.compile()
    except ValueError as error:
        raise UsageError(f"scene {name!r} does not compile: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()
