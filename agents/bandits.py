"""Classic policies for Bernoulli bandits, as Duan et al. (2016, RL², section 3.1) compare with: no training.

All count the successes and failures of each arm, from 1 each, which is a Beta(1, 1) prior: with a and b of them, the
estimated mean of an arm is m = a / (a + b). Each pull takes the arm with the largest

    gittins     Gittins index of (a, b) (Gittins 1979), which is optimal for discounted, infinite horizons
    ucb1        m + c √(2 log t / (a + b)) at pull t (Auer, Cesa-Bianchi, Fischer 2002, with c = 1)
    thompson    draw from Beta(a, b) (Thompson 1933); the optimistic variant takes m if it is larger (May et al. 2012)
    greedy      m; with probability ε, a random arm instead

and one of them at random if several are equal. The paper tunes c and ε for each setting; the default of c is good for 5
arms and 10 pulls.

Deviations: the paper chooses between several approximations of the Gittins index; here it is computed
(`metarl.agents.gittins_index`), with the discount 1 − 1 / pulls, whose horizon is that of an episode.
"""

import abc
from dataclasses import dataclass

import gymnasium as gym
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.agent import EnvSpec
from metarl.agents.gittins_index import gittins_indices
from metarl.agents.trial_learner import LearningPolicy, TrialLearner, TrialLearnerConfig, is_counted
from metarl.randomness import dirichlet
from metarl.ranges import check_range
from metarl.rollout import Trajectories, Transition
from metarl.vector_env import TaskFamily, TaskVectorEnv

MOST_PULLS = 1000
"""Pulls of an arm for which there are Gittins indices: later, they differ little from the means."""


class CountsPolicy(LearningPolicy):
    """Counts the outcomes of each arm, from 1 each, and pulls the one with the best score.

    >>> from metarl.agents.bandits import GreedyPolicy
    >>> policy = GreedyPolicy(arms=3, generator=torch.Generator(), epsilon=0.0)
    >>> policy.statistics = {"counts": torch.tensor([[[1.0, 2.0], [2.0, 1.0], [1.0, 1.0]]])}
    >>> policy.act(torch.zeros(1, 1, 1)).actions
    tensor([[1]])
    """

    def __init__(self, arms: int, generator: torch.Generator):
        super().__init__(generator)
        self.arms = arms

    @abc.abstractmethod
    def scores(self, counts: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
        """What to maximise, from one more than the successes and one more than the failures of each arm."""

    def blank(self, count: int) -> dict[str, Tensor]:
        return {"counts": torch.ones(count, self.arms, 2, device=self.generator.device)}

    def choose(self, observations: Float[Tensor, "B D"]) -> Int[Tensor, "B"]:
        scores = self.scores(self.statistics["counts"])
        best = scores == scores.amax(1, keepdim=True)
        return torch.where(best, self.uniform(scores.shape), -1.0).argmax(1)

    def learn(self, transition: Transition) -> dict[str, Tensor]:
        arm = torch.nn.functional.one_hot(transition.actions.flatten(), self.arms)
        reward = transition.rewards.flatten()
        outcome = torch.stack([reward, 1 - reward], -1)
        return {"counts": self.statistics["counts"] + arm[..., None] * outcome[:, None]}

    def complaint(self, seen: Transition | Trajectories) -> str | None:
        rewards = seen.rewards
        if not bool(((rewards != 0) & (rewards != 1)).any()):
            return None
        return f"rewards of 0 and 1, got {float(rewards.min())} to {float(rewards.max())}"

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.generator.device)


def means_of(counts: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
    """The estimated mean of each arm."""
    return counts[..., 0] / counts.sum(-1)


class GittinsPolicy(CountsPolicy):
    """Pulls the arm with the largest Gittins index for `discount`. After `pulls` pulls, an arm's index is its mean.

    >>> from metarl.agents.bandits import GittinsPolicy
    >>> policy = GittinsPolicy(arms=5, generator=torch.Generator(), discount=0.9, pulls=10)
    >>> policy.act(torch.zeros(3, 4, 1)).actions.shape
    torch.Size([3, 4])
    """

    def __init__(self, arms: int, generator: torch.Generator, discount: float, pulls: int):
        super().__init__(arms, generator)
        self.indices = gittins_indices(pulls, discount).to(generator.device, torch.float32)

    def scores(self, counts: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
        total, last = counts.sum(-1) - 2, len(self.indices) - 1
        successes, failures = (counts - 1).long().clamp(max=last).unbind(-1)
        return torch.where(total <= last, self.indices[successes, failures], means_of(counts))


class UCB1Policy(CountsPolicy):
    """Pulls the arm with the largest upper confidence bound.

    >>> from metarl.agents.bandits import UCB1Policy
    >>> policy = UCB1Policy(arms=5, generator=torch.Generator(), exploration=1.0)
    >>> policy.act(torch.zeros(3, 4, 1)).actions.shape
    torch.Size([3, 4])
    """

    def __init__(self, arms: int, generator: torch.Generator, exploration: float):
        super().__init__(arms, generator)
        self.exploration = exploration

    def scores(self, counts: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
        pulls = counts.sum(-1)
        time = pulls.sum(1, keepdim=True) - 2 * self.arms + 1  # without those of the prior
        return means_of(counts) + self.exploration * (2 * time.log() / pulls).sqrt()


class ThompsonPolicy(CountsPolicy):
    """Pulls the arm whose mean is the largest in a draw from the posterior.

    >>> from metarl.agents.bandits import ThompsonPolicy
    >>> policy = ThompsonPolicy(arms=5, generator=torch.Generator(), optimistic=False)
    >>> policy.act(torch.zeros(3, 4, 1)).actions.shape
    torch.Size([3, 4])
    """

    def __init__(self, arms: int, generator: torch.Generator, optimistic: bool):
        super().__init__(arms, generator)
        self.optimistic = optimistic

    def scores(self, counts: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
        drawn = dirichlet(counts, self.generator)[..., 0]
        return torch.maximum(drawn, means_of(counts)) if self.optimistic else drawn


class GreedyPolicy(CountsPolicy):
    """Pulls the arm with the largest mean so far, and a random one with the probability `epsilon`.

    >>> from metarl.agents.bandits import GreedyPolicy
    >>> policy = GreedyPolicy(arms=5, generator=torch.Generator(), epsilon=0.1)
    >>> policy.act(torch.zeros(3, 4, 1)).actions.shape
    torch.Size([3, 4])
    """

    def __init__(self, arms: int, generator: torch.Generator, epsilon: float):
        super().__init__(arms, generator)
        self.epsilon = epsilon

    def scores(self, counts: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
        means = means_of(counts)
        explores = self.uniform((len(means), 1)) < self.epsilon
        return means.masked_fill(explores, 0.0)  # all equal


class BanditAgent(TrialLearner[CountsPolicy]):
    """A policy for Bernoulli bandits: K arms, whose rewards are 0 or 1.

    >>> from metarl.agents.bandits import UCB1, BanditAgent
    >>> issubclass(UCB1, BanditAgent)
    True
    """

    family = "Bandit-v0"

    def knows(self, family: EnvSpec | TaskFamily) -> bool:
        arms, shapes = family.action_space, {name: space.shape for name, space in family.task_space.items()}
        return is_counted(arms) and shapes == {"probabilities": (int(arms.n),)}

    @property
    def arms(self) -> int:
        assert isinstance(self.spec.action_space, gym.spaces.Discrete)
        return int(self.spec.action_space.n)


@dataclass(frozen=True)
class GittinsConfig(TrialLearnerConfig):
    """Options of the Gittins index policy.

    >>> from metarl.agents.bandits import GittinsConfig
    >>> GittinsConfig(discount=0.99).episodes_per_trial
    1
    """

    discount: float | None = None
    """Discount of rewards that the indices are for, between 0 and 1; 1 − 1 / pulls if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.discount is not None:
            check_range("discount", self.discount, above=0, below=1)


class Gittins(BanditAgent):
    """Pulls the arm with the largest Gittins index.

    >>> from metarl.agents.bandits import Gittins, GittinsConfig
    >>> family = metarl.make("Bandit-v0", arms=5, pulls=10)
    >>> agent = Gittins(GittinsConfig(), metarl.EnvSpec.of(family))
    >>> metarl.evaluate(agent, family, num_tasks=10).episodes_used
    [0]
    """

    config_class = GittinsConfig
    config: GittinsConfig
    name = "gittins"

    def start(self, env: TaskVectorEnv, generator: torch.Generator) -> GittinsPolicy:
        pulls = self.config.episodes_per_trial * env.horizon
        discount = max(0.5, 1 - 1 / pulls) if self.config.discount is None else self.config.discount
        return GittinsPolicy(self.arms, generator, discount, min(pulls, MOST_PULLS))


@dataclass(frozen=True)
class UCB1Config(TrialLearnerConfig):
    """Options of UCB1.

    >>> from metarl.agents.bandits import UCB1Config
    >>> UCB1Config(exploration=1.0).episodes_per_trial
    1
    """

    exploration: float = 0.1
    """Factor of the confidence interval (c): 1 in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("exploration", self.exploration, least=0)


class UCB1(BanditAgent):
    """Pulls the arm with the largest upper confidence bound.

    >>> from metarl.agents.bandits import UCB1, UCB1Config
    >>> family = metarl.make("Bandit-v0", arms=5, pulls=10)
    >>> metarl.evaluate(UCB1(UCB1Config(), metarl.EnvSpec.of(family)), family, num_tasks=10).episodes_used
    [0]
    """

    config_class = UCB1Config
    config: UCB1Config
    name = "ucb1"

    def start(self, env: TaskVectorEnv, generator: torch.Generator) -> UCB1Policy:
        return UCB1Policy(self.arms, generator, self.config.exploration)


@dataclass(frozen=True)
class ThompsonConfig(TrialLearnerConfig):
    """Options of Thompson sampling.

    >>> from metarl.agents.bandits import ThompsonConfig
    >>> ThompsonConfig(optimistic=True).episodes_per_trial
    1
    """

    optimistic: bool = False
    """Never take a draw below the mean: optimistic Thompson sampling."""


class Thompson(BanditAgent):
    """Pulls each arm with the probability that it is the best.

    >>> from metarl.agents.bandits import Thompson, ThompsonConfig
    >>> family = metarl.make("Bandit-v0", arms=5, pulls=10)
    >>> metarl.evaluate(Thompson(ThompsonConfig(), metarl.EnvSpec.of(family)), family, num_tasks=10).episodes_used
    [0]
    """

    config_class = ThompsonConfig
    config: ThompsonConfig
    name = "thompson"

    def start(self, env: TaskVectorEnv, generator: torch.Generator) -> ThompsonPolicy:
        return ThompsonPolicy(self.arms, generator, self.config.optimistic)


@dataclass(frozen=True)
class GreedyConfig(TrialLearnerConfig):
    """Options of the greedy and the ε-greedy policy.

    >>> from metarl.agents.bandits import GreedyConfig
    >>> GreedyConfig(epsilon=0.1).episodes_per_trial
    1
    """

    epsilon: float = 0.0
    """Probability of a random arm (ε)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("epsilon", self.epsilon, least=0, most=1)


class Greedy(BanditAgent):
    """Pulls the arm with the largest mean so far, and a random one with the probability ε.

    >>> from metarl.agents.bandits import Greedy, GreedyConfig
    >>> family = metarl.make("Bandit-v0", arms=5, pulls=10)
    >>> metarl.evaluate(Greedy(GreedyConfig(), metarl.EnvSpec.of(family)), family, num_tasks=10).episodes_used
    [0]
    """

    config_class = GreedyConfig
    config: GreedyConfig
    name = "greedy"

    def start(self, env: TaskVectorEnv, generator: torch.Generator) -> GreedyPolicy:
        return GreedyPolicy(self.arms, generator, self.config.epsilon)
