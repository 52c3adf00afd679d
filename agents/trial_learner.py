"""What agents share that are complete without training: they learn about a task by a fixed rule, in trials."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeGuard, TypeVar, cast

import gymnasium as gym
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.agent import AgentConfig, EnvSpec
from metarl.agents.in_trials import InTrials
from metarl.agents.trial_policy import TrialPolicy
from metarl.errors import UsageError
from metarl.nn.sequence import choose_state
from metarl.parallel import Ranks
from metarl.randomness import make_generator
from metarl.rollout import Policy, PolicyStep, Trajectories, Transition, collect, success_metrics
from metarl.spaces import Observations
from metarl.tasks import check_count
from metarl.vector_env import TaskFamily, TaskVectorEnv


@dataclass(frozen=True)
class TrialLearnerConfig(AgentConfig):
    """Options of agents that learn in trials and are not trained.

    >>> from metarl.agents.trial_learner import TrialLearnerConfig
    >>> TrialLearnerConfig(episodes_per_trial=10).num_tasks
    20
    """

    episodes_per_trial: int = 1
    """Episodes of a trial, which is what the agent sees of one task."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("episodes_per_trial", self.episodes_per_trial)

    @property
    def default_iterations(self) -> int:
        return 1


class LearningPolicy(TrialPolicy):
    """A policy that learns about the task of each of `B` = M · N environments by itself, from statistics `[B, ...]`.

    A subclass says how blank `statistics` look for a number of environments, how it chooses actions and how it learns.

    >>> from metarl.agents.bandits import CountsPolicy
    >>> from metarl.agents.trial_learner import LearningPolicy
    >>> issubclass(CountsPolicy, LearningPolicy)
    True
    """

    name: str = "this policy"
    """The id of the agent, for messages."""

    def __init__(self, generator: torch.Generator):
        super().__init__(generator)
        self.statistics: dict[str, Tensor] = {}

    @abc.abstractmethod
    def blank(self, count: int) -> dict[str, Tensor]:
        """What is known of `count` tasks before their first step."""

    @abc.abstractmethod
    def choose(self, observations: Float[Tensor, "B D"]) -> Tensor:
        """The actions `[B]`."""

    @abc.abstractmethod
    def learn(self, transition: Transition) -> dict[str, Tensor]:
        """The statistics after a step, as new tensors."""

    def note(self, **statistics: Tensor) -> None:
        """Replaces some statistics, in a dictionary of its own: a fork shares the one before."""
        self.statistics = {**self.statistics, **statistics}

    def complaint(self, seen: Transition | Trajectories) -> str | None:
        """What the rule is for instead, if it is not for what happened here."""
        return None

    def check(self, seen: Transition | Trajectories) -> None:
        """Raises `UsageError` for outcomes that the rule is not for. Waits for a GPU."""
        complaint = self.complaint(seen)
        if complaint is not None:
            raise UsageError(f"{self.name} is for {complaint}: choose another agent for this family")

    def act(self, observations: Observations) -> PolicyStep:
        assert isinstance(observations, Tensor)
        shape = self.known_batch(observations)
        flat = observations.flatten(0, 1)
        self.statistics = self.statistics or self.blank(len(flat))
        return PolicyStep(self.choose(flat).unflatten(0, shape))

    def observe(self, transition: Transition) -> None:
        if transition.rewards.device.type == "cpu":  # a GPU is waited for after whole rollouts alone
            self.check(transition)
        new = self.learn(transition)
        if transition.active is not None:
            new = chosen(transition.active.flatten(), new, self.statistics)
        self.statistics = new

    def begin_trial(self, mask: Bool[Tensor, "M N"]) -> None:
        if self.statistics:
            self.statistics = chosen(mask.flatten(), self.blank(mask.numel()), self.statistics)


AnyPolicy = TypeVar("AnyPolicy", bound=LearningPolicy)


class TrialLearner(InTrials, Generic[AnyPolicy]):
    """Learns about each task by a fixed rule from the episodes of a trial; nothing is trained.

    `improve` runs a trial of each task and reports it, so that a run folder can be made, evaluated and compared. Every
    environment is a separate trial.

    >>> from metarl.agents.bandits import UCB1, UCB1Config
    >>> family = metarl.make("Bandit-v0", arms=5, pulls=10)
    >>> agent = UCB1(UCB1Config(num_tasks=4), metarl.EnvSpec.of(family))
    >>> agent.state(), agent.stages()
    (({}, {}), [0])
    """

    config: TrialLearnerConfig
    name: ClassVar[str]
    family: ClassVar[str]
    """The family whose tasks it knows how to learn."""

    def __init__(
        self,
        config: TrialLearnerConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Ranks | None = None,
    ):
        super().__init__(config, spec, device=device, seed=seed, ranks=ranks)
        if not self.knows(spec):
            raise UsageError(f"{self.name} knows the tasks of {self.family} only: choose another agent for other ones")

    @abc.abstractmethod
    def knows(self, family: EnvSpec | TaskFamily) -> bool:
        """Whether `family` has tasks of the kind that the rule is for."""

    @abc.abstractmethod
    def start(self, env: TaskVectorEnv, generator: torch.Generator) -> AnyPolicy:
        """The policy before the first step of a trial."""

    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        count = self.config.episodes_per_trial
        policy = self.start(env, make_generator(self.name, "improve", seed, device=self.device))
        policy.name = self.name
        trajectories = collect(env, policy, episodes=count, seed=seed)
        policy.check(trajectories)
        return {
            "env_steps": trajectories.num_transitions,
            "return_mean": float(trajectories.episode_returns(count - 1).mean()),
            "return_first_episode": float(trajectories.episode_returns(0).mean()),
            "return_trial": float(trajectories.rewards.sum(0).mean()),
            **success_metrics(trajectories, count - 1),
        }

    def adapt(self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None) -> AnyPolicy:
        """Learns from `episodes` episodes. Every environment of `env` is a separate trial."""
        self.check_adaptation(env, episodes, policy, LearningPolicy)
        generator = make_generator(self.name, "adapt", seed, device=self.device)
        if policy is None:
            if not self.knows(env.distribution):
                raise UsageError(
                    f"{self.name} knows the tasks of {self.family} only, not those of {env.distribution.id}"
                )
            learner = self.start(env, generator)
            learner.name = self.name
        else:
            assert isinstance(policy, LearningPolicy)
            learner = cast(AnyPolicy, policy.drawing_from(generator))
        if episodes > 0:
            learner.check(collect(env, learner, episodes=episodes, seed=seed))
        return learner

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return {}, {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """There is nothing to restore."""


def is_counted(space: gym.Space) -> TypeGuard[gym.spaces.Discrete]:
    """Whether the values of `space` are 0, 1, … n − 1."""
    return isinstance(space, gym.spaces.Discrete) and int(space.start) == 0


def chosen(mask: Bool[Tensor, "B"], first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rows of `first` in the mask, of `second` elsewhere."""
    rows = choose_state(mask, tuple(first.values()), tuple(second[name] for name in first))
    return dict(zip(first, rows, strict=True))
