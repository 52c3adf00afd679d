"""VariBAD's belief about the task: an encoder of what has happened, decoders of the whole trial, and their ELBO.

    ELBO_t = E_{m ~ q_t}[log p(τ_{:H} | m)] − β KL(q_t ‖ q_{t−1})    q_t = N(μ_t, σ_t²), q_0 = N(0, 1)
    log p(τ_{:H} | m) = Σ_s log p(r_s | s_s, a_s, s_{s+1}, m) [+ log p(s_{s+1} | s_s, a_s, m)]

q_t is the belief about the task's embedding m after t steps of the trial, and s runs over all its H steps, past and
future (Zintgraf et al. 2020, section 3.1). Rewards and observations, in units of their running standard deviations,
have Gaussian distributions of variance 1 around what the decoders predict.

Deviations: the authors' squared errors are those of variance ½, in raw units. One embedding layer reads all parts of a
step instead of one for each. q_0 is the prior itself, so that a first action knows nothing of the task, and the term
t = 0, in which the encoder has no part, is left out.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from metarl.nn.heads import Head
from metarl.nn.normalization import RunningNorm
from metarl.nn.recurrent import GRU
from metarl.nn.sequence import State, fan_in_uniform
from metarl.parallel import Ranks
from metarl.rollout import Trajectories

EMBEDDING = 64
DECODER = (64, 32)
"""Units of the decoders' hidden layers."""


class Belief(NamedTuple):
    """Independent Gaussians about each number of the task's embedding.

    >>> from metarl.agents.belief import Belief
    >>> Belief(torch.zeros(3, 5), torch.zeros(3, 5)).std[0]
    tensor([1., 1., 1., 1., 1.])
    """

    mean: Float[Tensor, "... L"]
    log_std: Float[Tensor, "... L"]

    @property
    def std(self) -> Float[Tensor, "... L"]:
        return self.log_std.exp()


def kl_divergence(q: Belief, p: Belief) -> Float[Tensor, "..."]:
    """KL(q ‖ p) = Σ log σ_p/σ_q + (σ_q² + (μ_q − μ_p)²) / 2σ_p² − ½ in nats."""
    gap = q.log_std - p.log_std
    return (0.5 * ((2 * gap).exp() + ((q.mean - p.mean) / p.std).square() - 1) - gap).sum(-1)


def log_density(errors: Float[Tensor, "... D"]) -> Float[Tensor, "..."]:
    """The log-density of D numbers that are `errors` away from the means of Gaussians of variance 1."""
    return -0.5 * (errors.square() + math.log(2 * math.pi)).sum(-1)


@dataclass(frozen=True)
class Experience:
    """`T` steps of `B` environments, each of which runs one trial after another.

    >>> from metarl.agents.belief import Experience
    >>> flags, x = torch.zeros(10, 3, dtype=torch.bool), torch.zeros(10, 3, 2)
    >>> Experience(x, torch.zeros(10, 3, 1), torch.zeros(10, 3), x, starts=flags, valid=~flags).trials.max()
    tensor(0)
    """

    observations: Float[Tensor, "T B D"]
    actions: Shaped[Tensor, "T B ..."]
    rewards: Float[Tensor, "T B"]
    next_observations: Float[Tensor, "T B D"]
    """The true next observations, before any autoreset."""
    starts: Bool[Tensor, "T B"]
    """The first steps of trials."""
    valid: Bool[Tensor, "T B"]
    """The steps to learn from."""

    @classmethod
    def of(cls, trajectories: Trajectories, valid: Bool[Tensor, "T M N"]) -> "Experience":
        """The steps of `trajectories`, whose observations are vectors."""
        observations, reached = trajectories.observations, trajectories.final_observations
        assert isinstance(observations, Tensor)
        assert isinstance(reached, Tensor)
        return cls(
            observations=observations.flatten(1, 2),
            actions=trajectories.actions.flatten(1, 2),
            rewards=trajectories.rewards.flatten(1),
            next_observations=reached.flatten(1, 2),
            starts=trajectories.trial_starts.flatten(1),
            valid=valid.flatten(1),
        )

    @property
    def trials(self) -> Int[Tensor, "T B"]:
        """Which trial of its environment a step belongs to."""
        return self.starts.long().cumsum(0)


class Decoder(nn.Module):
    """Predicts numbers of a step from what is known of the step and an embedding of the task.

    The part of the first layer that reads the step does not depend on the embedding, nor the other way round, so K
    embeddings and S steps take K + S products, and only the layers after it K · S.

    >>> from metarl.agents.belief import Decoder
    >>> decoder = Decoder(step=7, latent=5, outputs=1)
    >>> decoder(torch.zeros(10, 3, 7), torch.zeros(4, 3, 5)).shape
    torch.Size([4, 10, 3, 1])
    """

    def __init__(self, step: int, latent: int, outputs: int):
        super().__init__()
        self.embedding = nn.Linear(step, EMBEDDING)
        self.from_step = nn.Linear(EMBEDDING, DECODER[0])
        self.from_task = nn.Linear(latent, DECODER[0], bias=False)
        self.hidden = nn.Linear(*DECODER)
        self.output = nn.Linear(DECODER[1], outputs)

    def forward(self, steps: Float[Tensor, "S B I"], latents: Float[Tensor, "K B L"]) -> Float[Tensor, "K S B O"]:
        of_steps = self.from_step(self.embedding(steps).relu())
        hidden = (of_steps + self.from_task(latents)[:, None]).relu_()
        return self.output(self.hidden(hidden).relu_())


class BeliefModel(nn.Module):
    """The encoder of beliefs and the decoders that train it. Without `decode_states`, only rewards are decoded.

    Observations and rewards are normalised by running statistics.

    >>> from metarl.agents.belief import BeliefModel
    >>> from metarl.nn.heads import head_for
    >>> family = metarl.make("PointNavigation-v0")
    >>> model = BeliefModel(family.observation_space.shape[0], head_for(family.action_space), latent=5, hidden=128)
    >>> model.initialize(torch.Generator())
    >>> actions, rewards, x = torch.zeros(10, 3, 2), torch.zeros(10, 3), torch.zeros(10, 3, 2)
    >>> model.beliefs(actions, rewards, x, starts=rewards.bool()).mean.shape
    torch.Size([10, 3, 5])
    """

    def __init__(self, size: int, head: Head, latent: int, hidden: int, *, decode_states: bool = False):
        super().__init__()
        self.head, self.latent = head, latent
        self.observation_norm = RunningNorm(size)
        self.reward_norm = RunningNorm(1)
        self.embedding = nn.Linear(head.size + 1 + size, EMBEDDING)
        self.core = GRU(EMBEDDING, hidden)
        self.core_parameters = nn.ParameterDict()
        self.posterior = nn.Linear(hidden, 2 * latent)
        self.reward_decoder = Decoder(2 * size + head.size, latent, 1)
        self.state_decoder = Decoder(size + head.size, latent, size) if decode_states else None

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Weights uniform in ±1/√inputs, zero biases; beliefs start near the prior."""
        self.core_parameters.update(self.core.initialize(generator))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.copy_(fan_in_uniform(layer.out_features, layer.in_features, generator))
                if layer.bias is not None:
                    layer.bias.zero_()

    def prior(self, batch: int, like: Tensor) -> tuple[State, Belief]:
        """The state of the encoder and the belief before the first step of a trial, each `[B, ...]`."""
        zeros = like.new_zeros(batch, self.latent)
        return self.core.initial(batch, like), Belief(zeros, zeros)

    def advance(
        self,
        actions: Shaped[Tensor, "B ..."],
        rewards: Float[Tensor, "B"],
        next_observations: Float[Tensor, "B D"],
        state: State,
    ) -> tuple[State, Belief]:
        """The state of the encoder and the belief after one more step."""
        embedded = self._embed(actions, rewards, next_observations)
        features, state = self.core.step(dict(self.core_parameters), embedded, state)
        return state, self._posterior(features)

    def beliefs(
        self,
        actions: Shaped[Tensor, "T B ..."],
        rewards: Float[Tensor, "T B"],
        next_observations: Float[Tensor, "T B D"],
        starts: Bool[Tensor, "T B"],
    ) -> Belief:
        """The beliefs after each step, `[T, B, L]`."""
        embedded = self._embed(actions, rewards, next_observations)
        middle = starts if bool(starts[1:].any()) else None  # memory is blank at the first step anyway
        return self._posterior(self.core.sequence(dict(self.core_parameters), embedded, None, middle)[0])

    def elbo(
        self,
        experience: Experience,
        times: Int[Tensor, "K"],
        steps: Int[Tensor, "S"],
        noise: Float[Tensor, "K B L"],
    ) -> tuple[Float[Tensor, "K B"], Float[Tensor, "K B"], Float[Tensor, "K B"]]:
        """The two terms of ELBO_t for the beliefs after each of `times`: the log-likelihood and the KL, in nats.

        `noise` (standard normal) draws the embeddings. A belief is asked only about valid steps of its own trial. The
        sum over these is estimated from those among `steps`, which are drawn uniformly from all T. The last result is
        the mean squared error of the rewards that each belief predicts.
        """
        e = experience
        after = self.beliefs(e.actions, e.rewards, e.next_observations, e.starts)
        before = Belief(*(self._shifted(values, e.starts) for values in after))
        kl = kl_divergence(Belief(*(v[times] for v in after)), Belief(*(v[times] for v in before)))
        latents = after.mean[times] + after.std[times] * noise
        trials = e.trials
        counts = (trials[times][:, None] == trials[steps]) & e.valid[steps]
        density, error = self.log_likelihood(e, steps, latents)
        scale = len(e.rewards) / len(steps)
        return (density * counts).sum(1) * scale, kl, (error * counts).sum(1) / counts.sum(1).clamp(min=1)

    def log_likelihood(
        self, experience: Experience, steps: Int[Tensor, "S"], latents: Float[Tensor, "K B L"]
    ) -> tuple[Float[Tensor, "K S B"], Float[Tensor, "K S B"]]:
        """The log-density of the outcomes of `steps` given each embedding, and the squared errors of the rewards."""
        e = experience
        observed, reached = (
            self.observation_norm(e.observations[steps]),
            self.observation_norm(e.next_observations[steps]),
        )
        known = torch.cat([observed, self.head.features(e.actions[steps])], -1)
        error = self.reward_decoder(torch.cat([known, reached], -1), latents) - self.reward_norm(
            e.rewards[steps, :, None]
        )
        density = log_density(error)
        if self.state_decoder is not None:
            density = density + log_density(self.state_decoder(known, latents) - reached)
        return density, error.detach().square().squeeze(-1)

    def update_norms(self, experience: Experience, ranks: Ranks | None = None) -> None:
        """Adds valid observations and rewards of all `ranks` to the running statistics."""
        self.observation_norm.update(experience.observations, experience.valid, ranks)
        self.reward_norm.update(experience.rewards[..., None], experience.valid, ranks)

    def _embed(
        self, actions: Shaped[Tensor, "..."], rewards: Float[Tensor, "..."], next_observations: Float[Tensor, "..."]
    ) -> Float[Tensor, "... E"]:
        reward = self.reward_norm(rewards[..., None])
        parts = [self.head.features(actions), reward, self.observation_norm(next_observations)]
        return F.relu(self.embedding(torch.cat(parts, -1)))

    def _posterior(self, features: Float[Tensor, "... H"]) -> Belief:
        return Belief(*self.posterior(features).chunk(2, -1))

    @staticmethod
    def _shifted(values: Float[Tensor, "T B L"], starts: Bool[Tensor, "T B"]) -> Float[Tensor, "T B L"]:
        """Means or log standard deviations before each step: those after the last one, or the prior's, which are 0."""
        return torch.cat([torch.zeros_like(values[:1]), values[:-1]]).masked_fill(starts[..., None], 0)
