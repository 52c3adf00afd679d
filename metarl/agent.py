"""The interface of an agent: it learns from tasks, adapts to tasks, and can be saved and loaded."""

import abc
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from types import MappingProxyType
from typing import Any, ClassVar

import gymnasium as gym
import torch
from torch import Tensor

from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.parallel import Ranks
from metarl.replay import ReplayBuffer
from metarl.rollout import Policy
from metarl.spaces import same_spaces
from metarl.tasks import FreshTasks, TaskSource, check_count
from metarl.vector_env import TaskFamily, TaskVectorEnv

LOSS_ALARMS = MappingProxyType(dict.fromkeys(("loss", "policy_loss", "value_loss"), math.inf))
"""Losses have to be finite."""
POLICY_ALARMS = MappingProxyType({**LOSS_ALARMS, "kl": 5.0})
"""The same for agents whose metric `kl` is that of the policies before and after an update, in nats a step.

Updates of PPO and TRPO keep it at some hundredths; at 5, the old policy's actions are e⁵ times less likely."""


@dataclass(frozen=True)
class AgentConfig:
    """Options of every agent. An agent's own options are the fields of a subclass, defined next to the agent.

    >>> metarl.AgentConfig(num_tasks=40).envs_per_task
    20
    """

    num_tasks: int = 20
    """Tasks per iteration (M)."""
    envs_per_task: int = 20
    """Environments per task (N). Each runs one episode at a time."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for options out of their range. A subclass checks its own and calls this."""
        for name in ("num_tasks", "envs_per_task"):
            check_count(name, getattr(self, name))

    @property
    def default_iterations(self) -> int:
        """Iterations of a training that is given no bound; 1 for an agent that training does not change."""
        return 500

    def check_beginning(self, spec: "EnvSpec", *, steps: int | None = None) -> None:
        """Raises `UsageError` for options that a training on `spec` up to `steps` would ignore.

        Called when a run begins, and not when one is read: what has been ignored has done no harm.
        """
        if not _has_box(spec.action_space):
            self._refuse_unless_usual(f"is for actions in a Box, not in {spec.action_space}", "initial_std")

    def _refuse_unless_usual(self, why: str, *names: str) -> None:
        """Raises `UsageError` if one of the options, if there are such, has not its usual value: `name` `why`."""
        for option in fields(self):
            value, usual = getattr(self, option.name), _usual(option)
            if option.name in names and value != usual:
                raise UsageError(f"{option.name} {why}: leave it at {usual!r} instead of {value!r}")


@dataclass(frozen=True)
class EnvSpec:
    """What an agent knows about its environments before it meets them: spaces, horizon and parameters of tasks.

    >>> metarl.EnvSpec.of(metarl.make("PointNavigation-v0", horizon=5)).horizon
    5
    """

    observation_space: gym.Space
    action_space: gym.Space
    horizon: int
    task_space: Mapping[str, gym.Space] = field(default_factory=dict)
    """Name and space of each parameter of a task, for agents that are shown them."""
    has_dense_reward: bool = False
    """Whether there are dense rewards to train on in place of sparse ones."""

    @classmethod
    def of(cls, distribution: TaskDistribution) -> "EnvSpec":
        spaces = distribution.observation_space, distribution.action_space
        return cls(*spaces, distribution.horizon, dict(distribution.task_space), distribution.has_dense_reward)

    def check(self, family: TaskFamily) -> None:
        """Raises `UsageError` unless observations and actions of `family` are of this form, whatever their bounds."""
        for kind in ("observation", "action"):
            mine, theirs = (getattr(owner, f"{kind}_space") for owner in (self, family))
            if not same_spaces(mine, theirs):
                raise UsageError(f"{family.id} has the {kind} space {theirs}, the agent was trained for {mine}")


def _usual(option: Field) -> Any:
    """The value of an option that nobody gives."""
    return option.default if option.default_factory is MISSING else option.default_factory()


def _has_box(space: gym.Space) -> bool:
    return any(isinstance(part, gym.spaces.Box) for part in getattr(space, "spaces", (space,)))


class Agent(abc.ABC):
    """A meta-learner (or a baseline) on `device`, initialised from `seed`.

    All randomness of `improve` and `adapt` comes from the seed they are given, so a run resumed from a saved `state`
    (and `buffers`) continues exactly. `ranks` are the processes that train the agent together.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> agent = metarl.load_agent(metarl.train(config, progress=False))
    >>> distribution = metarl.make("PointNavigation-v0")
    >>> env = distribution.make_env(num_tasks=1, envs_per_task=20)
    >>> env.set_tasks(distribution.task(goal=[0.3, -0.2]))
    >>> policy = agent.adapt(env, episodes=20)
    """

    config_class: ClassVar[type[AgentConfig]]
    shares_tasks: ClassVar[bool] = False
    """Whether `improve` makes the same update on several `ranks`, each with its share of the tasks, as on one."""
    alarms: ClassVar[Mapping[str, float]] = LOSS_ALARMS
    """Metrics of `improve` by which an iteration diverges: above these bounds, or not finite."""
    trained_on: TaskDistribution | None = None
    """The family of its training, if a run made it: `metarl.evaluate` refuses test tasks that were training tasks."""

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
        """The options for environments like `spec` that apply unless the user gives others."""
        return cls.config_class()

    @property
    def from_scratch(self) -> bool:
        """Whether it learns nothing across tasks and trains on each test task alone; a class may just say True.

        Its training then measures an untrained policy: the run folder notes it, and a report shows no curve of it.
        """
        return False

    def task_source(self, distribution: TaskDistribution, *, seed: int) -> TaskSource:
        """The source of the training tasks: by default, fresh tasks of the train split in every iteration.

        An agent that stores something for each task returns a `TaskList` instead and reads `env.tasks.ids`.
        """
        return FreshTasks(distribution.sample)

    @abc.abstractmethod
    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        """Does one training iteration on the tasks that `env` runs; returns its metrics.

        The metrics always include `env_steps` (steps taken) and `return_mean` (mean undiscounted return per episode,
        after adaptation).
        """

    @abc.abstractmethod
    def adapt(self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None) -> Policy:
        """Adapts to the tasks that `env` runs with `episodes` more whole episodes of each; returns the adapted policy.

        Episodes have the horizon of `env`, even if the agent was trained with another one. Without `policy`, adaptation
        starts from what the agent has meta-learned. With `policy`, an earlier result for the same tasks and the same
        `env`, it continues from there and leaves `policy` unchanged. With 0 episodes the result is the unadapted
        policy. Later training does not change the result. To measure the result without changing it, run
        `policy.fork()` with `collect`.
        """

    def check_adaptation(self, env: TaskVectorEnv, episodes: int, policy: Policy | None, kind: type = Policy) -> None:
        """What `adapt` begins with. Raises `UsageError` for a family that is not of the agent's form, a wrong number of
        episodes, and a `policy` that is not of the `kind` that `adapt` returns."""
        self.spec.check(env.distribution)
        if episodes != 0:
            check_count("number of episodes", episodes)
        if policy is not None and not isinstance(policy, kind):
            raise UsageError(
                f"adapt goes on with a policy that this agent's adapt returned, a {kind.__name__}, got a "
                f"{type(policy).__name__}: leave policy out to begin anew"
            )

    def stages(self, episodes: int | None = None) -> list[int]:
        """The numbers of test episodes, from 0 to `episodes`, after which to measure the adapted policy.

        `None` means the number of episodes that the agent was trained for.
        """
        return [0] if episodes is None else list(range(episodes + 1))

    @abc.abstractmethod
    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Everything that `improve` changes, except the buffers: tensors, and values for JSON. A small copy."""

    @abc.abstractmethod
    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Restores what `state` returned; raises `UsageError` if it belongs to another agent."""

    def buffers(self) -> Mapping[str, ReplayBuffer]:
        """The replay buffers that `improve` fills, by name. The run folder stores the rows that each iteration adds."""
        return {}


class FixedPolicy(Agent):
    """A policy as an agent that does not adapt: what `metarl.evaluate` makes of a policy.

    >>> from metarl.agent import FixedPolicy
    >>> from metarl.rollout import FunctionPolicy
    >>> agent = FixedPolicy(FunctionPolicy(torch.neg), metarl.EnvSpec.of(metarl.make("PointNavigation-v0")))
    >>> agent.stages()
    [0]
    """

    config_class = AgentConfig

    def __init__(self, fixed: Policy, spec: EnvSpec):
        super().__init__(AgentConfig(), spec)
        self.fixed = fixed

    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        raise UsageError("a policy as it stands does not train")

    def adapt(self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None) -> Policy:
        return self.fixed

    def stages(self, episodes: int | None = None) -> list[int]:
        """Before any episode, whatever is asked for: nothing changes with more."""
        return [0]

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return {}, {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        return None
