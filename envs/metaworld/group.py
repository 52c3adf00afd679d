"""The worlds of one scene within a batch: stepped together, scored task by task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from metarl.envs.metaworld.definition import Start, TaskDefinition
from metarl.envs.metaworld.episode_starts import FRAMES, TENSORS, EpisodeStart
from metarl.envs.metaworld.recording import Recording
from metarl.envs.metaworld.scenes import task_scene
from metarl.envs.metaworld.views import View
from metarl.envs.physics import make_physics
from metarl.envs.physics.camera import Camera

OUTCOMES = (
    "reward",
    "success",
    "near_object",
    "grasp_success",
    "grasp_reward",
    "in_place_reward",
    "obj_to_target",
)
HAND_STEP = 0.01
"""Metres that an action of 1 moves the commanded hand."""


class _Scores(NamedTuple):
    """What a step of `w` worlds is worth."""

    outcomes: Float[Tensor, "w 7"]
    """Columns as `OUTCOMES` names them."""
    observed: Float[Tensor, "w 18"]
    memory: Mapping[str, Float[Tensor, "w ..."]]
    """New values for entries of the memory."""


@dataclass
class _TaskWorlds:
    """Neighbouring worlds of one task definition."""

    task: TaskDefinition
    worlds: slice
    memory: Start
    """Changed in place."""
    score: Callable[[], _Scores]


class SceneGroup:
    """`W` worlds of one scene, which may run different tasks of it.

    >>> group = SceneGroup("sawyer_reach_v3.xml", 40, backend="mujoco", device=torch.device("cpu"))
    >>> group.set_tasks([(definition("reach-v3"), starts)], torch.arange(40), "v2")
    >>> group.simulate(action)
    >>> outcomes, observed = group.score()
    """

    rows: Int[Tensor, "W"]
    """Which row of the batch each world is."""
    first_observation: Float[Tensor, "W 18"]
    """Hand, gripper and objects at the start of an episode."""

    def __init__(self, file: str, num_worlds: int, *, backend: str, device: torch.device, **options: Any):
        self.scene = task_scene(file)
        self.physics = make_physics(
            self.scene.scene, num_worlds, backend=backend, device=device, frames=FRAMES, **options
        )
        self._all_worlds = torch.ones(num_worlds, dtype=torch.bool, device=device)
        self._starting = self._all_worlds.clone()
        self._action = self.physics.qpos.new_zeros(num_worlds, 4)
        self._recorded = backend == "mujoco"
        self._camera: Camera | None = None

    def set_tasks(
        self, members: Sequence[tuple[TaskDefinition, EpisodeStart]], rows: Int[Tensor, "W"], version: str
    ) -> None:
        """Puts every world at the start of its task; `members` fill the worlds one after the other."""
        like = self.physics.qpos
        self.rows = rows.to(like.device)
        self._version = version
        self._qpos, self._qvel, self._mocap_start, mocap_quat, self.first_observation = (
            torch.cat([getattr(start, name) for _, start in members]).to(like) for name in TENSORS
        )
        self._hand_low, self._hand_high = (
            torch.cat([like.new_tensor(getattr(task, name)).expand(len(own.qpos), 3) for task, own in members])
            for name in ("hand_low", "hand_high")
        )
        self._mocap_pos = self._mocap_start.clone()
        self.physics.set_state({"mocap_pos": self._mocap_pos.flatten(1), "mocap_quat": mocap_quat.flatten(1)})
        self._prepare(members)
        self.restart(self._all_worlds)

    def _prepare(self, members: Sequence[tuple[TaskDefinition, EpisodeStart]]) -> None:
        """Makes ready what a step computes beside the physics. On CPU threads this is recorded once."""
        like = self.physics.qpos
        self._command: Callable[[], tuple[Tensor, Tensor]] = self._commanded
        if self._recorded:
            self._command = Recording(self._commanded, [self._action, self._mocap_pos])
        self._parts, first = [], 0
        for task, own in members:
            worlds = slice(first, first := first + len(own.qpos))
            memory = own.memory.map(lambda value: value.to(like, copy=True))
            score: Callable[[], _Scores] = partial(self._scored, task, worlds, memory)
            if self._recorded:
                readings = [self.physics.sensordata, self.physics.qpos]
                score = Recording(score, [*readings, self._action, self._starting, *memory.extra.values()])
            self._parts.append(_TaskWorlds(task, worlds, memory, score))

    @property
    def targets(self) -> Float[Tensor, "W 3"]:
        """Each world's goal (m)."""
        return torch.cat([part.memory.target for part in self._parts])

    @property
    def goals(self) -> Float[Tensor, "W 3"]:
        """The target as it is observed, within the bounds that the task names."""
        goals = [
            part.memory.target.clamp(
                part.memory.target.new_tensor(part.task.goal_low), part.memory.target.new_tensor(part.task.goal_high)
            )
            for part in self._parts
        ]
        return torch.cat(goals)

    @torch.no_grad()
    def simulate(self, action: Float[Tensor, "W 4"]) -> None:
        """Moves the commanded hand and simulates."""
        self._action.copy_(action)
        control, hand = self._command()
        self._mocap_pos[:, self.scene.hand_mocap] = hand
        self.physics.step(control, self._mocap_pos)

    @torch.no_grad()
    def score(self) -> tuple[Float[Tensor, "W 7"], Float[Tensor, "W 18"]]:
        """`OUTCOMES` and the observation of the state reached."""
        scores = [part.score() for part in self._parts]
        for part, (_, _, memory) in zip(self._parts, scores, strict=True):
            for name, value in memory.items():
                part.memory.extra[name].copy_(value)
        self._starting.zero_()
        return torch.cat([score.outcomes for score in scores]), torch.cat([score.observed for score in scores])

    def _commanded(self) -> tuple[Float[Tensor, "W 2"], Float[Tensor, "W 3"]]:
        """What the action makes of the fingers' controls and of the commanded hand."""
        hand, effort = self._mocap_pos[:, self.scene.hand_mocap], self._action[:, 3]
        moved = hand + HAND_STEP * self._action[:, :3].clamp(-1, 1)
        return torch.stack([effort, -effort], 1), moved.clamp(self._hand_low, self._hand_high)

    def _scored(self, task: TaskDefinition, worlds: slice, memory: Start) -> _Scores:
        """What the state reached is worth in `task`."""
        view = View(self.scene.layout, self.physics.sensordata[worlds], self.physics.qpos[worlds])
        new = task.remember(view, memory, self._starting[worlds])
        if new:
            memory = replace(memory, extra={**memory.extra, **new})
        evaluate = task.evaluate if self._version == "v2" else task.evaluate_v1
        outcome = evaluate(view, memory, self._action[worlds])
        outcomes = torch.stack([getattr(outcome, name) for name in OUTCOMES], 1)  # marks become 0 and 1
        return _Scores(outcomes, task.observe(view), new)

    def restart(self, worlds: Bool[Tensor, "W"]) -> None:
        """Puts the chosen worlds back to the start of their task."""
        self.physics.reset(worlds, self._qpos, self._qvel)
        self._mocap_pos.copy_(torch.where(worlds[:, None, None], self._mocap_start, self._mocap_pos))
        self._starting |= worlds

    def get_state(self) -> dict[str, Tensor]:
        """The engine's state, what rewards remember (`memory`) and which worlds are at a start; each `[W, ...]`."""
        memory = [_numbers(part.memory) for part in self._parts]
        width = max(numbers.shape[1] for numbers in memory)
        padded = [torch.nn.functional.pad(numbers, (0, width - numbers.shape[1])) for numbers in memory]
        # The engine itself gets the commanded hand with the next step.
        more = {"mocap_pos": self._mocap_pos.flatten(1).clone(), "memory": torch.cat(padded)}
        return self.physics.get_state() | more | {"starting": self._starting[:, None].to(self._mocap_pos)}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `get_state` returned; columns beyond this scene's own are ignored."""
        own = self.physics.get_state()
        self.physics.set_state({name: state[name][:, : own[name].shape[1]] for name in own.keys() & state.keys()})
        if "mocap_pos" in state:
            self._mocap_pos.copy_(self.physics.get_state()["mocap_pos"].view_as(self._mocap_pos))
        if "starting" in state:
            self._starting.copy_(state["starting"][:, 0])
        if "memory" in state:
            for part in self._parts:
                _put_numbers(part.memory, state["memory"][part.worlds])

    def pictures(self) -> list[UInt8[np.ndarray, "size size 3"]]:
        """A picture of each world from the package's camera `corner`, which is mounted upside down.

        A green ball marks the goal, the same for all tasks. The package's own markers are left out: some show a point
        that is not the task's.
        """
        if self._camera is None:
            self._camera = Camera(self.scene.scene, view="corner", sites=False)
        taken = self._camera.take(self.physics.get_state(), marks=self.targets)
        return [picture[::-1, ::-1].copy() for picture in taken]

    def close(self) -> None:
        """Stops the engine and the camera; the group is of no use afterwards."""
        self.physics.close()
        if self._camera is not None:
            self._camera.close()


def _numbers(memory: Start) -> Float[Tensor, "w K"]:
    rows = [value.flatten(1) if value.ndim > 1 else value[:, None] for _, value in sorted(memory.extra.items())]
    return torch.cat([memory.tcp[:, :0], *rows], 1)


def _put_numbers(memory: Start, numbers: Float[Tensor, "w K"]) -> None:
    first = 0
    for _, value in sorted(memory.extra.items()):
        size = value[0].numel()
        value.copy_(numbers[:, first : first + size].reshape(value.shape))
        first += size
