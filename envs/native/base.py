"""Environments whose dynamics are torch operations: thousands of them in one tensor, on any device."""

import abc
import functools
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from metarl.distribution import TaskDistribution
from metarl.envs.captured_env import CapturedEnv
from metarl.faults import find_faults
from metarl.randomness import EnvStreams
from metarl.spaces import Observations, map_tensors
from metarl.tasks import Tasks
from metarl.vector_env import StepResult, choose_rows, end_by_fault, step_info

State = dict[str, Tensor]


class NativeDistribution(TaskDistribution):
    """A family described by four pure functions of batched tensors; `NativeEnv` does the rest.

    A subclass says `_sample` (or `all_tasks`), `initial_state`, `transition` and `observe`. On a GPU they are captured
    as one graph (`CapturedEnv`), which repeats their tensor operations and nothing else that they do.
    docs/YOUR_OWN_ENVIRONMENT.md writes one.

    >>> metarl.check_distribution(MyFamily())
    """

    backends = ("torch",)

    @abc.abstractmethod
    def initial_state(self, streams: EnvStreams, task: Tasks) -> State:
        """The state in which an episode starts, for every environment, each entry `[B, ...]`."""

    @abc.abstractmethod
    def transition(
        self, state: State, action: Shaped[Tensor, "B ..."], streams: EnvStreams, task: Tasks
    ) -> tuple[State, Float[Tensor, "B"], Bool[Tensor, "B"]]:
        """The next state, the reward and whether the episode terminates; `task` has one row an environment."""

    @abc.abstractmethod
    def observe(self, state: State) -> Observations:
        """What an agent sees of `state`: vectors `[B, D]`, pictures `[B, H, W, C]` (uint8) or a dictionary of these."""

    def success(self, state: State, task: Tasks) -> Bool[Tensor, "B"] | None:
        """Whether `state`, just reached, is a success; None if the family defines none."""
        return None

    def dense_reward(self, state: State, task: Tasks) -> Float[Tensor, "B"] | None:
        """What training may learn from instead of a sparse reward, if `has_dense_reward`; None if not."""
        return None

    def draw(self, state: State, task: Tasks, index: int) -> Any:
        """An RGB picture of environment `index`; overridden by the families that can be drawn."""
        raise NotImplementedError

    def _make_env(
        self,
        num_tasks: int,
        envs_per_task: int,
        backend: str,
        device: torch.device,
        seed: int,
        render_mode: str | None,
    ) -> "NativeEnv":
        return NativeEnv(self, num_tasks, envs_per_task, device=device, seed=seed, render_mode=render_mode)


class NativeEnv(CapturedEnv):
    """Steps a `NativeDistribution`: counts time, resets ended environments by masks, keeps their random streams.

    >>> env = metarl.make("PointNavigation-v0").make_env(num_tasks=20, envs_per_task=10, device="cuda")
    """

    distribution: NativeDistribution

    def __init__(
        self,
        distribution: NativeDistribution,
        num_tasks: int,
        envs_per_task: int,
        *,
        device: torch.device,
        seed: int,
        render_mode: str | None = None,
    ):
        super().__init__(
            distribution, num_tasks, envs_per_task, backend="torch", device=device, render_mode=render_mode
        )
        self._streams = EnvStreams.from_seed(seed, self.num_envs, device)
        self._state: State = {}
        self._elapsed = torch.zeros(self.num_envs, dtype=torch.int64, device=device)

    def get_state(self) -> State:
        """The family's state, `elapsed_steps` and the environments' random streams, `streams`, each `[B, ...]`."""
        own = {"elapsed_steps": self._elapsed, "streams": self._streams.state}
        return {name: value.clone() for name, value in (self._state | own).items()}

    def set_state(self, state: State) -> None:
        state = {name: value.to(self.device).clone() for name, value in state.items()}
        self._elapsed = state.pop("elapsed_steps")
        self._streams.state = state.pop("streams")
        self._state = state
        self._observations = self.distribution.observe(state)
        self._started = True

    def render(self) -> tuple[Any, ...] | None:
        if self.render_mode is None or type(self.distribution).draw is NativeDistribution.draw:
            return super().render()
        return tuple(self.distribution.draw(self._state, self._env_tasks, i) for i in range(self.num_envs))

    def _set_tasks(self, tasks: Tasks) -> None:
        self._env_tasks = tasks.repeat_interleave(self.envs_per_task)

    def _reset(self, seed: int | None) -> tuple[Observations, dict[str, Any]]:
        if seed is not None:
            self._streams = EnvStreams.from_seed(seed, self.num_envs, self.device)
        self._state = self.distribution.initial_state(self._streams, self._env_tasks)
        self._elapsed = torch.zeros_like(self._elapsed)
        self._observations = self.distribution.observe(self._state)
        return self._observations, {}

    def _step(self, actions: Tensor) -> StepResult:
        family, task = self.distribution, self._env_tasks
        state, reward, terminated = family.transition(self._state, actions, self._streams, task)
        self._elapsed = self._elapsed + 1
        final_obs = family.observe(state)
        truncated = self._elapsed >= family.horizon
        success, dense_reward = family.success(state, task), family.dense_reward(state, task)
        fault = find_faults(reward if dense_reward is None else reward + dense_reward, final_obs)
        if fault is not None:
            final_obs, reward, terminated, truncated = end_by_fault(
                fault, self._observations, final_obs, reward, terminated, truncated
            )
            success = None if success is None else success & ~fault
            dense_reward = None if dense_reward is None else dense_reward.masked_fill(fault, 0.0)
        ended = terminated | truncated
        fresh = family.initial_state(self._streams, task)
        self._state = map_tensors(functools.partial(choose_rows, ended), fresh, state)
        self._elapsed = self._elapsed.masked_fill(ended, 0)
        self._observations = family.observe(self._state)
        info = step_info(final_obs, ended, fault=torch.zeros_like(ended) if fault is None else fault)
        if success is not None:
            info["success"] = success
        if dense_reward is not None:
            info["dense_reward"] = dense_reward
        return self._observations, reward, terminated, truncated, info
