"""What the core asks of an agent: to learn from tasks, to adapt to tasks, to be saved and loaded."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import torch
from torch import Tensor

from metarl.distribution import TaskDistribution
from metarl.parallel import Ranks
from metarl.replay import ReplayBuffer
from metarl.rollout import Policy
from metarl.tasks import FreshTasks, TaskSource
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class AgentConfig:
    """Options that every agent has; a subclass adds its own beside the agent."""

    num_tasks: int = 20
    """Tasks per iteration (M)."""
    envs_per_task: int = 20
    """Environments, and so episodes at a time, per task (N)."""


@dataclass(frozen=True)
class EnvSpec:
    """What an agent may know of the environments that it will meet."""

    observation_space: gym.spaces.Box
    action_space: gym.spaces.Box | gym.spaces.Discrete
    horizon: int

    @classmethod
    def of(cls, distribution: TaskDistribution) -> "EnvSpec":
        return cls(distribution.observation_space, distribution.action_space, distribution.horizon)


class Agent(abc.ABC):
    """A meta-learner (or a baseline) on `device`, initialised from `seed`.

    All randomness of `improve` and `adapt` comes from the seed they are given, so a run that goes on from a saved
    `state` (and `buffers`) goes on exactly. `ranks` are the processes that train it together.

    >>> distribution = metarl.make("PointNavigation-v0")
    >>> agent = metarl.load_agent("runs/maml")
    >>> env = distribution.make_env(num_tasks=1, envs_per_task=20)
    >>> env.set_tasks(distribution.task(goal=[0.3, -0.2]))
    >>> policy = agent.adapt(env, episodes=20)
    """

    config_class: ClassVar[type[AgentConfig]]

    def __init__(
        self,
        config: AgentConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Ranks | None = None,
    ):
        self.config = config
        self.spec = spec
        self.device = torch.device(device)
        self.ranks = ranks or Ranks()

    @classmethod
    def default_config(cls, spec: EnvSpec) -> AgentConfig:
        """The options that suit environments like `spec` if the user names none."""
        return cls.config_class()

    def task_source(self, distribution: TaskDistribution, *, seed: int) -> TaskSource:
        """Where its training tasks come from: fresh ones of the train split in every iteration.

        An agent that keeps something for each task returns a `TaskList` instead and reads `env.tasks.ids`.
        """
        return FreshTasks(distribution.sample)

    @abc.abstractmethod
    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        """One training iteration on the tasks that `env` runs; returns its metrics.

        `env_steps` (steps taken) and `return_mean` (mean undiscounted return per episode, after adaptation) are always
        among them.
        """

    @abc.abstractmethod
    def adapt(self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None) -> Policy:
        """A policy for exactly the tasks that `env` runs, after `episodes` more whole episodes of each of them.

        Episodes have the horizon of `env`, whatever the agent was trained at. Without `policy` the agent starts from
        what it has meta-learned; `policy`, an earlier result for the same tasks and the same `env`, is adapted further
        and left as it was. The result depends on nothing that happens to the agent later; with 0 episodes it is the
        unadapted policy. To measure it without teaching it, use `policy.fork()` with `collect`.
        """

    def stages(self, episodes: int | None = None) -> list[int]:
        """Budgets of test episodes, from 0 to `episodes`, after which adaptation is worth measuring.

        `None` stands for the budget that the agent was trained for.
        """
        return [0] if episodes is None else list(range(episodes + 1))

    @abc.abstractmethod
    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """All that `improve` changes but the buffers: tensors, and values for JSON. A copy, and small."""

    @abc.abstractmethod
    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Restores what `state` returned; raises `UsageError` if it is not of this agent."""

    def buffers(self) -> Mapping[str, ReplayBuffer]:
        """The large rest of what `improve` changes, by name; the run folder keeps them by what each iteration adds."""
        return {}
