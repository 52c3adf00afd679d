"""What agents share that adapt by policy-gradient steps: the network, the steps, their advantages, the saved state."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.adaptation import Parameters, adapt, stack
from metarl.agent import POLICY_ALARMS, Agent, AgentConfig, EnvSpec
from metarl.agents.meta_objective import scaled, split
from metarl.errors import UsageError
from metarl.faults import check_finite
from metarl.nn.baseline import Baseline, baseline_metrics, episode_time, fit_baseline
from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyNetwork, StackedPolicy
from metarl.nn.wide import WideVectors, map_values, without_constant_columns
from metarl.optimizer_state import load_optimizer_tensors, optimizer_tensors
from metarl.parallel import Ranks
from metarl.randomness import derive_seed, make_generator
from metarl.ranges import check_range
from metarl.rollout import (
    Policy,
    Trajectories,
    collect,
    discounted_returns,
    gae,
    standardize,
    success_metrics,
    used_fraction,
)
from metarl.spaces import Observations
from metarl.tasks import check_count
from metarl.vector_env import TaskVectorEnv

ADAPTED = "a parameter after an inner gradient step"


@dataclass(frozen=True)
class PolicyGradientConfig(AgentConfig):
    """Options of agents that adapt by policy-gradient steps.

    >>> from metarl.agents.policy_gradient import PolicyGradientConfig
    >>> PolicyGradientConfig(inner_lr=0.2).later_inner_lr
    0.05
    """

    hidden: tuple[int, ...] = (64, 64)
    """Units of the policy's tanh layers."""
    initial_std: float = 1.0
    """Standard deviation of the untrained Gaussian policy."""
    inner_steps: int = 1
    """Gradient steps of adaptation in training."""
    inner_lr: float = 0.1
    """Step size of the first gradient step (α)."""
    later_inner_lr: float = 0.05
    """Step size of all later gradient steps; half of the first by default, as in Finn et al. 2017, appendix A.2."""
    discount: float = 0.99
    """Discount of rewards (γ)."""
    gae_lambda: float = 1.0
    """λ of generalised advantage estimation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("inner_steps", self.inner_steps)
        for size in self.hidden:
            check_count("a size in hidden", size)
        for name in ("initial_std", "inner_lr", "later_inner_lr"):
            check_range(name, getattr(self, name), above=0)
        for name in ("discount", "gae_lambda"):
            check_range(name, getattr(self, name), least=0, most=1)


class AdaptedPolicy(StackedPolicy):
    """A `StackedPolicy` that counts the gradient steps it has taken, and keeps the scales of their sizes if learned.

    >>> from metarl.agents.maml import MAML, MAMLConfig
    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> env = family.make_env(num_tasks=1, envs_per_task=20)
    >>> env.set_tasks(family.task(goal=[0.3, 0.1]))
    >>> MAML(MAMLConfig(), metarl.EnvSpec.of(family)).adapt(env, episodes=20).steps
    1
    """

    def __init__(
        self,
        network: PolicyNetwork,
        parameters: Parameters,
        generator: torch.Generator,
        steps: int = 0,
        scales: Parameters | None = None,
    ):
        super().__init__(network, parameters, generator)
        self.steps = steps
        self.scales = scales


class PolicyGradientAgent(Agent):
    """An agent that learns initial `parameters`, from which policy-gradient steps adapt to a task.

    A step takes the gradient of −mean A log π(a | o) on the whole episodes of a batch. The advantages A are generalised
    advantage estimates over a linear baseline, fitted to the same episodes and standardised: the metric
    `baseline_features` tells with how many features, `baseline_r2` how well it predicts episodes that it was not fitted
    to. `optimizer` is what a subclass changes `parameters` with, and saved with them.

    >>> from metarl.agents.maml import MAML, MAMLConfig
    >>> from metarl.agents.policy_gradient import PolicyGradientAgent
    >>> isinstance(MAML(MAMLConfig(), metarl.EnvSpec.of(metarl.make("Bandit-v0"))), PolicyGradientAgent)
    True
    """

    alarms = POLICY_ALARMS
    config: PolicyGradientConfig
    stream: ClassVar[str]
    """What the agent's random numbers are derived from, beside seeds."""
    optimizer: torch.optim.Optimizer

    def __init__(
        self,
        config: PolicyGradientConfig,
        spec: EnvSpec,
        *,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Ranks | None = None,
    ):
        super().__init__(config, spec, device=device, seed=seed, ranks=ranks)
        self.network = PolicyNetwork(
            spec.observation_space, spec.action_space, config.hidden, config.initial_std, self.device
        )
        initial = self.network.initialize(make_generator(self.stream, seed))
        self.parameters = {name: value.to(self.device).requires_grad_() for name, value in initial.items()}

    def adapt(self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None) -> AdaptedPolicy:
        """Takes one gradient step per `envs_per_task` episodes, as in training, and one for the remaining episodes."""
        self.check_adaptation(env, episodes, policy, AdaptedPolicy)
        generator = make_generator(self.stream, "adapt", seed, device=self.device)
        if policy is None:  # copies: training changes the agent's own in place
            initial, scales = split({name: value.clone() for name, value in self._initial().items()})
            parameters, network, steps = stack(initial, env.num_tasks), self.network.frozen(), 0
        else:
            assert isinstance(policy, AdaptedPolicy)
            parameters, network, steps, scales = policy.parameters, policy.network, policy.steps, policy.scales
        for start in range(0, episodes, self.config.envs_per_task):
            count = min(self.config.envs_per_task, episodes - start)
            rounds = -(-count // env.envs_per_task)
            actor = StackedPolicy(network, parameters, generator)
            trajectories = collect(env, actor, episodes=rounds, seed=derive_seed(seed, start))
            batch, _ = self._batch(trajectories, trajectories.in_first_episodes(count))
            with torch.no_grad():
                step_size = scaled(self._step_size(steps), scales)
                parameters = adapt(parameters, [self._gradient(network, batch)], [step_size])
            check_finite(ADAPTED, parameters)
            steps += 1
        return AdaptedPolicy(network, parameters, generator, steps, scales)

    def stages(self, episodes: int | None = None) -> list[int]:
        """After every gradient step; three steps by default."""
        batch = self.config.envs_per_task
        total = 3 * batch if episodes is None else episodes
        return [*range(0, total, batch), total]

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        tensors = {name: value.detach().cpu().clone() for name, value in self._learned().items()}
        return tensors | optimizer_tensors(self.optimizer), {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        shapes = {name: value.shape for name, value in tensors.items() if not name.startswith("optimizer.")}
        expected = {name: value.shape for name, value in self._learned().items()}
        wrong = sorted(name for name in shapes.keys() | expected.keys() if shapes.get(name) != expected.get(name))
        if wrong:
            raise UsageError(f"the saved state is not of this agent: {', '.join(wrong)} missing or of another shape")
        self._assign(tensors)
        scale = {name.removeprefix("scale."): v for name, v in tensors.items() if name.startswith("scale.")}
        self.network.scale.load_state_dict(scale)
        load_optimizer_tensors(self.optimizer, tensors)

    def _learned(self) -> Parameters:
        """All tensors of the agent except the optimizer's."""
        return self.parameters | {f"scale.{name}": value for name, value in self.network.scale.state_dict().items()}

    def _collect(
        self, env: TaskVectorEnv, parameters: Parameters, generator: torch.Generator, seed: int
    ) -> tuple[PolicyBatch, "Stage"]:
        """Episodes of the policies with stacked `parameters`, for as many steps as the horizon has."""
        trajectories = collect(env, StackedPolicy(self.network, parameters, generator), env.horizon, seed=seed)
        return self._batch(trajectories, trajectories.in_complete_episodes)

    def _metrics(self, stages: list["Stage"]) -> dict[str, int | float]:
        """What an iteration reports of the episodes that it collected."""
        return {
            "env_steps": sum(stage.used.numel() for stage in stages),
            "return_mean": float(stages[-1].returns.mean()),
            "return_before_adaptation": float(stages[0].returns.mean()),
            "used_fraction": used_fraction(*(stage.used for stage in stages)),
            **stages[-1].success,
            **baseline_metrics(*(stage.baseline for stage in stages), ranks=self.ranks),
        }

    def _gradient(self, network: PolicyNetwork, batch: PolicyBatch) -> PolicyGradient:
        """The gradient of an inner step."""
        return PolicyGradient(network, batch)

    def _batch(self, trajectories: Trajectories, valid: Bool[Tensor, "T M N"]) -> tuple[PolicyBatch, "Stage"]:
        """The `valid` steps, which are complete episodes, with advantages over a baseline fitted to them."""
        observations = without_constant_columns(trajectories.observations)
        advantages, baseline = self._advantages(trajectories, observations, valid)
        assert trajectories.log_probs is not None
        batch = PolicyBatch(
            observations=map_values(_by_task, observations),
            actions=_by_task(trajectories.actions),
            weights=_by_task(advantages / valid.sum((0, 2), keepdim=True).clamp(min=1)),
            valid=_by_task(valid),
            log_probs=_by_task(trajectories.log_probs),
        )
        return batch, Stage(
            observations, trajectories.episode_returns(), valid, baseline, success_metrics(trajectories)
        )

    def _advantages(
        self, trajectories: Trajectories, observations: Observations | WideVectors, valid: Bool[Tensor, "T M N"]
    ) -> tuple[Float[Tensor, "T M N"], Baseline]:
        rewards, ended = trajectories.rewards, trajectories.ended
        returns = discounted_returns(rewards, ended, self.config.discount)
        time = episode_time(trajectories.episode_starts)
        baseline = fit_baseline(observations, time, returns, valid)
        values = baseline.values
        advantages = gae(
            rewards,
            values,
            torch.cat([values[1:], torch.zeros_like(values[:1])]),
            ended,  # the baseline reads the time: beyond the horizon there is no return left
            ended,
            discount=self.config.discount,
            gae_lambda=self.config.gae_lambda,
        )
        return standardize(advantages, valid, dim=(0, 2)), baseline

    def _step_size(self, step: int) -> float:
        return self.config.inner_lr if step == 0 else self.config.later_inner_lr

    def _initial(self) -> Parameters:
        return {name: value.detach() for name, value in self.parameters.items()}

    @torch.no_grad()
    def _assign(self, parameters: Mapping[str, Tensor]) -> None:
        for name, value in self.parameters.items():
            value.copy_(parameters[name])


@dataclass(frozen=True)
class Stage:
    """What the rest of an iteration needs of the episodes before adaptation or after an inner step.

    >>> from metarl.agents.policy_gradient import Stage
    >>> from metarl.nn.baseline import fit_baseline
    >>> zeros = torch.zeros(5, 2, 3)
    >>> baseline = fit_baseline(zeros[..., None], zeros.long(), zeros, valid=zeros == 0)
    >>> Stage(zeros[..., None], zeros.sum(0), zeros == 0, baseline, success={}).returns.shape
    torch.Size([2, 3])
    """

    observations: Observations | WideVectors
    """`[T, M, N, ...]`"""
    returns: Float[Tensor, "M N"]
    """Undiscounted, of each environment's first episode."""
    used: Bool[Tensor, "T M N"]
    """The steps that the update uses."""
    baseline: Baseline
    success: dict[str, float]
    """`success_metrics` of the same episodes."""


def _by_task(values: Tensor) -> Tensor:
    """`[T, M, N, ...]` as `[M, N·T, ...]`: the steps of each environment stay together."""
    return values.permute(1, 2, 0, *range(3, values.ndim)).flatten(1, 2)
