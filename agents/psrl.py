"""Posterior sampling for reinforcement learning (Strens 2000; Osband, Russo, Van Roy 2013) in tabular MDPs.

There is no training.

Before each episode, an MDP is drawn from the posterior, and the policy that is optimal for it, found by value iteration
over the steps of the episode, acts until the episode ends:

    P(· | s, a) ~ Dirichlet(α₀ + n(s, a, ·)),    r(s, a) ~ N((τ₀ μ₀ + Σ r) / (τ₀ + n(s, a)), 1 / (τ₀ + n(s, a)))
    Q_t(s, a) = r(s, a) + Σ_s' P(s' | s, a) max_a' Q_{t+1}(s', a'),    Q_H = 0

The defaults α₀ = 1, μ₀ = 0, τ₀ = 1 are a prior that does not know the family, and a trial has ten episodes: with both,
the agent reaches the figure of Duan et al. (2016, RL², table 2). With μ₀ = 1, the mean of the distribution that
`TabularMDP-v0` draws mean rewards from, it explores more and gets less in ten episodes.

Deviation: Osband et al. use a normal-gamma prior for rewards of unknown variance. Here the variance is known to be 1,
as it is in the family.
"""

from dataclasses import dataclass

import gymnasium as gym
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.agent import EnvSpec
from metarl.agents.trial_learner import LearningPolicy, TrialLearner, TrialLearnerConfig, is_counted
from metarl.randomness import dirichlet
from metarl.ranges import check_range
from metarl.rollout import Trajectories, Transition
from metarl.spaces import Observations
from metarl.vector_env import TaskFamily, TaskVectorEnv


@dataclass(frozen=True)
class PSRLConfig(TrialLearnerConfig):
    """Options of PSRL.

    >>> from metarl.agents.psrl import PSRLConfig
    >>> PSRLConfig(episodes_per_trial=25).reward_mean
    0.0
    """

    episodes_per_trial: int = 10
    """Episodes of a trial."""
    transition_count: float = 1.0
    """Transitions to each state that the prior is worth (α₀)."""
    reward_mean: float = 0.0
    """Mean of the prior of mean rewards (μ₀)."""
    reward_count: float = 1.0
    """Rewards that the prior is worth, the inverse of its variance (τ₀)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("transition_count", "reward_count"):
            check_range(name, getattr(self, name), above=0)
        check_range("reward_mean", self.reward_mean)


class PSRLPolicy(LearningPolicy):
    """Acts optimally for an MDP that is drawn from the posterior before each episode of `horizon` steps.

    >>> from metarl.agents.psrl import PSRLConfig, PSRLPolicy
    >>> policy = PSRLPolicy(PSRLConfig(), states=10, actions=5, horizon=10, generator=torch.Generator())
    >>> policy.act(torch.eye(10)[torch.zeros(3, 4, dtype=torch.int64)]).actions.shape
    torch.Size([3, 4])
    """

    def __init__(self, config: PSRLConfig, states: int, actions: int, horizon: int, generator: torch.Generator):
        super().__init__(generator)
        self.config = config
        self.states, self.actions, self.horizon = states, actions, horizon

    def blank(self, count: int) -> dict[str, Tensor]:
        device, pairs = self.generator.device, (count, self.states, self.actions)
        prior = self.config
        return {
            "transitions": torch.full((*pairs, self.states), prior.transition_count, device=device),
            "reward_sums": torch.full(pairs, prior.reward_count * prior.reward_mean, device=device),
            "visits": torch.full(pairs, prior.reward_count, device=device),
            "plan": torch.zeros(count, self.horizon, self.states, dtype=torch.int64, device=device),
            "time": torch.zeros(count, dtype=torch.int64, device=device),
        }

    def choose(self, observations: Float[Tensor, "B S"]) -> Int[Tensor, "B"]:
        known = self.statistics
        starts = known["time"] == 0
        if starts.device.type != "cpu" or bool(starts.any()):  # a GPU would have to be waited for
            self.note(plan=torch.where(starts[:, None, None], self._new_plan(), known["plan"]))
        rows = torch.arange(len(starts), device=starts.device)
        return self.statistics["plan"][rows, known["time"].clamp(max=self.horizon - 1), observations.argmax(1)]

    def begin_rollout(self) -> None:
        if self.statistics:
            self.note(time=torch.zeros_like(self.statistics["time"]))

    def learn(self, transition: Transition) -> dict[str, Tensor]:
        known = self.statistics
        rows = torch.arange(len(known["time"]), device=known["time"].device)
        state, following = map(_states, (transition.observations, transition.next_observations))
        pair = (rows, state, transition.actions.flatten())
        one = torch.ones_like(transition.rewards.flatten())
        return {
            "transitions": known["transitions"].index_put((*pair, following), one, accumulate=True),
            "reward_sums": known["reward_sums"].index_put(pair, transition.rewards.flatten(), accumulate=True),
            "visits": known["visits"].index_put(pair, one, accumulate=True),
            "plan": known["plan"],
            "time": (known["time"] + 1).masked_fill(transition.ended.flatten(), 0),
        }

    def complaint(self, seen: Transition | Trajectories) -> str | None:
        states = seen.observations
        assert isinstance(states, Tensor)
        if not bool((((states == 0) | (states == 1)).all(-1) & (states.sum(-1) == 1)).all()):
            return "states that are observed one-hot, and got other observations"
        if bool(seen.terminated.any()):
            return "episodes of the whole horizon, which it plans for, and got one that terminated"
        return None

    def _new_plan(self) -> Int[Tensor, "B H S"]:
        """The optimal actions at each time and state of MDPs drawn from the posterior."""
        known, generator = self.statistics, self.generator
        transitions = dirichlet(known["transitions"], generator)
        noise = torch.randn(known["visits"].shape, generator=generator, device=generator.device)
        rewards = known["reward_sums"] / known["visits"] + noise / known["visits"].sqrt()
        return optimal_plan(transitions, rewards, self.horizon)


def optimal_plan(
    transitions: Float[Tensor, "B S A S"], rewards: Float[Tensor, "B S A"], horizon: int
) -> Int[Tensor, "B H S"]:
    """The action that maximises the expected sum of rewards until the `horizon`, at each time and state.

    >>> from metarl.agents.psrl import optimal_plan
    >>> stay, rewards = torch.eye(2)[:, None].expand(2, 3, 2), torch.tensor([[0.0, 5.0, 1.0], [2.0, 0.0, 1.0]])
    >>> optimal_plan(stay[None], rewards[None], horizon=2)
    tensor([[[1, 0],
             [1, 0]]])
    """
    values = torch.zeros_like(rewards[:, :, 0])
    plan = []
    for _ in range(horizon):
        values, actions = (rewards + torch.einsum("bsat,bt->bsa", transitions, values)).max(2)
        plan.append(actions)
    return torch.stack(plan[::-1], 1)


def _states(observations: Observations) -> Int[Tensor, "B"]:
    """The numbers of one-hot states `[M, N, S]`."""
    assert isinstance(observations, Tensor)
    return observations.flatten(0, 1).argmax(1)


class PSRL(TrialLearner[PSRLPolicy]):
    """Posterior sampling for tabular MDPs with Gaussian rewards of unit variance.

    >>> from metarl.agents.psrl import PSRL, PSRLConfig
    >>> family = metarl.make("TabularMDP-v0", states=3, actions=2, horizon=5)
    >>> agent = PSRL(PSRLConfig(episodes_per_trial=4), metarl.EnvSpec.of(family))
    >>> metarl.evaluate(agent, family, num_tasks=10).episodes_used
    [0, 1, 2, 3]
    """

    config_class = PSRLConfig
    config: PSRLConfig
    name = "psrl"
    family = "TabularMDP-v0"

    def knows(self, family: EnvSpec | TaskFamily) -> bool:
        actions, states = family.action_space, family.observation_space.shape
        if not is_counted(actions) or states is None or len(states) != 1:
            return False
        pairs = (*states, int(actions.n))
        shapes = {name: space.shape for name, space in family.task_space.items()}
        return shapes == {"transitions": (*pairs, *states), "reward_means": pairs}

    def start(self, env: TaskVectorEnv, generator: torch.Generator) -> PSRLPolicy:
        states, actions = self.spec.observation_space, self.spec.action_space
        assert isinstance(states, gym.spaces.Box)
        assert isinstance(actions, gym.spaces.Discrete)
        return PSRLPolicy(self.config, states.shape[0], int(actions.n), env.horizon, generator)
