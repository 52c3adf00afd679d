"""MAML for reinforcement learning (Finn et al. 2017, section 4.2, algorithm 3), with later variants as options."""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.adaptation import Parameters, stack
from metarl.agent import EnvSpec
from metarl.agents.meta_objective import SCALE, InnerStep, LocalModel, MetaObjective, split
from metarl.agents.policy_gradient import ADAPTED, PolicyGradientAgent, PolicyGradientConfig, Stage
from metarl.agents.trpo import TrustRegion, trust_region_step
from metarl.errors import UsageError
from metarl.faults import check_finite
from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyNetwork
from metarl.parallel import Ranks
from metarl.randomness import derive_seed
from metarl.ranges import check_range
from metarl.tasks import check_count
from metarl.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class MAMLConfig(PolicyGradientConfig):
    """Options of MAML.

    >>> from metarl.agents.maml import MAMLConfig
    >>> MAMLConfig(inner_lr=0.2).outer
    'trpo'
    """

    first_order: bool = False
    """Ignore how the inner gradient depends on the parameters (first-order MAML)."""
    learn_inner_lr: bool = False
    """Learn a step size for each parameter by the outer update (Meta-SGD, Li et al. 2017), from those above on."""
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
        super().__post_init__()
        check_count("outer_epochs", self.outer_epochs)
        check_range("curvature_fraction", self.curvature_fraction, above=0, most=1)
        check_range("outer_lr", self.outer_lr, above=0)
        check_range("clip", self.clip, above=0, most=math.inf)
        check_range("inner_kl_penalty", self.inner_kl_penalty, least=0)

    def check_beginning(self, spec: EnvSpec, *, steps: int | None = None) -> None:
        super().check_beginning(spec, steps=steps)
        if self.outer == "trpo":
            self._refuse_unless_usual("is for outer ppo and promp, not trpo", "outer_lr", "outer_epochs", "clip")
            if self.curvature_fraction * self.envs_per_task < 1:
                raise UsageError(
                    f"curvature_fraction of {self.curvature_fraction} is less than one of {self.envs_per_task} "
                    f"episodes: take {1 / self.envs_per_task:.2g} or more"
                )
        else:
            self._refuse_unless_usual(f"is for outer trpo, not {self.outer}", "trust_region", "curvature_fraction")
        if self.outer != "promp":
            self._refuse_unless_usual(f"is for outer promp, not {self.outer}", "inner_kl_penalty")
        if self.exploration and self.num_tasks == 1:
            raise UsageError(
                "exploration credits episodes with how a task's returns differ from those of others: it "
                "needs num_tasks of 2 or more"
            )


class MAML(PolicyGradientAgent):
    """Learns initial parameters from which one policy-gradient step on episodes of a new task improves the policy most.

    An iteration collects episodes of each task before adaptation and after each of `inner_steps` gradient steps, and
    improves the return after adaptation by the `outer` update.

    With `learn_inner_lr`, every parameter has a step size α of its own: θ' = θ − α ∘ ∇L(θ) (Li et al. 2017, equation
    2). It is `inner_lr`, or `later_inner_lr`, times a scale that starts at 1. The outer update changes θ and the scales
    together: the trust region bounds the step of both, with exact derivatives. Deviations: the paper draws the first
    step sizes at random and takes one step; here all steps share the scales. A scale may become negative, as there.

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
    stream = "maml"
    shares_tasks = True

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
        if config.learn_inner_lr:
            scales = {f"{SCALE}{name}": torch.ones_like(value) for name, value in self._initial().items()}
            self.parameters |= {name: value.requires_grad_() for name, value in scales.items()}
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=config.outer_lr)

    def improve(self, env: TaskVectorEnv, *, seed: int) -> dict[str, int | float]:
        objective, stages = self._rollouts(env, seed)
        update = self._trust_region_update if self.config.outer == "trpo" else self._clipped_update
        losses = update(objective)
        for stage in stages:  # after the update, which must improve the policy that acted
            self.network.scale.update(stage.observations, self.ranks)
        return self._metrics(stages) | losses

    def _rollouts(self, env: TaskVectorEnv, seed: int) -> tuple[MetaObjective, list[Stage]]:
        """Collects episodes before adaptation and after each inner step.

        Returns the objective that they define, and what else the iteration needs of them.
        """
        config = self.config
        generator = self.ranks.generator(self.stream, "improve", seed, device=self.device)
        policy, scales = split(self._initial())
        parameters = stack(policy, env.num_tasks)
        steps: list[InnerStep] = []
        stages: list[Stage] = []
        for step in range(config.inner_steps + 1):
            batch, stage = self._collect(env, parameters, generator, derive_seed(seed, step))
            stages.append(stage)
            if step < config.inner_steps:
                gradient = self._gradient(self.network, batch)
                steps.append(InnerStep(gradient, parameters, self._step_size(step), scales))
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
        return dict(zip(self.parameters, self.ranks.means(values), strict=True))

    def _standardized(self, values: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
        """(x − mean) / standard deviation over the tasks of all ranks."""
        centred = values - self.ranks.mean(values.mean())
        return centred / (self.ranks.mean(centred.square().mean()).sqrt() + 1e-8)

    def _flatten(self, parameters: Parameters) -> Float[Tensor, "P"]:
        return torch.cat([parameters[name].flatten() for name in self.parameters])

    def _unflatten(self, vector: Float[Tensor, "P"]) -> Parameters:
        sizes = [value.numel() for value in self.parameters.values()]
        parts = zip(self.parameters.items(), vector.split(sizes), strict=True)
        return {name: part.reshape(value.shape) for (name, value), part in parts}
