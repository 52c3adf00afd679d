"""MAML for reinforcement learning (Finn et al. 2017, section 4.2, algorithm 3), with later variants as options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.adaptation import Parameters, adapt, stack
from metarl.agent import Agent, AgentConfig, EnvSpec
from metarl.agents.meta_objective import InnerStep, LocalModel, MetaObjective
from metarl.agents.trpo import TrustRegion, trust_region_step
from metarl.errors import UsageError
from metarl.faults import check_finite
from metarl.nn.baseline import Baseline, baseline_metrics, episode_time, fit_baseline
from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyNetwork, StackedPolicy
from metarl.nn.wide import WideVectors, map_values, without_constant_columns
from metarl.optimizer_state import load_optimizer_tensors, optimizer_tensors
from metarl.parallel import Ranks
from metarl.randomness import derive_seed, make_generator
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
from metarl.vector_env import TaskVectorEnv

ADAPTED = "a parameter after an inner gradient step"


@dataclass(frozen=True)
class MAMLConfig(AgentConfig):
    """Options of MAML.

    >>> from metarl.agents.maml import MAMLConfig
    >>> MAMLConfig(inner_lr=0.2).outer
    'trpo'
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
    """Step size of all later gradient steps; half of the first by default, as in the paper's appendix A.2."""
    first_order: bool = False
    """Ignore how the inner gradient depends on the parameters (first-order MAML)."""
    discount: float = 0.99
    """Discount of rewards (γ)."""
    gae_lambda: float = 1.0
    """λ of generalised advantage estimation."""
    outer: Literal["trpo", "ppo", "promp"] = "trpo"
    """Outer update: trpo is a trust region, ppo clips likelihood ratios, promp is ProMP (Rothfuss et al. 2019), which
    clips and adds an inner KL penalty."""
    exploration: bool = False
    """E-MAML (Stadie et al. 2018): credit the episodes before adaptation with the returns after it."""
    trust_region: TrustRegion = field(default_factory=TrustRegion)
    curvature_fraction: float = 1.0
    """Share of the episodes that the curvature of the trust region is computed from; 0.25 is much cheaper."""
    outer_lr: float = 1e-3
    """Adam's step size (ppo, promp)."""
    outer_epochs: int = 5
    """Adam's steps per iteration (ppo, promp)."""
    clip: float = 0.3
    """Clip range of the likelihood ratio (ppo, promp)."""
    inner_kl_penalty: float = 5e-4
    """Weight of the KL penalty on the policy before adaptation (promp)."""

    def __post_init__(self) -> None:
        if not 0 < self.curvature_fraction <= 1:
            raise UsageError(f"curvature_fraction must lie in (0, 1], got {self.curvature_fraction}")
        if self.inner_steps < 1:
            raise UsageError(f"inner_steps must be at least 1, got {self.inner_steps}")


class AdaptedPolicy(StackedPolicy):
    """A `StackedPolicy` that counts the gradient steps it has taken.

    >>> from metarl.agents.maml import MAML, MAMLConfig
    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> env = family.make_env(num_tasks=1, envs_per_task=20)
    >>> env.set_tasks(family.task(goal=[0.3, 0.1]))
    >>> MAML(MAMLConfig(), metarl.EnvSpec.of(family)).adapt(env, episodes=20).steps
    1
    """

    def __init__(self, network: PolicyNetwork, parameters: Parameters, generator: torch.Generator, steps: int = 0):
        super().__init__(network, parameters, generator)
        self.steps = steps


class MAML(Agent):
    """Learns initial parameters from which one policy-gradient step on episodes of a new task improves the policy most.

    An iteration collects episodes of each task before adaptation and after each of `inner_steps` gradient steps, and
    improves the return after adaptation by the `outer` update. Advantages are taken over a linear baseline, fitted to
    the same episodes: the metric `baseline_features` tells with how many features, `baseline_r2` how well it predicts
    episodes that it was not fitted to.

    >>> from metarl.agents.maml import MAML, MAMLConfig
    >>> family = metarl.make("PointNavigation-v0", horizon=5)
    >>> agent = MAML(MAMLConfig(num_tasks=4), metarl.EnvSpec.of(family), seed=0)
    >>> env = family.make_env(num_tasks=4, envs_per_task=20)
    >>> env.set_tasks(family.sample(4, seed=0))
    >>> agent.improve(env, seed=1)["env_steps"]  # before and after one inner step
    800
    """

    config_class = MAMLConfig
    config: MAMLConfig

    def __init__(
        self,
        config: MAMLConfig,
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
        initial = self.network.initialize(make_generator("maml", seed))
        self.parameters = {name: value.to(self.device).requires_grad_() for name, value in initial.items()}
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=config.outer_lr)

    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        objective, stages = self._rollouts(env, seed)
        update = self._trust_region_update if self.config.outer == "trpo" else self._clipped_update
        losses = update(objective)
        for stage in stages:  # after the update, which must improve the policy that acted
            self.network.scale.update(stage.observations, self.ranks)
        return {
            "env_steps": sum(stage.used.numel() for stage in stages),
            "return_mean": float(stages[-1].returns.mean()),
            "return_before_adaptation": float(stages[0].returns.mean()),
            "used_fraction": used_fraction(*(stage.used for stage in stages)),
            **stages[-1].success,
            **baseline_metrics(*(stage.baseline for stage in stages)),
            **losses,
        }

    def adapt(self, env: TaskVectorEnv, episodes: int, *, seed: int = 0, policy: Policy | None = None) -> AdaptedPolicy:
        """Takes one gradient step per `envs_per_task` episodes, as in training, and one for the remaining episodes."""
        self.spec.check(env.distribution)
        generator = make_generator("maml", "adapt", seed, device=self.device)
        if policy is None:  # copies: training changes the agent's own in place
            parameters = {name: value.clone() for name, value in stack(self._initial(), env.num_tasks).items()}
            network, steps = self.network.frozen(), 0
        else:
            assert isinstance(policy, AdaptedPolicy)
            parameters, network, steps = policy.parameters, policy.network, policy.steps
        for start in range(0, episodes, self.config.envs_per_task):
            count = min(self.config.envs_per_task, episodes - start)
            rounds = -(-count // env.envs_per_task)
            actor = StackedPolicy(network, parameters, generator)
            trajectories = collect(env, actor, episodes=rounds, seed=derive_seed(seed, start))
            batch, _ = self._batch(trajectories, trajectories.in_first_episodes(count))
            with torch.no_grad():
                parameters = adapt(parameters, [self._gradient(network, batch)], [self._step_size(steps)])
            check_finite(ADAPTED, parameters)
            steps += 1
        return AdaptedPolicy(network, parameters, generator, steps)

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

    def _rollouts(self, env: TaskVectorEnv, seed: int) -> tuple[MetaObjective, list["_Stage"]]:
        """Collects episodes before adaptation and after each inner step.

        Returns the objective that they define, and what else the iteration needs of them.
        """
        config = self.config
        generator = make_generator("maml", "improve", seed, device=self.device)
        parameters = stack(self._initial(), env.num_tasks)
        steps: list[InnerStep] = []
        stages: list[_Stage] = []
        for step in range(config.inner_steps + 1):
            actor = StackedPolicy(self.network, parameters, generator)
            trajectories = collect(env, actor, env.horizon, seed=derive_seed(seed, step))
            batch, stage = self._batch(trajectories, trajectories.in_complete_episodes)
            stages.append(stage)
            del trajectories  # wide observations are kept in the batch alone, without constant columns
            if step < config.inner_steps:
                steps.append(InnerStep(self._gradient(self.network, batch), parameters, self._step_size(step)))
                parameters = steps[-1].after
                check_finite(ADAPTED, parameters)
        objective = MetaObjective(
            self.network,
            steps,
            batch,
            first_order=config.first_order,
            clip=None if config.outer == "trpo" else config.clip,
            inner_kl_penalty=config.inner_kl_penalty if config.outer == "promp" else 0.0,
            exploration_weights=self._standardized(stages[-1].returns.mean(1)) if config.exploration else None,
            ranks=self.ranks,
        )
        return objective, stages

    def _gradient(self, network: PolicyNetwork, batch: PolicyBatch) -> PolicyGradient:
        return PolicyGradient(network, batch, likelihood_ratio=self.config.outer == "promp")

    def _batch(self, trajectories: Trajectories, valid: Bool[Tensor, "T M N"]) -> tuple[PolicyBatch, "_Stage"]:
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
        return batch, _Stage(
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

    def _trust_region_update(self, objective: MetaObjective) -> dict[str, float]:
        model = LocalModel(objective, self.config.curvature_fraction)
        loss, gradient = model.loss, self._flatten(model.gradient)
        if objective.exploration_weights is not None:
            term = objective.initial_policy_loss(self.parameters)
            loss = loss + float(self.ranks.mean(term.detach()))
            gradient = gradient + self._flatten(self._gradients(term))
        step = trust_region_step(
            self.config.trust_region,
            self._flatten(self._initial()),
            gradient,
            lambda vector: self._flatten(model.curvature_product(self._unflatten(vector))),
            lambda vector: objective.loss_and_kl(self._unflatten(vector), model.phi),
            loss,
        )
        self._assign(self._unflatten(step.parameters))
        return {
            "surrogate_gain": loss - step.loss,
            "kl": step.kl,
            "backtracks": step.backtracks,
            "gradient_norm": float(gradient.norm()),
        }

    def _clipped_update(self, objective: MetaObjective) -> dict[str, float]:
        losses = []
        for _ in range(self.config.outer_epochs):
            loss, gradients = objective.loss_and_gradient(self.parameters)
            check_finite("the loss or a gradient of the outer update", loss, *gradients.values())
            for name, gradient in gradients.items():
                self.parameters[name].grad = gradient
            self.optimizer.step()
            losses.append(float(loss))
        return {"surrogate_gain": losses[0] - losses[-1]}

    def _gradients(self, loss: Float[Tensor, ""]) -> Parameters:
        """The gradient of the loss over all ranks, which have the same number of tasks each."""
        values = torch.autograd.grad(loss, list(self.parameters.values()), allow_unused=True, materialize_grads=True)
        return {name: self.ranks.mean(value) for name, value in zip(self.parameters, values, strict=True)}

    def _standardized(self, values: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
        """(x − mean) / standard deviation over the tasks of all ranks."""
        centred = values - self.ranks.mean(values.mean())
        return centred / (self.ranks.mean(centred.square().mean()).sqrt() + 1e-8)

    def _step_size(self, step: int) -> float:
        return self.config.inner_lr if step == 0 else self.config.later_inner_lr

    def _initial(self) -> Parameters:
        return {name: value.detach() for name, value in self.parameters.items()}

    @torch.no_grad()
    def _assign(self, parameters: Mapping[str, Tensor]) -> None:
        for name, value in self.parameters.items():
            value.copy_(parameters[name])

    def _flatten(self, parameters: Parameters) -> Float[Tensor, "P"]:
        return torch.cat([parameters[name].flatten() for name in self.parameters])

    def _unflatten(self, vector: Float[Tensor, "P"]) -> Parameters:
        sizes = [value.numel() for value in self.parameters.values()]
        parts = zip(self.parameters.items(), vector.split(sizes), strict=True)
        return {name: part.reshape(value.shape) for (name, value), part in parts}


@dataclass(frozen=True)
class _Stage:
    """What the rest of an iteration needs of the episodes before adaptation or after an inner step."""

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
