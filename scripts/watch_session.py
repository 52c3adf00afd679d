"""What `metarl watch` plays: an agent, one environment and its task, without a page."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from metarl.agent import Agent
from metarl.distribution import TaskDistribution
from metarl.envs.metaworld.family import MetaWorld, random_space
from metarl.envs.physics import PhysicsEnv
from metarl.errors import UsageError
from metarl.randomness import derive_seed
from metarl.rollout import Policy, PolicyStep, Transition, collect
from metarl.rollout.policy import PolicyWrapper
from metarl.spaces import Observations
from metarl.task_spaces import Choice, bounds
from metarl.tasks import Tasks


class Interrupted(Exception):
    """Raised by what shows an episode, to end it before its time."""


@dataclass(frozen=True)
class Moment:
    """The state before a step of the running episode, and what has happened so far."""

    step: int
    episode_return: float


@dataclass(frozen=True)
class Outcome:
    """How an episode ended."""

    steps: int
    episode_return: float
    success: bool | None
    """None if the family defines no success."""


@dataclass(frozen=True)
class Knob:
    """One number of the task that can be turned between bounds, or one choice from a list."""

    parameter: str
    index: tuple[int, ...]
    """Which number of the parameter; () for a single one."""
    value: Any
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def label(self) -> str:
        return self.parameter + "".join(f"[{i}]" for i in self.index)


class WatchSession:
    """Plays episodes of one task with an agent as it is adapted so far.

    Playing teaches the agent nothing: every episode runs a fork. `adapt` spends episodes of the task on learning about
    it, `reset` forgets them, and so does another task.

    >>> session = WatchSession(agent, family, family.sample(1, split="test", seed=0))
    >>> session.turn("goal", (0,), 0.3)
    >>> session.adapt(20)
    >>> session.play(print).episode_return
    """

    def __init__(self, agent: Agent, family: TaskDistribution, task: Tasks, *, backend: str = "auto", seed: int = 0):
        """Raises `UsageError` if the family cannot be shown, or not here."""
        self.agent, self.family, self.seed = agent, family, seed
        self.env = family.make_env(1, 1, backend=backend, device=agent.device, seed=seed, render_mode="rgb_array")
        self._draws = 0
        self.policy: Policy | None = None
        """The adapted policy; None before any adaptation."""
        self.episodes_used = 0
        """Episodes that it has learned from."""
        self.episodes_played = 0
        try:
            self.set_task(task)
            self.env.reset(seed=seed)
            self.has_scene = self._finds_scene()
            if not self.has_scene:
                self.env.render()
        except BaseException:
            self.env.close()
            raise

    @property
    def values(self) -> dict[str, Any]:
        """The task's parameters, as `TaskDistribution.task` takes them."""
        return self.family.task_values(self.env.tasks)[0]

    def set_task(self, task: Tasks) -> None:
        """Another task, of which the agent knows nothing yet. Raises `UsageError` for one outside the family."""
        self.env.set_tasks(task)
        self.reset()

    def draw_task(self) -> None:
        """The next random task of the test split."""
        self._draws += 1
        self.set_task(self.family.sample(1, split="test", seed=derive_seed("watch task", self.seed, self._draws)))

    def turn(self, parameter: str, index: tuple[int, ...], value: Any) -> None:
        """Sets one number, or the choice, of the task; raises `UsageError` for a value outside the range."""
        values = self.values
        if index:
            array = np.array(values[parameter], dtype=np.asarray(values[parameter]).dtype)
            array[index] = value
            value = array.tolist()
        if parameter == "task_index" and isinstance(self.family, MetaWorld):
            values["rand_vec"] = np.mean(random_space(self.family.names[int(value)]), axis=0).tolist()
        self.set_task(self.family.task(**{**values, parameter: value}))

    def knobs(self) -> list[Knob]:
        """What can be turned. Parameters with one possible value or without bounds have no knob."""
        values = self.values
        return [knob for name in self.family.task_space for knob in self._knobs_of(name, values[name])]

    def adapt(self, episodes: int) -> None:
        """Learns about the task from `episodes` more of its episodes."""
        seed = derive_seed("watch", self.seed, "adapt", self.episodes_used)
        self.policy = self.agent.adapt(self.env, episodes, seed=seed, policy=self.policy)
        self.episodes_used += episodes

    def reset(self) -> None:
        """Forgets what the agent has learned about the task."""
        self.policy = None
        self.episodes_used = 0
        self.episodes_played = 0

    def play(self, show: Callable[[Moment], None]) -> Outcome:
        """Plays an episode and calls `show` before each step. `show` may raise `Interrupted`, which goes through."""
        self.episodes_played += 1
        act, reset = (derive_seed("watch", self.seed, part, self.episodes_played) for part in ("act", "reset"))
        policy = self.agent.adapt(self.env, 0, seed=act, policy=self.policy).fork()
        trajectories = collect(self.env, _ShownPolicy(policy, show), episodes=1, seed=reset)
        success = trajectories.episode_success()
        return Outcome(
            steps=len(trajectories.rewards),
            episode_return=float(trajectories.rewards.sum()),
            success=None if success is None else bool(success[0, 0]),
        )

    def close(self) -> None:
        self.env.close()

    def _finds_scene(self) -> bool:
        """Whether the environment has a scene in space, which needs no OpenGL here."""
        if isinstance(self.env, PhysicsEnv):
            with contextlib.suppress(UsageError):
                self.env.world(0)
                return True
        return False

    def _knobs_of(self, name: str, value: Any) -> list[Knob]:
        space = self.family.task_space[name]
        if isinstance(space, Choice):
            return [Knob(name, (), value, choices=tuple(space.values))] if len(space.values) > 1 else []
        low, high = self._bounds(name, space)
        numbers = np.asarray(value)
        knobs = []
        for index in np.ndindex(numbers.shape):
            below, above = float(low[index]), float(high[index])
            if np.isfinite([below, above]).all() and below < above:
                knobs.append(Knob(name, index, numbers[index].item(), below, above, low.dtype.kind in "iub"))
        return knobs

    def _bounds(self, name: str, space: gym.Space) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of a parameter. Meta-World's task determines where things may be placed."""
        if name == "rand_vec" and isinstance(self.family, MetaWorld):
            return random_space(self.family.names[int(self.env.tasks.parameters["task_index"])])
        return bounds(space)


class _ShownPolicy(PolicyWrapper):
    """A policy whose every step is shown before it is taken."""

    def __init__(self, policy: Policy, show: Callable[[Moment], None]):
        super().__init__(policy)
        self.show = show
        self.step, self.episode_return = 0, 0.0

    def act(self, observations: Observations) -> PolicyStep:
        self.show(Moment(self.step, self.episode_return))
        return super().act(observations)

    def observe(self, transition: Transition) -> None:
        self.step += 1
        self.episode_return += float(transition.rewards)
        super().observe(transition)
