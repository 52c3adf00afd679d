"""The objective of MAML-RL's outer update: the performance of adapted policies, as a function of initial parameters."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.adaptation import Parameters, adapt, stack
from metarl.nn.heads import Phi
from metarl.nn.mlp import restricted
from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyLinearization, PolicyNetwork
from metarl.nn.wide import Basis, map_values
from metarl.parallel import Ranks


class InnerStep:
    """A gradient step of all tasks, and the Jacobian J = I − α ∇²L of its result with respect to its start.

    >>> from metarl.adaptation import stack
    >>> from metarl.agents.meta_objective import InnerStep
    >>> from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyNetwork
    >>> family, zeros = metarl.make("PointNavigation-v0"), torch.zeros(3, 5)
    >>> network = PolicyNetwork(family.observation_space, family.action_space, hidden=(64, 64))
    >>> batch = PolicyBatch(torch.zeros(3, 5, 2), torch.zeros(3, 5, 2), zeros + 0.2, zeros == 0, zeros)
    >>> theta = stack(network.initialize(torch.Generator()), 3)
    >>> adapted = InnerStep(PolicyGradient(network, batch), theta, step_size=0.1).after
    """

    def __init__(self, gradient: PolicyGradient, parameters: Parameters, step_size: float):
        self.gradient = gradient
        self.before = parameters
        self.step_size = step_size
        self.local, slope = gradient.linearize(parameters)
        """The policy's derivatives at `before`."""
        self.after = _minus(parameters, slope, step_size)

    def jacobian_product(self, vector: Parameters) -> Parameters:
        """J v `[M, ...]`, which is also Jᵀ v because J is symmetric."""
        return _minus(vector, self.gradient.hessian_product(self.local, vector), self.step_size)

    def estimated_from(self, fraction: float) -> "InnerStep":
        """The same step, with the Jacobian estimated from the first `fraction` of each task's samples."""
        gradient = PolicyGradient(
            self.gradient.network,
            _head_of(self.gradient.batch, fraction),
            likelihood_ratio=self.gradient.likelihood_ratio,
        )
        estimate = InnerStep(gradient, self.before, self.step_size)
        estimate.after = self.after
        return estimate

    def restricted(self, basis: Basis) -> "InnerStep":
        """The same step, whose Jacobian is that of the parameters `restricted` to a basis."""
        copied = copy.copy(self)
        copied.local = self.local.restricted(basis)
        return copied


@dataclass(frozen=True)
class MetaObjective:
    """Fixed samples of M tasks, before and after adaptation, and the losses that they define as functions of θ.

    >>> from metarl.adaptation import stack
    >>> from metarl.agents.meta_objective import InnerStep, MetaObjective
    >>> from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyNetwork
    >>> family, zeros = metarl.make("PointNavigation-v0"), torch.zeros(3, 5)
    >>> network = PolicyNetwork(family.observation_space, family.action_space, hidden=(64, 64))
    >>> batch = PolicyBatch(torch.zeros(3, 5, 2), torch.zeros(3, 5, 2), zeros + 0.2, zeros == 0, zeros)
    >>> theta = network.initialize(torch.Generator())
    >>> step = InnerStep(PolicyGradient(network, batch), stack(theta, 3), step_size=0.1)
    >>> loss, phi = MetaObjective(network, [step], query=batch).loss(theta)
    """

    network: PolicyNetwork
    steps: Sequence[InnerStep]
    """The inner steps, each computed from the episodes collected before it."""
    query: PolicyBatch
    """The episodes collected after adaptation."""
    first_order: bool = False
    """Ignore how the inner gradients depend on θ."""
    clip: float | None = None
    """Clip range of the likelihood ratio (PPO, ProMP); None for the plain ratio (TRPO)."""
    inner_kl_penalty: float = 0.0
    """Weight of the KL between the initial policy and the one that collected the first episodes (ProMP, eq. 13)."""
    exploration_weights: Float[Tensor, "M"] | None = None
    """Credit of each task's first episodes for the return after adaptation (E-MAML); None without that term."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes with the other tasks, the same number on each rank."""

    @property
    def num_tasks(self) -> int:
        return len(self.query.weights)

    def phi(self, parameters: Parameters) -> Phi:
        """The adapted policies' distributions over the query actions, differentiable with respect to θ."""
        adapted = adapt(
            stack(parameters, self.num_tasks),
            [step.gradient for step in self.steps],
            [step.step_size for step in self.steps],
            first_order=self.first_order,
        )
        return self.network(adapted, self.query.observations)

    def loss(self, parameters: Parameters) -> tuple[Float[Tensor, ""], Phi]:
        """Minus the likelihood-ratio surrogate of the return after adaptation, and φ at the query samples."""
        phi = self.phi(parameters)
        ratio = (self.network.head.log_prob(phi, self.query.actions) - self.query.log_probs).exp()
        gain = ratio * self.query.weights
        if self.clip is not None:
            gain = torch.minimum(gain, ratio.clamp(1 - self.clip, 1 + self.clip) * self.query.weights)
        return self.initial_policy_loss(parameters) - gain.sum(1).mean(), phi

    def initial_policy_loss(self, parameters: Parameters) -> Float[Tensor, ""]:
        """The part of the loss that depends on the first episodes only; zero for plain MAML."""
        batch = self.steps[0].gradient.batch
        total = batch.weights.new_zeros(())
        if not self.inner_kl_penalty and self.exploration_weights is None:
            return total
        phi = self.network(stack(parameters, self.num_tasks), batch.observations)
        log_ratio = self.network.head.log_prob(phi, batch.actions) - batch.log_probs
        if self.inner_kl_penalty:
            # E_old[ρ − 1 − log ρ] = KL(old ‖ new): an estimate from samples that is never negative.
            total = total + self.inner_kl_penalty * batch.mean(log_ratio.exp() - 1 - log_ratio).mean()
        if self.exploration_weights is not None:
            total = total - (batch.mean(log_ratio.exp()) * self.exploration_weights).mean()
        return total

    @torch.no_grad()
    def loss_and_kl(self, parameters: Parameters, old: Phi) -> tuple[float, float]:
        """The loss, and the mean KL(old ‖ new) of the adapted policies over the query samples."""
        loss, phi = self.loss(parameters)
        kl = self.query.mean(self.network.head.kl(old, phi)).mean()
        return float(self.ranks.mean(loss)), float(self.ranks.mean(kl))


class LocalModel:
    """Loss, gradient and curvature of a `MetaObjective` at the θ that took its samples, without autograd.

    At this θ the likelihood ratios are 1 and the gradient of the KL vanishes. With J_i = Π (I − α ∇²L_i), the Jacobian
    of adaptation, and F_i, the Fisher matrix of π_θ'_i, the exact derivatives are

        gradient  = (1/M) Σ_i J_iᵀ ∇L_i(θ'_i)          curvature = (1/M) Σ_i J_iᵀ F_i J_i

    A product with the curvature costs two Hessian products of the inner loss and one Fisher product. With `fraction`
    below 1 it is an estimate from that share of each task's samples, at that share of the cost. The gradient always
    uses all samples.

    If observations are `WideVectors`, products are taken in a `Basis` that holds those of all batches. In other
    directions of the first layer's weights, there is no gradient and no curvature, and J is the identity.

    >>> from metarl.adaptation import stack
    >>> from metarl.agents.meta_objective import InnerStep, LocalModel, MetaObjective
    >>> from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyNetwork
    >>> family, zeros = metarl.make("PointNavigation-v0"), torch.zeros(3, 5)
    >>> network = PolicyNetwork(family.observation_space, family.action_space, hidden=(64, 64))
    >>> batch = PolicyBatch(torch.zeros(3, 5, 2), torch.zeros(3, 5, 2), zeros + 0.2, zeros == 0, zeros)
    >>> theta = network.initialize(torch.Generator())
    >>> step = InnerStep(PolicyGradient(network, batch), stack(theta, 3), step_size=0.1)
    >>> product = LocalModel(MetaObjective(network, [step], query=batch)).curvature_product(theta)
    """

    def __init__(self, objective: MetaObjective, fraction: float = 1.0):
        self.objective = objective
        self.steps = [] if objective.first_order else list(objective.steps)
        adapted = objective.steps[-1].after
        outer = PolicyGradient(objective.network, objective.query)
        self._fisher, slope = outer.linearize(adapted)
        self.phi: Phi = self._fisher.phi
        """φ of the adapted policies at the query samples."""
        self.loss = -float(objective.ranks.mean(objective.query.weights.sum(1).mean()))
        self._restrict()
        self.gradient = self._pull_back(self._narrow(slope))
        self._valid = objective.query.valid
        if fraction < 1:
            query = _head_of(objective.query, fraction)
            self.steps = [] if objective.first_order else [step.estimated_from(fraction) for step in objective.steps]
            self._fisher, self._valid = PolicyLinearization(objective.network, adapted, query.observations), query.valid
            self._restrict()

    def curvature_product(self, vector: Parameters) -> Parameters:
        """H v, where H is the Hessian of the mean KL of the adapted policies."""
        stacked = stack(self._narrow(vector), self.objective.num_tasks)
        for step in self.steps:
            stacked = step.jacobian_product(stacked)
        return self._pull_back(self._fisher.fisher_product(stacked, self._valid))

    def _pull_back(self, stacked: Parameters) -> Parameters:
        for step in reversed(self.steps):
            stacked = step.jacobian_product(stacked)
        mean = {name: value.mean(0) for name, value in stacked.items()}
        if self._basis is not None:  # each rank has its own
            mean["weight0"] = self._basis.spread(mean["weight0"])
        return {name: self.objective.ranks.mean(value) for name, value in mean.items()}

    def _narrow(self, parameters: Parameters) -> Parameters:
        return parameters if self._basis is None else restricted(parameters, self._basis)

    def _restrict(self) -> None:
        """From here on, products are taken in a basis, if there is one."""
        self._basis = _joint_basis([*(step.local for step in self.steps), self._fisher])
        if self._basis is not None:
            self.steps = [step.restricted(self._basis) for step in self.steps]
            self._fisher = self._fisher.restricted(self._basis)


def _joint_basis(linearizations: Sequence[PolicyLinearization]) -> Basis | None:
    """A basis that holds the observations of all, if all have one."""
    bases = [each.basis for each in linearizations if each.basis is not None]
    return functools.reduce(Basis.joined, bases) if len(bases) == len(linearizations) else None


def _minus(parameters: Parameters, change: Parameters, factor: float) -> Parameters:
    return {name: torch.sub(value, change[name], alpha=factor) for name, value in parameters.items()}


def _head_of(batch: PolicyBatch, fraction: float) -> PolicyBatch:
    """The first `fraction` of each task's samples, with weights scaled so that sums estimate those over all samples."""
    count = max(1, round(batch.weights.shape[1] * fraction))
    valid = batch.valid[:, :count]
    scale = batch.valid.sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)
    return PolicyBatch(
        observations=map_values(lambda values: values[:, :count], batch.observations),
        actions=batch.actions[:, :count],
        weights=batch.weights[:, :count] * scale,
        valid=valid,
        log_probs=batch.log_probs[:, :count],
    )
