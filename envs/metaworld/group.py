"""The worlds of one scene within a batch: stepped together, scored task by task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from metarl.envs.metaworld.definition import Start, TaskDefinition
from metarl.envs.metaworld.episode_starts import FRAMES, TENSORS, EpisodeStart
from metarl.envs.metaworld.scenes import task_scene
from metarl.envs.metaworld.scoring import OUTCOMES, bind_command, bind_score, scoring_inputs, scoring_results
from metarl.envs.physics import make_physics
from metarl.envs.physics.camera import Camera
from metarl.envs.physics.world import World


@dataclass
class _TaskWorlds:
    """Neighbouring worlds of one task definition."""

    task: TaskDefinition
    worlds: slice
    memory: Start
    """Changed in place."""
    score: Callable[[], object]
    """Scores the state reached (`scoring.score`)."""


@dataclass(frozen=True)
class StepArrays:
    """What the worlds of all scenes are given and what they return in a step: one array each for the whole batch.

    So the operations before and after the physics are done once, and not scene by scene.

    >>> arrays = StepArrays.zeros(200, like=group.physics.qpos)
    >>> arrays[:40].action  # [40, 4], a view
    """

    action: Float[Tensor, "W 4"]
    outcomes: Float[Tensor, "W 7"]
    """Columns as `OUTCOMES` names them."""
    observed: Float[Tensor, "W 18"]
    """Hand, gripper and objects."""

    @classmethod
    def zeros(cls, num_worlds: int, like: Tensor) -> "StepArrays":
        """For so many worlds, of the type and on the device of `like`."""
        return cls(*(like.new_zeros(num_worlds, width) for width in (4, len(OUTCOMES), 18)))

    def __getitem__(self, worlds: slice) -> "StepArrays":
        return StepArrays(self.action[worlds], self.outcomes[worlds], self.observed[worlds])


class SceneGroup:
    """`W` worlds of one scene, which may run different tasks of it.

    >>> group = SceneGroup("sawyer_reach_v3.xml", 40, backend="mujoco", device=torch.device("cpu"))
    >>> arrays = StepArrays.zeros(40, like=group.physics.qpos)
    >>> group.set_tasks([(definition("reach-v3"), starts)], torch.arange(40), arrays, "v2")
    >>> arrays.action.copy_(action)
    >>> group.command()
    >>> group.simulate()
    >>> group.score()
    >>> arrays.outcomes  # [40, 7]
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
        self._any_starting = True
        self._control = self.physics.qpos.new_zeros(num_worlds, 2)
        self._compiled = backend == "mujoco"
        self._camera: Camera | None = None

    def set_tasks(
        self,
        members: Sequence[tuple[TaskDefinition, EpisodeStart]],
        rows: Int[Tensor, "W"],
        arrays: StepArrays,
        version: str,
    ) -> None:
        """Puts every world at the start of its task; `members` fill the worlds one after the other.

        From now on, actions are read from `arrays`, and scores and observations are written there.
        """
        like = self.physics.qpos
        self.rows = rows.to(like.device)
        self._qpos, self._qvel, self._warmstart, self._mocap_start, mocap_quat, self.first_observation = (
            torch.cat([getattr(start, name) for _, start in members]).to(like) for name in TENSORS
        )
        self._hand_low, self._hand_high = (
            torch.cat([like.new_tensor(getattr(task, name)).expand(len(own.qpos), 3) for task, own in members])
            for name in ("hand_low", "hand_high")
        )
        self._mocap_pos = self._mocap_start.clone()
        self.physics.set_state({"mocap_pos": self._mocap_pos.flatten(1), "mocap_quat": mocap_quat.flatten(1)})
        self._prepare(members, arrays, version)
        self.restart(self._all_worlds)

    def _prepare(
        self, members: Sequence[tuple[TaskDefinition, EpisodeStart]], arrays: StepArrays, version: str
    ) -> None:
        """Makes ready what a step computes beside the physics: on CPU threads it is compiled."""
        hand = self._mocap_pos[:, self.scene.hand_mocap]
        inputs = {"action": arrays.action, "hand": hand, "low": self._hand_low, "high": self._hand_high}
        results = {"hand": hand, "control": self._control}
        self._command = bind_command(inputs, results, compiled=self._compiled)
        self._parts, first = [], 0
        for task, own in members:
            worlds = slice(first, first := first + len(own.qpos))
            memory = own.memory.map(lambda value: value.to(arrays.action, copy=True).contiguous())
            part = arrays[worlds]
            inputs = scoring_inputs(
                self.physics.sensordata[worlds], self.physics.qpos[worlds], part.action, self._starting[worlds], memory
            )
            results = scoring_results(part.outcomes, part.observed, memory)
            score = bind_score(task, version, inputs, results, compiled=self._compiled)
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

    def command(self) -> None:
        """Moves the commanded hand as the actions say."""
        self._command()

    def simulate(self) -> None:
        """One step of the physics."""
        self.physics.step(self._control, self._mocap_pos)

    def score(self) -> None:
        """Scores and observes the state reached."""
        for part in self._parts:
            part.score()
        if self._any_starting:
            self._starting.zero_()
            self._any_starting = False

    def restart(self, worlds: Bool[Tensor, "W"]) -> None:
        """Puts the chosen worlds back to the start of their task."""
        self.physics.reset(worlds, self._qpos, self._qvel, self._warmstart)
        self._mocap_pos.copy_(torch.where(worlds[:, None, None], self._mocap_start, self._mocap_pos))
        self._starting |= worlds
        self._any_starting = True

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
            self._any_starting = True
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

    def world(self, index: int) -> World:
        """World `index` as a scene."""
        return World.of(self.scene.scene, self.physics.get_state(), index, self.targets)

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
