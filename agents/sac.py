"""Soft actor-critic (Haarnoja et al. 2018): an off-policy actor-critic that maximises reward and entropy.

Papers: "Soft actor-critic: off-policy maximum entropy deep RL with a stochastic actor" (ICML 2018) and "Soft
actor-critic algorithms and applications" (arXiv:1812.05905), whose form without a separate value network this is:

    y    = c r + γ (1 − terminated) (min_k Q̄_k(s', a') − α log π(a' | s')),  a' ~ π(· | s')     (2018b, equations 3, 5)
    L_Q  = Σ_k E[(Q_k(s, a) − y)²]
    L_π  = E[α log π(a | s) − min_k Q_k(s, a)],  a ~ π(· | s) reparameterised                   (2018b, equation 9)
    L_α  = −log α E[log π(a | s) + H̄],  H̄ = −A, if the temperature α is learned               (2018b, equation 18)
    Q̄   ← Q̄ + τ (Q − Q̄)

Defaults: τ, γ and step size from 2018b, table 1, where c = 1 and α is learned; three layers of 300 units as in PEARL
(Rakelly et al. 2019). The form of 2018a and PEARL, a reward scale beside entropy, is `temperature=1.0`.

Deviations: all losses are differentiated at the same parameters and take one Adam step together, the loss of α is in
log α (as in the authors' code), and no step-size or gradient is clipped. Networks start with Xavier-uniform weights and
small last layers.
"""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.agent import AgentConfig
from metarl.nn.squashed_gaussian import SquashedGaussian
from metarl.nn.stacked_mlp import StackedMLP
from metarl.parallel import Ranks
from metarl.ranges import check_range
from metarl.tasks import check_count

LAST_GAIN = 0.01
"""Scale of the last layers' first weights: the policy starts near the middle of the box, values near zero."""
METRICS = ("critic_loss", "actor_loss", "entropy", "q_mean", "temperature")


@dataclass(frozen=True)
class SACConfig(AgentConfig):
    """Options of agents that SAC trains.

    >>> from metarl.agents.sac import SACConfig
    >>> SACConfig(temperature=None).discount
    0.99
    """

    hidden: tuple[int, ...] = (300, 300, 300)
    """Units of the hidden layers of policy and critics."""
    discount: float = 0.99
    """Discount of rewards (γ)."""
    lr: float = 3e-4
    """Adam's step size."""
    polyak: float = 0.005
    """Share of the way that the target critics move in a step (τ)."""
    reward_scale: float = 1.0
    """Factor of rewards (c). With a fixed temperature it sets the weight of rewards beside entropy."""
    temperature: float | None = None
    """Weight of the policy's entropy (α); None learns it, so that the entropy becomes minus the size of an action."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in self.hidden:
            check_count("a hidden layer's size", size)
        check_range("discount", self.discount, least=0, below=1)
        check_range("polyak", self.polyak, above=0, most=1)
        for name in ("lr", "reward_scale"):
            check_range(name, getattr(self, name), above=0)
        if self.temperature is not None:
            check_range("temperature", self.temperature, above=0)


@dataclass(frozen=True)
class Transitions:
    """`R` transitions to learn from. Observations are what the networks read, with or without a task's latent variable.

    >>> from metarl.agents.sac import Transitions
    >>> zeros = torch.zeros(4)
    >>> batch = Transitions(torch.zeros(4, 3), torch.zeros(4, 2), zeros, zeros.bool(), torch.zeros(4, 3))
    >>> len(batch.rewards)
    4
    """

    observations: Float[Tensor, "R I"]
    """If these need gradients, the critics' loss gives them, and the policy's does not."""
    actions: Float[Tensor, "R A"]
    """In the unit box [-1, 1]."""
    rewards: Float[Tensor, "R"]
    terminated: Bool[Tensor, "R"]
    """True where nothing follows. A truncated episode goes on after its true last observation."""
    next_observations: Float[Tensor, "R I"]


class SoftActorCritic(nn.Module):
    """A squashed Gaussian policy, two critics and their slow copies, for `inputs` numbers of observation.

    >>> from metarl.agents.sac import SACConfig, SoftActorCritic
    >>> from metarl.nn.squashed_gaussian import SquashedGaussian
    >>> head = SquashedGaussian(metarl.make("PointNavigation-v0").action_space)
    >>> network = SoftActorCritic(SACConfig(hidden=(32, 32)), inputs=2, head=head)
    >>> network.initialize(torch.Generator())
    >>> network.values(torch.zeros(5, 2), torch.zeros(5, 2)).shape
    torch.Size([2, 5])
    """

    def __init__(self, config: SACConfig, inputs: int, head: SquashedGaussian):
        super().__init__()
        self.head = head
        self.actor = StackedMLP((inputs, *config.hidden, head.outputs))
        self.critic = StackedMLP((inputs + head.size, *config.hidden, 1), count=2)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        temperature = 1.0 if config.temperature is None else config.temperature
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)), config.temperature is None)

    def initialize(self, generator: torch.Generator) -> None:
        """Draws first weights. The slow critics start as the critics."""
        self.actor.initialize(generator, LAST_GAIN)
        self.critic.initialize(generator, LAST_GAIN)
        self.target.load_state_dict(self.critic.state_dict())

    def values(
        self, observations: Float[Tensor, "R I"], actions: Float[Tensor, "R A"], *, frozen: bool = False
    ) -> Float[Tensor, "2 R"]:
        """Both critics' values of `actions`. If `frozen`, no gradient reaches the critics' parameters."""
        return self.critic(torch.cat([observations, actions], dim=-1), frozen=frozen)[..., 0]

    def policy(self, observations: Float[Tensor, "R I"]) -> Float[Tensor, "R P"]:
        """The outputs that `head` samples from."""
        return self.actor(observations)[0]

    @torch.no_grad()
    def soft_values(self, observations: Float[Tensor, "R I"], generator: torch.Generator) -> Float[Tensor, "R"]:
        """min_k Q̄_k(s, a) − α log π(a | s), with one action drawn for each row."""
        actions, log_probs = self.head.sample(self.policy(observations), generator)
        first, second = self.target(torch.cat([observations, actions], dim=-1))[..., 0]
        return torch.minimum(first, second) - self.log_temperature.exp() * log_probs


class SAC:
    """Takes gradient steps of a `SoftActorCritic`, and of the `others` that its observations come from.

    >>> from metarl.agents.sac import SAC, SACConfig, SoftActorCritic, Transitions
    >>> from metarl.nn.squashed_gaussian import SquashedGaussian
    >>> config, head = SACConfig(hidden=(32,)), SquashedGaussian(metarl.make("PointNavigation-v0").action_space)
    >>> network = SoftActorCritic(config, inputs=3, head=head)
    >>> zeros = torch.zeros(4)
    >>> batch = Transitions(torch.zeros(4, 3), torch.zeros(4, 2), zeros, zeros.bool(), torch.zeros(4, 3))
    >>> SAC(config, network, ranks=metarl.Ranks()).update(batch, torch.Generator()).shape
    torch.Size([5])
    """

    def __init__(
        self, config: SACConfig, network: SoftActorCritic, others: Iterable[nn.Parameter] = (), *, ranks: Ranks
    ):
        self.config, self.network, self.ranks = config, network, ranks
        self.parameters = [p for p in (*network.parameters(), *others) if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.lr, fused=True)
        self._fast: list[Tensor] = list(network.critic.parameters())
        self._slow: list[Tensor] = list(network.target.parameters())

    def targets(self, batch: Transitions, generator: torch.Generator) -> Float[Tensor, "R"]:
        """y: what the critics' values of the batch should be."""
        following = self.network.soft_values(batch.next_observations, generator)
        following = following.masked_fill(batch.terminated, 0.0)
        return self.config.reward_scale * batch.rewards + self.config.discount * following

    def update(
        self, batch: Transitions, generator: torch.Generator, extra_loss: Float[Tensor, ""] | None = None
    ) -> Float[Tensor, "5"]:
        """Takes one step; returns the `METRICS` before it. `extra_loss` is added to the critics' loss."""
        network = self.network
        temperature = network.log_temperature.exp().detach()
        targets = self.targets(batch, generator)
        values = network.values(batch.observations, batch.actions)
        critic_loss = (values - targets).square().mean(1).sum()
        known = batch.observations.detach()
        actions, log_probs = network.head.sample(network.policy(known), generator)
        first, second = network.values(known, actions, frozen=True)
        actor_loss = (temperature * log_probs - torch.minimum(first, second)).mean()
        entropy = -log_probs.detach().mean()
        loss = critic_loss + actor_loss
        if self.config.temperature is None:
            loss = loss + network.log_temperature * (entropy + network.head.size)
        self._step(loss if extra_loss is None else loss + extra_loss)
        return torch.stack([critic_loss.detach(), actor_loss.detach(), entropy, values.detach().mean(), temperature])

    def _step(self, loss: Float[Tensor, ""]) -> None:
        """Descends the gradient of `loss`; then the slow critics follow."""
        self.optimizer.zero_grad()
        loss.backward()
        self.ranks.average_gradients(self.parameters)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._slow, self._fast, self.config.polyak)
