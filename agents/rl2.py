"""RL² (Duan et al. 2016; Wang et al. 2016): a recurrent policy whose learning algorithm is its own dynamics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.agent import Agent, AgentConfig, EnvSpec
from metarl.agents.recurrent import RecurrentActorCritic, RecurrentPolicy
from metarl.errors import UsageError
from metarl.optimizer_state import load_optimizer_tensors, optimizer_tensors
from metarl.randomness import make_generator
from metarl.rollout import Policy, Trajectories, collect, fault_metrics, gae, standardize
from metarl.vector_env import TaskVectorEnv

STEPS_PER_ITERATION = 20_000


@dataclass(frozen=True)
class RL2Config(AgentConfig):
    """Options of RL²."""

    envs_per_task: int = 1
    """Trials per task and iteration (N)."""
    episodes_per_trial: int = 2
    """Episodes of one task that the recurrent state lives through."""
    hidden: int = 128
    """Units of the GRU."""
    initial_std: float = 1.0
    """Standard deviation of the untrained Gaussian policy."""
    discount: float = 0.99
    gae_lambda: float = 0.95
    lr: float = 1e-3
    """Adam's step size."""
    epochs: int = 5
    """Passes over each iteration's trials."""
    minibatches: int = 4
    """Parts that a pass cuts the trials into."""
    clip: float = 0.2
    """Of the likelihood ratio."""
    entropy_bonus: float = 0.005
    value_weight: float = 0.5
    max_gradient_norm: float = 0.5

    def __post_init__(self) -> None:
        for name in ("episodes_per_trial", "hidden", "epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")


class RL2(Agent):
    """PPO (Schulman et al. 2017) over whole trials.

    The recurrent state survives the ends of episodes inside a trial and is blank at its start. Returns and advantages
    run over the whole trial, across episodes, and end with it; a trial is over when its last episode is.
    """

    config_class = RL2Config
    config: RL2Config

    def __init__(self, config: RL2Config, spec: EnvSpec, *, device: torch.device | str = "cpu", seed: int = 0):
        super().__init__(config, spec, device=device, seed=seed)
        self.network = RecurrentActorCritic(
            spec.observation_space, spec.action_space, config.hidden, config.initial_std
        )
        self.network.initialize(make_generator("rl2", seed))
        self.network.to(self.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.lr, eps=1e-5)

    @classmethod
    def default_config(cls, spec: EnvSpec) -> RL2Config:
        """As many tasks as make an iteration about 20,000 steps long, at least 16 and at most 1,000."""
        tasks = STEPS_PER_ITERATION // (spec.horizon * RL2Config.episodes_per_trial)
        return RL2Config(num_tasks=min(max(tasks, 16), 1000))

    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        generator = make_generator("rl2", "improve", seed, device=self.device)
        count = self.config.episodes_per_trial
        actor = RecurrentPolicy(self.network, generator)
        trajectories = collect(env, actor, count * self.spec.horizon, seed=seed)
        return {
            "env_steps": trajectories.num_transitions,
            "return_mean": float(trajectories.episode_returns(count - 1).mean()),
            "return_first_episode": float(trajectories.episode_returns(0).mean()),
            **_success_metrics(trajectories, count),
            **fault_metrics(trajectories),
            **self._update(trajectories, generator),
        }

    def adapt(
        self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None
    ) -> RecurrentPolicy:
        """Lives through `episodes` episodes; every environment of `env` is a trial of its own."""
        generator = make_generator("rl2", "adapt", seed, device=self.device)
        memory = None
        if policy is not None:
            assert isinstance(policy, RecurrentPolicy)
            memory = policy.memory
        if episodes > 0:
            learner = RecurrentPolicy(self.network, generator, memory, episodes)
            collect(env, learner, episodes * self.spec.horizon, seed=seed)
            memory = learner.memory
        return RecurrentPolicy(self.network, generator, memory)

    def stages(self, episodes: int | None = None) -> list[int]:
        """After every episode; by default as many as a trial has."""
        return list(range(self.config.episodes_per_trial if episodes is None else episodes + 1))

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        tensors = {f"network.{name}": value.cpu().clone() for name, value in self.network.state_dict().items()}
        return tensors | optimizer_tensors(self.optimizer), {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        network = {name.removeprefix("network."): v for name, v in tensors.items() if name.startswith("network.")}
        try:
            self.network.load_state_dict(network)
        except RuntimeError as error:
            raise UsageError(f"the saved parameters are not of this agent: {' '.join(str(error).split())}") from None
        load_optimizer_tensors(self.optimizer, tensors)

    def _update(self, trajectories: Trajectories, generator: torch.Generator) -> dict[str, float]:
        """PPO's epochs over the trials of one iteration, each a column of `[T, B]`."""
        network, config = self.network, self.config
        index = trajectories.episode_index
        valid = (index < config.episodes_per_trial).flatten(1)
        last = (trajectories.ended & (index == config.episodes_per_trial - 1)).flatten(1)
        last[-1] = True
        inputs = network.trial_inputs(trajectories).flatten(1, 2)
        actions = trajectories.actions.flatten(1, 2)
        assert trajectories.log_probs is not None
        old_log_probs, rewards = trajectories.log_probs.flatten(1), trajectories.rewards.flatten(1)
        with torch.no_grad():
            values = network.denormalize(network(inputs)[1])
        following = torch.cat([values[1:], torch.zeros_like(values[:1])])
        advantages = gae(rewards, values, following, last, last, discount=config.discount, gae_lambda=config.gae_lambda)
        returns = values + advantages
        advantages = standardize(advantages, valid)
        network.update_return_norm(returns, valid)
        targets = (returns - network.return_norm.mean) / network.return_norm.std
        history = []
        for _ in range(config.epochs):
            order = torch.randperm(valid.shape[1], generator=generator, device=valid.device)
            for part in order.chunk(config.minibatches):
                columns = (inputs, actions, old_log_probs, advantages, targets, valid)
                history.append(self._minibatch(*(value[:, part] for value in columns)))
        # Only now: the policy that is improved has to be the one that acted.
        shape = valid.unflatten(1, trajectories.rewards.shape[1:])
        network.observation_norm.update(trajectories.observations, shape)
        network.reward_norm.update(trajectories.rewards[..., None], shape)
        means = torch.tensor(history).mean(0).tolist()
        return dict(zip(("policy_loss", "value_loss", "entropy", "kl", "clipped"), means, strict=True))

    def _minibatch(
        self,
        inputs: Float[Tensor, "T b I"],
        actions: Tensor,
        old_log_probs: Float[Tensor, "T b"],
        advantages: Float[Tensor, "T b"],
        targets: Float[Tensor, "T b"],
        valid: Bool[Tensor, "T b"],
    ) -> tuple[float, ...]:
        network, config = self.network, self.config
        count = valid.sum()

        def mean(values: Float[Tensor, "T b"]) -> Float[Tensor, ""]:
            return (values * valid).sum() / count

        phi, values, _ = network(inputs)
        log_ratio = network.head.log_prob(phi, actions) - old_log_probs
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - config.clip, 1 + config.clip)
        policy_loss = -mean(torch.minimum(ratio * advantages, clipped * advantages))
        value_loss = 0.5 * mean((values - targets).square())
        entropy = mean(network.head.entropy(phi).expand_as(ratio))
        loss = policy_loss + config.value_weight * value_loss - config.entropy_bonus * entropy
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.max_gradient_norm)
        self.optimizer.step()
        with torch.no_grad():
            kl = mean(ratio - 1 - log_ratio)  # Schulman's low-variance estimator
            outside = mean(((ratio - 1).abs() > config.clip).float())
        return tuple(float(value.detach()) for value in (policy_loss, value_loss, entropy, kl, outside))


def _success_metrics(trajectories: Trajectories, count: int) -> dict[str, float]:
    success = trajectories.episode_success(count - 1)
    return {} if success is None else {"success_mean": float(success.float().mean())}
