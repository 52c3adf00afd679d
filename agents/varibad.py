"""VariBAD (Zintgraf et al. 2020): a policy that knows what it believes about the task, and how sure it is.

    π(a | s, μ, σ)    L = −Σ_t ELBO_t of the belief N(μ_t, σ_t²) + L_PPO of the policy    (section 3.2)

An encoder turns the steps of a trial into a belief about the task (`metarl.agents.belief`). The policy reads the
observation and the belief, which is kept across the episodes of a trial, and is trained by PPO, whose gradient does not
reach the encoder. The encoder learns from a buffer of recent trials, with an optimizer of its own.

Sizes, `lr`, `belief_lr`, `kl_weight` and `elbo_terms` are those of the authors' configuration for HalfCheetahDir
(github.com/lmzintgraf/varibad, config/mujoco). The other options of PPO are those of RL².

Deviations: PPO's minibatches mix single steps of all trials, of which it takes more passes than the authors' two, on
larger batches. The critic also reads how much of the trial is over, since its end bounds the returns; the authors
bootstrap there instead. Observations, rewards and returns are normalised by running statistics. `decoded_steps` draws
steps to decode, of which the authors take all. The ELBO is divided by the number of steps, and its gradient clipped
as PPO's is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.agent import POLICY_ALARMS, EnvSpec
from metarl.agents.actor_critic import trial_advantages
from metarl.agents.belief import BeliefModel, Experience
from metarl.agents.belief_policy import READ, BeliefActorCritic, BeliefPolicy, clock
from metarl.agents.ppo import BYTES_PER_ITERATION, PPO, Columns, Inputs, default_num_tasks
from metarl.agents.trials import TrialAgent, TrialConfig
from metarl.errors import UsageError
from metarl.faults import check_finite
from metarl.nn.heads import Phi
from metarl.nn.module_state import load_module_tensors, module_tensors
from metarl.optimizer_state import load_optimizer_tensors, optimizer_tensors
from metarl.parallel import Ranks
from metarl.randomness import make_generator
from metarl.ranges import check_range
from metarl.replay import ReplayBuffer
from metarl.rollout import Trajectories, standardize
from metarl.spaces import is_vector
from metarl.tasks import check_count


@dataclass(frozen=True)
class VariBADConfig(TrialConfig):
    """Options of VariBAD.

    >>> from metarl.agents.varibad import VariBADConfig
    >>> VariBADConfig(kl_weight=1.0).latent
    5
    """

    lr: float = 7e-4
    """Adam's step size for the policy and the value."""
    latent: int = 5
    """Numbers in the embedding of the task."""
    hidden: int = 128
    """Units of the encoder's GRU."""
    policy_hidden: tuple[int, ...] = (128, 128)
    """Units of the hidden layers of the policy, and of those of the value."""
    initial_std: float = 1.0
    """Standard deviation of the untrained Gaussian policy."""
    decode_states: bool = False
    """Also decode the transitions: for tasks that differ in their dynamics."""
    kl_weight: float = 0.1
    """Weight of the divergence from the belief before (β)."""
    belief_lr: float = 1e-3
    """Adam's step size for the encoder and the decoders."""
    belief_updates: int = 5
    """Steps of the encoder and the decoders per iteration."""
    belief_batch: int = 15
    """Environments whose trials each of these steps learns from."""
    elbo_terms: int = 50
    """Steps whose beliefs each update trains, of all steps of an iteration."""
    decoded_steps: int = 100
    """Steps that each of these beliefs decodes, of all steps of an iteration."""
    buffer: int = 1000
    """Environments whose last iteration's trials are kept, to train the encoder and the decoders."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("latent", "hidden", "belief_updates", "belief_batch", "elbo_terms", "decoded_steps", "buffer")
        for name in counts:
            check_count(name, getattr(self, name))
        for size in self.policy_hidden:
            check_count("policy_hidden", size)
        check_range("belief_lr", self.belief_lr, above=0)
        check_range("kl_weight", self.kl_weight, least=0)


class VariBAD(TrialAgent):
    """A belief about the task, learned from whole trials, and a policy that acts on it.

    The belief starts as the prior at the start of a trial and is kept across its episodes (`TrialAgent`). Observations
    are vectors. Raises `UsageError` for others.

    >>> from metarl.agents.varibad import VariBAD, VariBADConfig
    >>> family = metarl.make("Bandit-v0", arms=5, pulls=10)
    >>> agent = VariBAD(VariBADConfig(num_tasks=4, episodes_per_trial=1), metarl.EnvSpec.of(family), seed=0)
    >>> env = family.make_env(num_tasks=4)
    >>> env.set_tasks(family.sample(4, seed=0))
    >>> agent.improve(env, seed=1)["env_steps"]
    40
    """

    config_class = VariBADConfig
    alarms = POLICY_ALARMS
    config: VariBADConfig
    stream = "varibad"
    shares_tasks = True

    def __init__(
        self,
        config: VariBADConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Ranks | None = None,
    ):
        super().__init__(config, spec, device=device, seed=seed, ranks=ranks)
        if not is_vector(spec.observation_space):
            raise UsageError(
                f"varibad reads vectors, got {spec.observation_space}: rl2 reads pictures and dictionaries"
            )
        size = spec.observation_space.shape[0]
        self.network = BeliefActorCritic(
            size + 2 * config.latent, spec.action_space, config.policy_hidden, config.initial_std
        )
        self.model = BeliefModel(
            size, self.network.head, config.latent, config.hidden, decode_states=config.decode_states
        )
        generator = make_generator("varibad", seed)
        self.model.initialize(generator)
        self.network.initialize(generator)
        self.model.to(self.device)
        self.network.to(self.device)
        self.ppo = PPO(config, self.network, ranks=self.ranks, after_step=self.network.keep_in_range)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.belief_lr)
        self.buffer = ReplayBuffer(config.buffer, self.device)
        self._part = self.ranks.part("belief_batch", config.belief_batch)

    @classmethod
    def default_config(cls, spec: EnvSpec) -> VariBADConfig:
        """The number of tasks of `default_num_tasks`, and a buffer of at most 256 MiB of observations."""
        steps = spec.horizon * VariBADConfig.episodes_per_trial
        tasks = default_num_tasks(spec, steps)
        size = 2 * math.prod(spec.observation_space.shape or ()) * torch.float32.itemsize
        rows = min(VariBADConfig.buffer, BYTES_PER_ITERATION // max(1, steps * size))
        return VariBADConfig(num_tasks=tasks, buffer=max(rows, tasks))

    def _actor(self, generator: torch.Generator) -> BeliefPolicy:
        return BeliefPolicy(self.model, self.network, generator)

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        tensors = module_tensors("network", self.network) | module_tensors("model", self.model)
        beliefs = {f"belief.{name}": value for name, value in optimizer_tensors(self.optimizer).items()}
        return tensors | optimizer_tensors(self.ppo.optimizer) | beliefs, {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        load_module_tensors("network", self.network, tensors)
        load_module_tensors("model", self.model, tensors)
        load_optimizer_tensors(self.ppo.optimizer, tensors)
        beliefs = {name.removeprefix("belief."): v for name, v in tensors.items() if name.startswith("belief.")}
        load_optimizer_tensors(self.optimizer, beliefs)

    def buffers(self) -> Mapping[str, ReplayBuffer]:
        return {"trials": self.buffer}

    def _update(
        self, trajectories: Trajectories, valid: Bool[Tensor, "T M N"], generator: torch.Generator
    ) -> dict[str, float]:
        columns, num_envs = self._columns(trajectories, valid), valid[0].numel()
        metrics = self.ppo.update(self._evaluate, self.network.head, columns, generator, num_envs=num_envs)
        experience = Experience.of(trajectories, valid)
        rows = {field.name: getattr(experience, field.name).transpose(0, 1) for field in fields(Experience)}
        self.buffer.append({name: self.ranks.gather(values, 0) for name, values in rows.items()})
        metrics |= self._learn_beliefs(generator)
        # After the updates, which must improve the policy and the model that acted.
        self.model.update_norms(experience, self.ranks)
        return metrics

    def _columns(self, trajectories: Trajectories, valid: Bool[Tensor, "T M N"]) -> Columns:
        """Each step as a column of its own, with advantages and targets over whole trials."""
        network, steps = self.network, valid.flatten(1)
        count = self.config.episodes_per_trial
        time = clock(trajectories, count * self.spec.horizon, count)
        inputs = torch.cat([trajectories.extras[READ], time], -1).flatten(1, 2)
        with torch.no_grad():
            values = network.denormalize(network(inputs)[1])
        advantages = trial_advantages(trajectories, values, self.config)
        targets = network.targets(values + advantages, steps, self.ranks)
        assert trajectories.log_probs is not None

        def side_by_side(values: Tensor) -> Tensor:
            return values.flatten(0, 1)[None]

        return Columns(
            inputs=side_by_side(inputs),
            starts=None,
            actions=side_by_side(trajectories.actions.flatten(1, 2)),
            log_probs=side_by_side(trajectories.log_probs.flatten(1)),
            advantages=side_by_side(standardize(advantages, steps, ranks=self.ranks)),
            targets=side_by_side(targets),
            valid=side_by_side(steps),
        )

    def _evaluate(self, inputs: Inputs, starts: Bool[Tensor, "T b"] | None) -> tuple[Phi, Float[Tensor, "T b"]]:
        return self.network(inputs)

    def _learn_beliefs(self, generator: torch.Generator) -> dict[str, float]:
        """Steps of the encoder and the decoders; returns means over these of the terms of the ELBO, in nats.

        Raises `NumericalFault` if a loss or gradient is not finite.
        """
        config = self.config
        history = []
        for _ in range(config.belief_updates):
            rows = self.buffer.sample(config.belief_batch, generator, self._part)
            experience = Experience(**{name: values.transpose(0, 1) for name, values in rows.items()})
            history.append(self._belief_step(experience, generator))
        elbo, kl, error = torch.stack(history).mean(0).tolist()
        check_finite("a loss or gradient of the belief", torch.tensor([elbo, kl, error]))
        return {"elbo": elbo, "belief_kl": kl, "reward_error": error}

    def _belief_step(self, experience: Experience, generator: torch.Generator) -> Float[Tensor, "3"]:
        """A step on a mean of ELBO_t over beliefs; returns the ELBO, the KL and the reward's mean squared error."""
        config = self.config
        count = len(experience.rewards)

        def drawn(number: int) -> Tensor:
            return torch.randperm(count, generator=generator, device=self.device)[:number]

        times, steps = drawn(config.elbo_terms), drawn(config.decoded_steps)
        shape = (len(times), config.belief_batch, config.latent)
        noise = torch.randn(shape, generator=generator, device=self.device)[:, self._part]
        terms = self.model.elbo(experience, times, steps, noise)
        valid = experience.valid[times]
        share = valid / self.ranks.mean(valid.sum().float()).clamp(min=1)
        likelihood, kl, error = ((values * share).sum() for values in terms)
        loss = (config.kl_weight * kl - likelihood) / count
        self.optimizer.zero_grad()
        loss.backward()
        found = torch.stack([likelihood - kl, kl, error]).detach()
        (found,) = self.ranks.average_gradients(self.model.parameters(), found)
        # Late in training gradients are small, and Adam's steps for one that is not would destroy the beliefs.
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.max_gradient_norm)
        if bool((found[:2].sum() + norm).isfinite()):
            self.optimizer.step()
        return found + 0 * norm
