"""Agents that PPO trains over whole trials, and whose policy adapts by what it remembers of a trial."""

import abc
import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from metarl.agents.in_trials import InTrials
from metarl.agents.ppo import PPOConfig
from metarl.agents.trial_policy import TrialPolicy
from metarl.randomness import make_generator
from metarl.rollout import Policy, Trajectories, collect, success_metrics, used_fraction
from metarl.tasks import check_count
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class TrialConfig(PPOConfig):
    """Options of agents that learn from trials.

    >>> from metarl.agents.trials import TrialConfig
    >>> TrialConfig(episodes_per_trial=3).envs_per_task
    1
    """

    envs_per_task: int = 1
    """Environments per task (N). Each runs one trial after another."""
    episodes_per_trial: int = 2
    """Episodes per trial, across which the policy's memory is kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("episodes_per_trial", self.episodes_per_trial)


class TrialAgent(InTrials):
    """An agent whose policy is blank at the start of a trial and remembers it across its episodes.

    A trial ends with the last of its `episodes_per_trial` episodes. An iteration takes `episodes_per_trial` times the
    horizon in steps. If episodes end early, an environment starts further trials of its task, and only the last,
    unfinished trial is not used. A subclass makes the policy and updates its networks.

    >>> from metarl.agents.rl2 import RL2
    >>> from metarl.agents.trials import TrialAgent
    >>> issubclass(RL2, TrialAgent)
    True
    """

    config: TrialConfig
    stream: ClassVar[str]
    """The name of its random streams."""

    @abc.abstractmethod
    def _actor(self, generator: torch.Generator) -> TrialPolicy:
        """A blank policy that draws from `generator`."""

    @abc.abstractmethod
    def _update(
        self, trajectories: Trajectories, valid: Bool[Tensor, "T M N"], generator: torch.Generator
    ) -> dict[str, float]:
        """Learns from the complete trials of an iteration; returns metrics of the update."""

    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        generator = self.ranks.generator(self.stream, "improve", seed, device=self.device)
        count = self.config.episodes_per_trial
        trajectories = collect(env, self._actor(generator), count * env.horizon, episodes_per_trial=count, seed=seed)
        valid = trajectories.in_complete_trials(count)
        return {
            "env_steps": trajectories.num_transitions,
            "return_mean": float(trajectories.episode_returns(count - 1).mean()),
            "return_first_episode": float(trajectories.episode_returns(0).mean()),
            "used_fraction": used_fraction(valid),
            **success_metrics(trajectories, count - 1),
            **self._update(trajectories, valid, generator),
        }

    def adapt(self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None) -> TrialPolicy:
        """Runs `episodes` episodes, which fill the memory. Every environment of `env` is a separate trial."""
        generator = make_generator(self.stream, "adapt", seed, device=self.device)
        blank = self._actor(generator)
        self.check_adaptation(env, episodes, policy, type(blank))
        assert policy is None or isinstance(policy, TrialPolicy)
        # A copy, because training changes the agent's own networks.
        learner = (policy or copy.deepcopy(blank)).drawing_from(generator)
        if episodes > 0:
            collect(env, learner, episodes=episodes, seed=seed)
        return learner
