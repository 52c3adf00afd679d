"""The policy of VariBAD: it reads the observation and the belief about the task."""

import math

import gymnasium as gym
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.agents.actor_critic import ActorCritic
from metarl.agents.belief import Belief, BeliefModel
from metarl.agents.trial_policy import TrialPolicy
from metarl.nn.heads import Phi
from metarl.nn.sequence import State, choose_state
from metarl.rollout import PolicyStep, Trajectories, Transition
from metarl.spaces import Observations

READ = "read"
"""The name under which a `BeliefPolicy` records what its actor read."""
CLOCK = 2
"""Numbers that say how much of a trial is over."""


def clock(trajectories: Trajectories, trial_length: int, episodes_per_trial: int) -> Float[Tensor, "T M N 2"]:
    """The fractions of a trial's steps and of its episodes that are over at each step."""
    starts = trajectories.trial_starts
    times = torch.arange(len(starts), device=starts.device)[:, None, None].expand_as(starts)
    begin = torch.where(starts, times, 0).cummax(0).values
    episodes = trajectories.episode_index % episodes_per_trial
    return torch.stack([(times - begin) / trial_length, episodes / episodes_per_trial], -1)


class BeliefActorCritic(ActorCritic):
    """A policy over [o, μ, σ] and a value over [o, μ, σ, clock], two networks.

    >>> from metarl.agents.belief_policy import BeliefActorCritic
    >>> network = BeliefActorCritic(2 + 2 * 5, metarl.make("PointNavigation-v0").action_space, (128, 128), 1.0)
    >>> network.initialize(torch.Generator())
    >>> (mean, log_std), values = network(torch.zeros(10, 3, 2 + 2 * 5 + 2))
    >>> mean.shape, values.shape
    (torch.Size([10, 3, 2]), torch.Size([10, 3]))
    """

    def __init__(self, inputs: int, action_space: gym.Space, hidden: tuple[int, ...], initial_std: float):
        super().__init__(action_space, initial_std)
        self.inputs = inputs
        self.actor = _tanh_layers(inputs, hidden)
        self.actor.append(nn.Linear((inputs, *hidden)[-1], self.head.size))
        self.features = _tanh_layers(inputs + CLOCK, hidden)
        self.critic = nn.Linear((inputs + CLOCK, *hidden)[-1], 1)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Orthogonal weights and zero biases; the policy starts near uniform."""
        last = {self.actor[-1]: 0.01, self.critic: 1.0}
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight, last.get(layer, math.sqrt(2)), generator=generator)
                layer.bias.zero_()

    def act(self, inputs: Float[Tensor, "... I"]) -> Phi:
        """φ of the action distribution."""
        return self.phi(self.actor(inputs))

    def forward(self, inputs: Float[Tensor, "... J"]) -> tuple[Phi, Float[Tensor, "..."]]:
        """φ of the action distribution and the normalised value; the clock stands last in `inputs`."""
        return self.act(inputs[..., : self.inputs]), self.critic(self.features(inputs)).squeeze(-1)


def _tanh_layers(inputs: int, sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((inputs, *sizes), sizes, strict=False):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers)


class BeliefPolicy(TrialPolicy):
    """Acts on the observation and the belief, starting from the prior.

    >>> from metarl.agents.belief_policy import BeliefPolicy
    >>> from metarl.agents.varibad import VariBAD, VariBADConfig
    >>> agent = VariBAD(VariBADConfig(), metarl.EnvSpec.of(metarl.make("Bandit-v0", arms=5)))
    >>> policy = BeliefPolicy(agent.model, agent.network, torch.Generator())
    >>> policy.act(torch.zeros(3, 4, 1)).actions.shape, policy.belief.mean.shape
    (torch.Size([3, 4]), torch.Size([12, 5]))
    """

    def __init__(self, model: BeliefModel, network: BeliefActorCritic, generator: torch.Generator):
        super().__init__(generator)
        self.model, self.network = model, network
        self.memory: State | None = None
        """The state of the encoder and the belief, tensors `[M · N, ...]`; never written to."""

    @property
    def belief(self) -> Belief:
        """The belief about the task of each environment, `[M · N, L]`."""
        assert self.memory is not None, "there is one from the first action on"
        return Belief(*self.memory[-2:])

    @torch.no_grad()
    def act(self, observations: Observations) -> PolicyStep:
        assert isinstance(observations, Tensor)
        shape = self.known_batch(observations)
        flat = observations.flatten(0, 1)
        self.memory = self.memory or self._blank(self.network.log_std.new_zeros(len(flat)))
        inputs = torch.cat([self.model.observation_norm(flat), self.belief.mean, self.belief.std], -1)
        phi = self.network.act(inputs[None])
        actions = self.network.head.sample(phi, self.generator)
        log_probs = self.network.head.log_prob(phi, actions)
        chosen, density, read = (values.unflatten(0, shape) for values in (actions[0], log_probs[0], inputs))
        return PolicyStep(chosen, density, {READ: read})

    @torch.no_grad()
    def observe(self, transition: Transition) -> None:
        assert self.memory is not None
        assert isinstance(transition.next_observations, Tensor)
        actions, rewards = transition.actions.flatten(0, 1), transition.rewards.flatten()
        reached = transition.next_observations.flatten(0, 1)
        state, belief = self.model.advance(actions, rewards, reached, self.memory[:-2])
        new = (*state, *belief)
        active = transition.active
        self.memory = new if active is None else choose_state(active.flatten(), new, self.memory)

    def begin_trial(self, mask: Bool[Tensor, "M N"]) -> None:
        if self.memory is None or (mask.device.type == "cpu" and not mask.any()):
            return
        self.memory = choose_state(mask.flatten(), self._blank(self.memory[0]), self.memory)

    def _blank(self, like: Float[Tensor, "B ..."]) -> State:
        state, belief = self.model.prior(len(like), like)
        return (*state, *belief)
