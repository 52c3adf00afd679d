"""How episodes start (settled hand, placed objects, what rewards remember): a function of the task alone."""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import mujoco
import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from metarl.devices import num_cpus
from metarl.envs.metaworld.definition import SETTLING_STEPS, Start, TaskDefinition
from metarl.envs.metaworld.scenes import TaskScene, task_scene
from metarl.envs.metaworld.tasks import definition
from metarl.envs.metaworld.views import View

FRAMES = 5
"""Simulated frames of 2.5 ms in a step."""
_HAND_QUATERNION = (1.0, 0.0, 1.0, 0.0)
_OPEN = (-1.0, 1.0)
_AT_ONCE = 64  # each needs an `MjData` of its own, 15 MB
_REMEMBERED = 4096
TENSORS = ("qpos", "qvel", "warmstart", "mocap_pos", "mocap_quat", "observed")


@dataclass(frozen=True)
class EpisodeStart:
    """The starts of `R` tasks of one definition, float64 on the CPU.

    >>> starts = episode_starts("reach-v3", vectors)
    >>> starts.rows(torch.tensor([0, 0, 1])).qpos  # [3, nq]
    """

    qpos: Float64[Tensor, "R nq"]
    qvel: Float64[Tensor, "R nv"]
    warmstart: Float64[Tensor, "R nv"]
    """Where the constraint solver starts its search in the first step: the solution that it last found."""
    mocap_pos: Float64[Tensor, "R nmocap 3"]
    mocap_quat: Float64[Tensor, "R nmocap 4"]
    observed: Float64[Tensor, "R 18"]
    """Hand, gripper and objects."""
    memory: Start

    def rows(self, index: Tensor) -> "EpisodeStart":
        """The starts of the chosen rows, in the order of `index`."""
        parts = {name: getattr(self, name)[index] for name in TENSORS}
        return EpisodeStart(**parts, memory=self.memory.map(lambda value: value[index]))


def episode_starts(name: str, vectors: Float[Tensor, "R V"]) -> EpisodeStart:
    """The starts of the tasks that `vectors` make of the task called `name`. Recent ones are remembered."""
    rows = vectors.cpu().double().numpy()
    store = _store(name)
    missing = list({row.tobytes(): row for row in rows if row.tobytes() not in store}.values())
    for first in range(0, len(missing), _AT_ONCE):
        chunk = np.stack(missing[first : first + _AT_ONCE])
        settled = _settle(definition(name), torch.from_numpy(chunk))
        for number, row in enumerate(chunk):
            store[row.tobytes()] = settled.rows(torch.tensor([number]))
    found = [store[row.tobytes()] for row in rows]
    for key in list(store)[: max(len(store) - _REMEMBERED, 0)]:
        del store[key]
    return join_starts(found)


@functools.cache
def _store(name: str) -> dict[bytes, EpisodeStart]:
    return {}


def _settle(task: TaskDefinition, vectors: Float64[Tensor, "R V"]) -> EpisodeStart:
    """Lets the hand come to rest above the placed fixtures, then places the objects: the package's reset.

    MuJoCo itself steps each row, with warm starts, because a puck that has just fallen depends on every rounding.
    """
    scene = task_scene(task.scene)
    model = scene.scene.model
    mocap_pos = torch.from_numpy(mujoco.MjData(model).mocap_pos.copy()).repeat(len(vectors), 1, 1)
    mocap_quat = torch.from_numpy(mujoco.MjData(model).mocap_quat.copy()).repeat(len(vectors), 1, 1)
    mocap_pos[:, scene.hand_mocap] = mocap_pos.new_tensor(task.hand_start)
    mocap_quat[:, scene.hand_mocap] = mocap_quat.new_tensor(_HAND_QUATERNION)
    if scene.fixture_mocap is not None and task.fixture:
        mocap_pos[:, scene.fixture_mocap] = task.fixture_position(vectors)
    worlds = [mujoco.MjData(model) for _ in range(len(vectors))]
    for world, position, quaternion in zip(worlds, mocap_pos.numpy(), mocap_quat.numpy(), strict=True):
        world.mocap_pos[:], world.mocap_quat[:], world.ctrl[:] = position, quaternion, _OPEN
    _simulate(model, worlds, SETTLING_STEPS)
    settled = placed = _view(scene, worlds)
    if task.settling_steps > SETTLING_STEPS:
        _simulate(model, worlds, task.settling_steps - SETTLING_STEPS)
        placed = _view(scene, worlds)
    placement = task.place(vectors, settled)
    if placement is not None:
        for row, world in enumerate(worlds):
            for part, edits in ((world.qpos, placement.qpos), (world.qvel, placement.qvel)):
                for index, values in edits.items():
                    part[index : index + values.shape[1]] = values[row]
            if placement.seen:
                mujoco.mj_forward(model, world)
        placed = _view(scene, worlds)
    qvel, warmstart = (
        torch.from_numpy(np.stack([getattr(world, name) for world in worlds])) for name in ("qvel", "qacc_warmstart")
    )
    start = task.start(vectors, settled, placed)
    return EpisodeStart(placed.qpos, qvel, warmstart, mocap_pos, mocap_quat, task.observe(placed), start)


def _simulate(model: mujoco.MjModel, worlds: list[mujoco.MjData], steps: int) -> None:
    with ThreadPoolExecutor(num_cpus()) as threads:
        list(threads.map(lambda world: mujoco.mj_step(model, world, steps * FRAMES), worlds))


def _view(scene: TaskScene, worlds: list[mujoco.MjData]) -> View:
    readings = np.stack([world.sensordata for world in worlds])
    return View(scene.layout, torch.from_numpy(readings), torch.from_numpy(np.stack([world.qpos for world in worlds])))


def join_starts(starts: Sequence[EpisodeStart]) -> EpisodeStart:
    """Starts of tasks of one definition, concatenated."""
    memories = [start.memory for start in starts]
    points = {name: torch.cat([getattr(memory, name) for memory in memories]) for name in ("target", "object", "tcp")}
    extra = {name: torch.cat([memory.extra[name] for memory in memories]) for name in memories[0].extra}
    parts = {name: torch.cat([getattr(start, name) for start in starts]) for name in TENSORS}
    return EpisodeStart(**parts, memory=Start(**points, extra=extra))
