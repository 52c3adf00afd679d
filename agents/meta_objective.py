"""The objective of MAML-RL's outer update: the performance of adapted policies, as a function of initial parameters."""

import copy
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.adaptation import Parameters, StepSize, adapt, descend, stack
from metarl.nn.blocks import in_blocks
from metarl.nn.heads import Phi
from metarl.nn.mlp import restricted
from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyLinearization, PolicyNetwork
from metarl.nn.wide import Basis
from metarl.parallel import Ranks
from metarl.threads import in_threads

Result = TypeVar("Result")
SCALE = "step_scale."
"""What the names of learned step sizes begin with; the name of the parameter follows."""


def split(parameters: Parameters) -> tuple[Parameters, Parameters | None]:
    """The parameters of the policy, and those of their learned step sizes by the same names; None if there are none."""
    policy = {name: value for name, value in parameters.items() if not name.startswith(SCALE)}
    scales = {name.removeprefix(SCALE): value for name, value in parameters.items() if name.startswith(SCALE)}
    return policy, scales or None


def scaled(step_size: float, scales: Parameters | None) -> StepSize:
    """The step size of each parameter: the same for all, times `scales` if they are learned."""
    return step_size if scales is None else {name: step_size * value for name, value in scales.items()}


class InnerStep:
    """A gradient step of all tasks, θ' = θ − α ∘ ∇L(θ), in which α is `step_size` times `scales` if there are any.

    >>> from metarl.adaptation import stack
    >>> from metarl.agents.meta_objective import InnerStep
    >>> from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyNetwork
    >>> family, zeros = metarl.make("PointNavigation-v0"), torch.zeros(3, 5)
    >>> network = PolicyNetwork(family.observation_space, family.action_space, hidden=(64, 64))
    >>> batch = PolicyBatch(torch.zeros(3, 5, 2), torch.zeros(3, 5, 2), zeros + 0.2, zeros == 0, zeros)
    >>> theta = stack(network.initialize(torch.Generator()), 3)
    >>> adapted = InnerStep(PolicyGradient(network, batch), theta, step_size=0.1).after
    """

    @torch.no_grad()
    def __init__(
        self, gradient: PolicyGradient, parameters: Parameters, step_size: float, scales: Parameters | None = None
    ):
        self.gradient = gradient
        self.before = parameters
        self.step_size = step_size
        self.scales = scales

        def after(tasks: slice) -> Parameters:
            before = _of_tasks(parameters, tasks)
            return descend(before, gradient.map(lambda values: values[tasks])(before), scaled(step_size, scales))

        blocks = in_blocks(after, *_size(gradient.network, gradient.batch))
        self.after = {name: torch.cat([block[name] for block in blocks]) for name in parameters}

    def of_tasks(self, tasks: slice) -> "InnerStep":
        """The same step of some of the tasks."""
        part = self._with_gradient(self.gradient.map(lambda values: values[tasks]))
        part.before, part.after = _of_tasks(self.before, tasks), _of_tasks(self.after, tasks)
        return part

    def estimated_from(self, fraction: float) -> "InnerStep":
        """The same step, with its gradient's derivatives estimated from the first `fraction` of each task's samples."""
        gradient = self.gradient
        head = _head_of(gradient.batch, fraction)
        return self._with_gradient(PolicyGradient(gradient.network, head, likelihood_ratio=gradient.likelihood_ratio))

    def _with_gradient(self, gradient: PolicyGradient) -> "InnerStep":
        copied = copy.copy(self)
        copied.gradient = gradient
        return copied


@dataclass(frozen=True)
class MetaObjective:
    """Fixed samples of M tasks, before and after adaptation, and the losses that they define as functions of θ.

    θ holds the policy's parameters, and beside them the scales of their step sizes if these are learned (`SCALE`).

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

    def of_tasks(self, tasks: slice) -> "MetaObjective":
        """The objective of some of the tasks, for this process alone."""
        credit = self.exploration_weights
        return replace(
            self,
            steps=[step.of_tasks(tasks) for step in self.steps],
            query=self.query.map(lambda values: values[tasks]),
            exploration_weights=None if credit is None else credit[tasks],
            ranks=Ranks(),
        )

    def estimated_from(self, fraction: float) -> "MetaObjective":
        """The objective of the first `fraction` of each task's samples, at the same adapted parameters."""
        steps = [step.estimated_from(fraction) for step in self.steps]
        return replace(self, steps=steps, query=_head_of(self.query, fraction))

    def in_blocks(self, function: Callable[["MetaObjective", slice], Result]) -> list[Result]:
        """`function` of the objective of each block of tasks, and of the tasks (`metarl.nn.blocks`)."""
        size = _size(self.network, self.query)
        return in_blocks(lambda tasks: function(self.of_tasks(tasks), tasks), *size)

    def mean(self, sums: Iterable[Tensor]) -> Tensor:
        """The mean over the tasks of all ranks, from sums over the tasks of each block."""
        return self.means([[value] for value in sums])[0]

    def means(self, sums: Iterable[Sequence[Tensor]]) -> list[Tensor]:
        """`mean` of each of several values, from the sums of each block over its tasks.

        Sums over tasks are taken in float64: rounded once, they hardly depend on how tasks are split into blocks and
        ranks, which conjugate gradient would magnify.
        """
        each = [torch.stack(list(values)) for values in zip(*sums, strict=True)]
        means = self.ranks.means([values.sum(0, dtype=torch.float64) / self.num_tasks for values in each])
        return [mean.to(self.query.weights.dtype) for mean in means]

    def phi(self, parameters: Parameters) -> Phi:
        """The adapted policies' distributions over the query actions, differentiable with respect to θ."""
        policy, scales = split(parameters)
        adapted = adapt(
            stack(policy, self.num_tasks),
            [step.gradient for step in self.steps],
            [scaled(step.step_size, scales) for step in self.steps],
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

    def loss_and_gradient(self, parameters: Parameters) -> tuple[Float[Tensor, ""], Parameters]:
        """The loss over all ranks and its gradient, by autograd."""
        leaves = list(parameters.values())

        def sums(part: MetaObjective, _: slice) -> list[Tensor]:
            loss = part.loss(parameters)[0] * part.num_tasks
            slopes = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
            return [loss.detach(), *slopes]

        loss, *gradient = self.means(self.in_blocks(sums))
        return loss, dict(zip(parameters, gradient, strict=True))

    @torch.no_grad()
    def loss_and_kl(self, parameters: Parameters, old: Phi) -> tuple[float, float]:
        """The loss, and the mean KL(old ‖ new) of the adapted policies over the query samples."""

        def sums(part: MetaObjective, tasks: slice) -> Float[Tensor, "2"]:
            loss, phi = part.loss(parameters)
            kl = self.network.head.kl(tuple(value[tasks] for value in old), phi)
            return torch.stack([loss * part.num_tasks, part.query.mean(kl).sum()])

        loss, kl = self.mean(self.in_blocks(sums)).tolist()
        return loss, kl


class LocalModel:
    """Loss, gradient and curvature of a `MetaObjective` at the θ that took its samples, without autograd.

    At this θ the likelihood ratios are 1 and the gradient of the KL vanishes. With J_i = Π (I − α ∇²L_i), the Jacobian
    of adaptation, and F_i, the Fisher matrix of π_θ'_i, the exact derivatives are

        gradient  = (1/M) Σ_i J_iᵀ ∇L_i(θ'_i)          curvature = (1/M) Σ_i J_iᵀ F_i J_i

    A product with the curvature costs two Hessian products of the inner loss and one Fisher product. With `fraction`
    below 1 it is an estimate from that share of each task's samples, at that share of the cost. The gradient always
    uses all samples.

    If step sizes are learned, J_i has columns for them, too: with α = s ∘ c, a step's derivative is I − α ∘ ∇²L_i with
    respect to θ, and −s ∇L_i, one entry each, with respect to the scales c.

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

    @torch.no_grad()
    def __init__(self, objective: MetaObjective, fraction: float = 1.0):
        self.objective = objective

        def slopes(part: MetaObjective, _: slice) -> tuple[Parameters, Phi]:
            local = _LocalBlock(part)
            return local.gradient(), local.phi

        gradients, phis = zip(*objective.in_blocks(slopes), strict=True)
        self.gradient = self._mean(gradients)
        self.phi: Phi = tuple(torch.cat(values) for values in zip(*phis, strict=True))
        """φ of the adapted policies at the query samples."""
        self.loss = -float(objective.ranks.mean(objective.query.weights.sum(1).mean()))
        estimate = objective.estimated_from(fraction) if fraction < 1 else objective
        self._numbers = estimate.query.weights.numel() * estimate.network.width
        self._blocks = estimate.in_blocks(lambda part, _: _LocalBlock(part))

    @torch.no_grad()
    def curvature_product(self, vector: Parameters) -> Parameters:
        """H v, where H is the Hessian of the mean KL of the adapted policies."""
        return self._mean(in_threads(lambda block: block.curvature_product(vector), self._blocks, self._numbers))

    def _mean(self, sums: Sequence[Parameters]) -> Parameters:
        means = self.objective.means([list(each.values()) for each in sums])
        return dict(zip(sums[0], means, strict=True))


class _LocalBlock:
    """The derivatives of a `LocalModel`, as sums over a few tasks."""

    def __init__(self, objective: MetaObjective):
        self.objective = objective
        adapted = objective.steps[-1].after
        self._query = PolicyLinearization(objective.network, adapted, objective.query.observations)
        self.phi = self._query.phi
        self._learned = objective.steps[0].scales is not None
        needed = self._learned or not objective.first_order
        self._jacobians = [_Jacobian(step, objective.first_order) for step in objective.steps] if needed else []
        # Step sizes of single weights do not carry over to another basis of them.
        bases = [] if self._learned else [*(jacobian.local for jacobian in self._jacobians), self._query]
        self._basis = _joint_basis(bases)
        if self._basis is not None:
            self._query = self._query.restricted(self._basis)
            for jacobian in self._jacobians:
                jacobian.local = jacobian.local.restricted(self._basis)

    def gradient(self) -> Parameters:
        """Σ_i J_iᵀ ∇L_i(θ'_i)"""
        outer = PolicyGradient(self.objective.network, self.objective.query)
        return self._pull_back(outer.slope(self._query, keep=False))

    def curvature_product(self, vector: Parameters) -> Parameters:
        """Σ_i J_iᵀ F_i J_i v"""
        policy, scales = split(vector)
        policy = policy if self._basis is None else restricted(policy, self._basis)
        stacked = stack(policy, self.objective.num_tasks)
        for jacobian in self._jacobians:
            stacked = jacobian.product(stacked, scales)
        return self._pull_back(self._query.fisher_product(stacked, self.objective.query.valid))

    def _pull_back(self, stacked: Parameters) -> Parameters:
        scales: Parameters = {}
        for jacobian in reversed(self._jacobians):
            if self._learned:
                for name, value in jacobian.scale_slopes(stacked).items():
                    scales[name] = scales.get(name, 0) + value.sum(0, dtype=torch.float64)
            stacked = jacobian.transposed_product(stacked)
        sums = {name: value.sum(0, dtype=torch.float64) for name, value in stacked.items()}
        if self._basis is not None:
            sums["weight0"] = self._basis.spread(sums["weight0"].to(stacked["weight0"].dtype)).double()
        return sums | {f"{SCALE}{name}": value for name, value in scales.items()}


class _Jacobian:
    """The derivative of an inner step: I − α ∘ ∇²L with respect to θ, −s ∇L with respect to the scales of its sizes.

    `first_order` leaves ∇²L out.
    """

    def __init__(self, step: InnerStep, first_order: bool):
        self._step, self._first_order = step, first_order
        self._step_size = scaled(step.step_size, step.scales)
        self.local, self._gradient = step.gradient.linearize(step.before)

    def product(self, vector: Parameters, scales: Parameters | None) -> Parameters:
        """J v `[M, ...]`, for the directions `vector` of θ `[M, ...]` and `scales` of the scales `[...]`."""
        image = vector if self._first_order else descend(vector, self._bent(vector), self._step_size)
        return image if scales is None else descend(image, self._gradient, scaled(self._step.step_size, scales))

    def transposed_product(self, vector: Parameters) -> Parameters:
        """Jᵀ v with respect to θ `[M, ...]`: J v, unless parameters have step sizes of their own."""
        if self._first_order or not isinstance(self._step_size, dict):
            return self.product(vector, None)
        return descend(vector, self._bent({name: self._step_size[name] * v for name, v in vector.items()}), 1.0)

    def scale_slopes(self, vector: Parameters) -> Parameters:
        """Jᵀ v with respect to the scales, for each task `[M, ...]`."""
        return {name: -self._step.step_size * self._gradient[name] * value for name, value in vector.items()}

    def _bent(self, vector: Parameters) -> Parameters:
        return self._step.gradient.hessian_product(self.local, vector)


def _joint_basis(linearizations: Sequence[PolicyLinearization]) -> Basis | None:
    """A basis that holds the observations of all, if all have one."""
    bases = [each.basis for each in linearizations if each.basis is not None]
    return functools.reduce(Basis.joined, bases) if bases and len(bases) == len(linearizations) else None


def _size(network: PolicyNetwork, batch: PolicyBatch) -> tuple[int, int, torch.device]:
    """Of the largest intermediate results for a batch, as `task_blocks` takes it."""
    return len(batch.weights), batch.weights.numel() * network.width, batch.weights.device


def _of_tasks(parameters: Parameters, tasks: slice) -> Parameters:
    return {name: value[tasks] for name, value in parameters.items()}


def _head_of(batch: PolicyBatch, fraction: float) -> PolicyBatch:
    """The first `fraction` of each task's samples, with weights scaled so that sums estimate those over all samples."""
    count = max(1, round(batch.weights.shape[1] * fraction))
    head = batch.map(lambda values: values[:, :count])
    scale = batch.valid.sum(1, keepdim=True) / head.valid.sum(1, keepdim=True).clamp(min=1)
    return replace(head, weights=head.weights * scale)
