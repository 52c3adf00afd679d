"""What the checks share: the distribution under examination, its environments, and a recorded run."""

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.actions import ActionFormat
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.randomness import make_generator
from metarl.spaces import Observations
from metarl.tasks import Tasks
from metarl.vector_env import StepResult, TaskVectorEnv

REPLAYED_STEPS = 25
"""Steps that are repeated for comparison: few, because environments can be slow."""

Check = Callable[["Examination"], Iterator[str]]
Arrays = dict[str, Tensor]


@dataclass
class Recording:
    """The results of a run of the environments."""

    observations: Observations
    """The observations of the reset."""
    actions: list[Tensor]
    steps: list[StepResult]
    """A copy of each step's result, made directly after the step."""
    originals: list[StepResult]
    """The original results."""
    saved_at: int
    """The step before which `state` was saved."""
    state: dict[str, Tensor] | None
    """None if the environment does not offer its state."""


@dataclass
class Examination:
    """One distribution under examination. Its environments and the recording are made once, on first use."""

    distribution: TaskDistribution
    backend: str
    num_tasks: int
    envs_per_task: int
    seed: int
    failures: list[str] = field(default_factory=list)
    crash: Exception | None = None
    opened: list[TaskVectorEnv] = field(default_factory=list)
    repeats: bool = True
    """False once the same run has been found to differ from itself."""

    def apply(self, checks: Iterable[Check]) -> None:
        """Runs each of `checks` and collects the faults that it finds."""
        for check in checks:
            if not self.repeats:
                return
            self.attempt(check.__name__.replace("_", " "), partial(self._gather, check))

    def _gather(self, check: Check) -> None:
        self.failures.extend(check(self))

    def attempt(self, what: str, action: Callable[[], object]) -> bool:
        """Runs `action`; if it crashes, records the crash of `what` and returns False."""
        try:
            action()
        except Exception as error:
            self.crash = self.crash or error
            self.failures.append(f"{what}: expected no crash, found {in_a_line(error)}")
            return False
        return True

    def make(self, num_tasks: int, envs_per_task: int) -> TaskVectorEnv:
        env = self.distribution.make_env(num_tasks, envs_per_task, backend=self.backend, device="cpu", seed=self.seed)
        self.opened.append(env)
        return env

    def close(self) -> None:
        for env in self.opened:
            with contextlib.suppress(Exception):
                env.close()

    @property
    def num_envs(self) -> int:
        return self.num_tasks * self.envs_per_task

    @cached_property
    def env(self) -> TaskVectorEnv:
        return self.make(self.num_tasks, self.envs_per_task)

    @cached_property
    def tasks(self) -> Tasks:
        return self.distribution.sample(self.num_tasks, split="train", seed=self.seed)

    @cached_property
    def earlier_tasks(self) -> Tasks:
        """The tasks that the environments run before they get `tasks`."""
        return self.distribution.sample(self.num_tasks, split="test", seed=self.seed)

    @cached_property
    def recording(self) -> Recording:
        """A run of a little more than one episode (two, if they are short)."""
        env, horizon = self.env, self.distribution.horizon
        actions = self.random_actions(horizon + min(horizon + 1, REPLAYED_STEPS), self.seed)
        env.set_tasks(self.earlier_tasks)
        env.reset(seed=self.seed + 1)
        env.step(actions[0])
        env.set_tasks(self.tasks)
        observations, _ = env.reset(seed=self.seed)
        steps, originals, state, saved_at = [], [], None, max(0, horizon - 5)
        for t, action in enumerate(actions):
            if t == saved_at:
                with contextlib.suppress(UsageError):
                    state = env.get_state()
            originals.append(env.step(action))
            steps.append(_copy(originals[-1]))
        return Recording(_copy(observations), actions, steps, originals, saved_at, state)

    @property
    def recorded(self) -> list[Arrays]:
        """The first steps of the recording, which `replay` repeats."""
        return [arrays(step) for step in self.recording.steps[:REPLAYED_STEPS]]

    def replay(self, actions: list[Tensor] | None = None) -> list[Arrays]:
        """Resets the environments with the recording's seed and takes `actions` (default: the first recorded ones)."""
        self.env.reset(seed=self.seed)
        return self.take(self.recording.actions[:REPLAYED_STEPS] if actions is None else actions)

    def take(self, actions: list[Tensor], env: TaskVectorEnv | None = None) -> list[Arrays]:
        return [arrays(_copy((env or self.env).step(action))) for action in actions]

    @cached_property
    def action_format(self) -> ActionFormat:
        return ActionFormat(self.distribution.action_space)

    def random_actions(self, count: int, *key: int) -> list[Tensor]:
        """`count` batches of actions, uniform over the action space."""
        generator = make_generator("contract", *key)
        return [self.action_format.draw((self.num_envs,), generator) for _ in range(count)]


def arrays(step: StepResult) -> Arrays:
    """The tensors of a step by name; anything else is omitted."""
    observations, rewards, terminated, truncated, info = step
    values: dict[str, Any] = {"rewards": rewards, "terminated": terminated, "truncated": truncated}
    values |= parts("observations", observations) | parts("final_obs", info.get("final_obs"))
    values |= {name: info.get(name) for name in ("_final_obs", "success", "dense_reward")}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def parts(name: str, observations: Any) -> dict[str, Any]:
    """The entries of a dictionary of observations by names such as `observations['camera']`; else the observations."""
    if isinstance(observations, dict):
        return {f"{name}[{entry!r}]": value for entry, value in observations.items()}
    return {name: observations}


def difference(expected: list[Arrays], found: list[Arrays], tolerance: float = 0.0) -> str | None:
    """The first difference between `found` and `expected`, in words; None if there is none."""
    for t, (one, other) in enumerate(zip(expected, found, strict=True)):
        for name in sorted(one.keys() & other.keys()):
            a, b = one[name].double(), other[name].double()
            if a.shape != b.shape:
                return f"{name} of shape {list(b.shape)} instead of {list(a.shape)} at step {t}"
            if not torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True):
                return f"{name} that differ by {float((a - b).abs().max()):.2g} at step {t}"
    return None


def refusal(action: Callable[[], object]) -> str | None:
    """None if `action` raises `UsageError`, else what it does instead."""
    try:
        action()
    except UsageError:
        return None
    except Exception as error:
        return in_a_line(error)
    return "no error"


def global_random_states() -> dict[str, Any]:
    numpy_state = np.random.get_state(legacy=True)  # noqa: NPY002 - it is this state that must not change
    return {
        "torch": torch.get_rng_state().tolist(),
        "NumPy": [np.asarray(part).tolist() for part in numpy_state],
        "Python": random.getstate(),
    }


def in_a_line(error: Exception) -> str:
    """The error with its first note, which says where an environment of others raised it."""
    note = next((f" ({note.splitlines()[0]})" for note in getattr(error, "__notes__", ())), "")
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0] + note


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, dict):
        return {key: _copy(entry) for key, entry in value.items()}
    return tuple(map(_copy, value)) if isinstance(value, tuple) else value
