"""The base of environments with simulated physics: clock, faults, autoreset, state and pictures."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from metarl.envs.capture import Capture, capture_with_warp
from metarl.envs.captured_env import CapturedEnv
from metarl.envs.physics.engine import Physics
from metarl.envs.physics.selection import Selection
from metarl.envs.physics.world import World
from metarl.errors import UsageError
from metarl.faults import find_faults
from metarl.vector_env import StepResult, TaskFamily, end_by_fault, step_info


@dataclass(frozen=True)
class RawStep:
    """What a family makes of one simulated step. Rows whose simulation broke down may hold anything.

    >>> RawStep(observations, reward, terminated=~healthy, fault=physics.faults.clone())
    """

    observations: Float[Tensor, "B D"]
    """Of the states that the step reached."""
    reward: Float[Tensor, "B"]
    terminated: Bool[Tensor, "B"]
    fault: Bool[Tensor, "B"]
    """Whether the simulation broke down."""
    info: Mapping[str, Tensor] = field(default_factory=dict)
    """Further entries of the step's `info`, each `[B]`."""


class PhysicsEnv(CapturedEnv):
    """`B` environments on one or several physics engines.

    A subclass says how an episode starts (`_start_episodes`), and what a step reads and what it is worth (`_advance`).
    It also names its `engines` and opens its own part of the state (`_read_state`, `_write_state`). This class does
    the rest:

    - Clock: an episode is truncated after `horizon` steps.
    - Faults: `info["fault"]` `[B]` marks environments whose simulation broke down in this step (numbers that are not
      finite, no room for contacts), or whose reward or observation is not finite. Their episode ends there, truncated,
      with reward 0, the observation before as its last one, and 0 for everything else in `info`.
    - Autoreset: SAME_STEP, as the contract wants it.
    - State: `get_state` and `set_state`.
    - Pictures: `render`, from what `_pictures` draws.

    Nothing in `step` waits for a GPU: masks do what depends on a tensor's value. Subclasses have to keep to that. On a
    GPU, a whole step is one graph (`CapturedEnv`): engines, observation, reward and resets.

    >>> class Hovering(PhysicsEnv):
    ...     def _advance(self, actions):
    ...         self.physics.step(actions)
    ...         height = self.physics.qpos[:, 2]
    ...         return RawStep(self.physics.qpos.float(), -height.abs(), height < 0, self.physics.faults.clone())
    """

    outside_steps = CapturedEnv.outside_steps | {"_camera"}
    exact_steps = False  # the engine adds up contacts in any order
    uncompared = frozenset({"_warmstart"})  # where the solver starts its search for one and the same solution

    def __init__(
        self,
        distribution: TaskFamily,
        num_tasks: int,
        envs_per_task: int,
        *,
        backend: str,
        device: torch.device,
        render_mode: str | None = None,
    ):
        super().__init__(
            distribution, num_tasks, envs_per_task, backend=backend, device=device, render_mode=render_mode
        )
        self._elapsed_steps = torch.zeros(self.num_envs, dtype=torch.int64, device=device)
        self._all_envs = torch.ones(self.num_envs, dtype=torch.bool, device=device)
        self._observations = torch.zeros(self.num_envs, *self.single_observation_space.shape, device=device)

    @property
    def capture(self) -> Capture:
        return capture_with_warp

    @property
    @abc.abstractmethod
    def engines(self) -> Sequence[Physics]:
        """What steps the present tasks; at least one once there are tasks."""

    @abc.abstractmethod
    def _advance(self, actions: Float[Tensor, "B A"]) -> RawStep:
        """Simulates one step in every environment, then observes and rewards the states reached.

        `actions` have passed the contract's checks but may exceed the bounds of the action space.
        """

    @abc.abstractmethod
    def _start_episodes(self, chosen: Selection) -> Float[Tensor, "R D"]:
        """Puts the chosen environments, and no others, at the start of an episode; returns what is observed there."""

    @abc.abstractmethod
    def _read_state(self) -> dict[str, Tensor]:
        """Copies of all that a step depends on except the clock, each `[B, ...]`."""

    @abc.abstractmethod
    def _write_state(self, state: Mapping[str, Tensor]) -> Float[Tensor, "B D"]:
        """Restores what `_read_state` returned; names that are missing keep their values. Returns what is observed."""

    def _pictures(self) -> Sequence[UInt8[np.ndarray, "H W 3"]]:
        """An RGB picture of each environment."""
        raise UsageError(f"{self.distribution.id} under backend {self.backend!r} cannot be rendered")

    def world(self, index: int) -> World:
        """Environment `index` as a scene, for viewers; raises `UsageError` if the family has none to show."""
        raise UsageError(f"{self.distribution.id} under backend {self.backend!r} has no scene to show")

    def get_state(self) -> dict[str, Tensor]:
        """Each `[B, ...]`: the engines' state (`qpos`, `qvel`, …), the family's own, and `elapsed_steps`."""
        return self._read_state() | {"elapsed_steps": self._elapsed_steps.clone()}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `get_state` returned under the same tasks; names that are missing keep their values.

        Raises `UsageError` if there are no tasks yet and for a wrong number of rows.
        """
        _ = self.tasks  # raises if there are none
        wrong = [name for name, value in state.items() if value.shape[:1] != (self.num_envs,)]
        if wrong:
            raise UsageError(
                f"this is not the state of {self.num_envs} environments of {self.distribution.id}: "
                f"{wrong[0]!r} has shape {list(state[wrong[0]].shape)}"
            )
        self._observations = self._write_state(state)
        if "elapsed_steps" in state:
            self._elapsed_steps = state["elapsed_steps"].to(self.device).clone()
        self._started = True

    def render(self) -> tuple[Any, ...] | None:
        return super().render() if self.render_mode is None else tuple(self._pictures())

    @torch.no_grad()
    def _reset(self, seed: int | None) -> tuple[Tensor, dict[str, Any]]:
        with self.engines[0].cores_reserved():
            self._observations = self._start_next(self._all_envs, self._observations)
        return self._observations, {}

    @torch.no_grad()
    def _step(self, actions: Tensor) -> StepResult:
        with self.engines[0].cores_reserved():
            step = self._advance(actions)
            # Whatever a broken simulation says is replaced by what was known before it broke.
            reward = step.reward.float()
            bad = find_faults(reward, step.observations)
            fault = step.fault if bad is None else step.fault | bad
            info = {name: value.masked_fill(fault, 0) for name, value in step.info.items()}
            self._elapsed_steps = self._elapsed_steps + 1
            out_of_time = self._elapsed_steps >= self.distribution.horizon
            final_obs, reward, terminated, truncated = end_by_fault(
                fault, self._observations, step.observations, reward, step.terminated, out_of_time
            )
            assert isinstance(final_obs, Tensor)
            ended = terminated | truncated
            self._observations = self._start_next(ended, final_obs)
            return self._observations, reward, terminated, truncated, step_info(final_obs, ended, fault=fault, **info)

    def _start_next(self, ended: Bool[Tensor, "B"], observations: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Starts the next episode if one has ended; returns `observations` with the first ones of new episodes."""
        chosen = Selection(ended)
        if chosen.is_empty:
            return observations
        self._elapsed_steps = self._elapsed_steps.masked_fill(ended, 0)
        first = self._start_episodes(chosen)
        observations = observations.clone()
        chosen.put(observations, first)
        return observations
