"""Policies of stacked networks: M tasks, each with its own parameters, acting and differentiated together."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from metarl.nn.entries import EncodedLinearization, EncodedMLP
from metarl.nn.heads import Head, Phi, head_for
from metarl.nn.mlp import MLP, Linearization, Parameters
from metarl.nn.normalization import EntryScales, RunningScale
from metarl.nn.wide import Basis, WideVectors, map_values, without_constant_columns
from metarl.parallel import Ranks
from metarl.rollout import PolicyStep
from metarl.rollout.policy import DrawingPolicy, check_batch
from metarl.spaces import Observations, batch_shape, check_observation_space, entries, is_vector


class _Body(Protocol):
    """The network between scaled observations and φ: an `MLP` or an `EncodedMLP`."""

    width: int

    def initialize(self, generator: torch.Generator) -> Parameters: ...
    def __call__(self, parameters: Parameters, inputs: Any, /) -> Tensor: ...
    def linearize(self, parameters: Parameters, inputs: Any, /) -> Linearization | EncodedLinearization: ...


class _Scale(Protocol):
    """What scales observations, and all that its updates change: a `RunningScale` or `EntryScales`."""

    def __call__(self, observations: Any, /) -> Any: ...
    def update(self, observations: Any, /, ranks: Ranks | None = None) -> None: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None: ...


class PolicyNetwork:
    """A tanh MLP with a distribution over actions. Parameters are arguments, `[M, ...]` when stacked.

    Pictures reach the MLP through a convolutional encoder each, whose parameters are parameters like all others.
    `scale` scales large observations down and normalises pictures; the owner of the network decides when to update it.
    Raises `UsageError` for an observation space that is not one of the contract.

    >>> from metarl.adaptation import stack
    >>> from metarl.nn.policy import PolicyNetwork
    >>> family = metarl.make("PointNavigation-v0")
    >>> network = PolicyNetwork(family.observation_space, family.action_space, hidden=(64, 64))
    >>> mean, log_std = network(stack(network.initialize(torch.Generator()), 3), torch.zeros(3, 5, 2))
    """

    def __init__(
        self,
        observation_space: gym.Space,
        action_space: gym.Space,
        hidden: tuple[int, ...],
        initial_std: float = 1.0,
        device: torch.device | str = "cpu",
    ):
        self.head: Head = head_for(action_space)
        self.initial_std = initial_std
        check_observation_space(observation_space, "policy network")
        self.mlp: _Body
        self.scale: _Scale
        if is_vector(observation_space):
            self.mlp = MLP((observation_space.shape[0], *hidden, self.head.size))
            self.scale = RunningScale(observation_space.shape[0], device)
        else:
            self.mlp = EncodedMLP(entries(observation_space), (*hidden, self.head.size))
            self.scale = EntryScales(entries(observation_space), device)

    def initialize(self, generator: torch.Generator) -> Parameters:
        """Parameters of one network: those of the MLP, and `log_std` if the head has a scale."""
        parameters = self.mlp.initialize(generator)
        if self.head.scale_size:
            scale = torch.full((self.head.scale_size,), math.log(self.initial_std), device=generator.device)
            parameters["log_std"] = scale
        return parameters

    def __call__(self, parameters: Parameters, observations: Observations | WideVectors) -> Phi:
        """φ of π(· | o) for each observation `[M, n, ...]`, differentiable by autograd."""
        return self.phi(parameters, self.mlp(parameters, self.inputs(observations)))

    @property
    def width(self) -> int:
        """The most numbers that one sample takes between two layers."""
        return self.mlp.width

    def inputs(self, observations: Observations | WideVectors) -> Any:
        """What the MLP reads: observations scaled, and as `WideVectors` if that pays."""
        return self.scale(without_constant_columns(observations))

    def frozen(self) -> "PolicyNetwork":
        """The same network with a copy of the scale: updates of this network's scale do not change it."""
        copied = copy.copy(self)
        copied.scale = copy.deepcopy(self.scale)
        return copied

    def phi(self, parameters: Parameters, output: Float[Tensor, "M n O"]) -> Phi:
        return (output, parameters["log_std"][:, None]) if self.head.scale_size else (output,)


class StackedPolicy(DrawingPolicy):
    """A `metarl.Policy` that acts for M tasks with M sets of parameters.

    >>> from metarl.adaptation import stack
    >>> from metarl.nn.policy import PolicyNetwork, StackedPolicy
    >>> family, generator = metarl.make("PointNavigation-v0"), torch.Generator()
    >>> network = PolicyNetwork(family.observation_space, family.action_space, hidden=(64, 64))
    >>> policy = StackedPolicy(network, stack(network.initialize(generator), 3), generator)
    >>> policy.act(torch.zeros(3, 5, 2)).actions.shape
    torch.Size([3, 5, 2])
    """

    def __init__(self, network: PolicyNetwork, parameters: Parameters, generator: torch.Generator):
        super().__init__(generator)
        self.network, self.parameters = network, parameters

    def act(self, observations: Observations) -> PolicyStep:
        check_batch("tasks", next(iter(self.parameters.values())).shape[:1], batch_shape(observations)[:1])
        phi = self.network(self.parameters, observations)
        actions = self.network.head.sample(phi, self.generator)
        return PolicyStep(actions, self.network.head.log_prob(phi, actions))


@dataclass(frozen=True)
class PolicyBatch:
    """The samples of M tasks, `[M, n, ...]`, that a policy-gradient loss sums over.

    >>> from metarl.nn.policy import PolicyBatch
    >>> zeros, valid = torch.zeros(1, 2), torch.tensor([[True, False]])
    >>> batch = PolicyBatch(torch.zeros(1, 2, 3), torch.zeros(1, 2, 1), zeros, valid, log_probs=zeros)
    >>> batch.mean(torch.tensor([[5.0, 100.0]]))
    tensor([5.])
    """

    observations: Observations | WideVectors
    """`[M, n, ...]`; wide ones as `WideVectors`, so that constant columns are looked for once."""
    actions: Shaped[Tensor, "M n ..."]
    weights: Float[Tensor, "M n"]
    """The advantage of each sample divided by the number of valid samples of its task; 0 for samples not valid."""
    valid: Bool[Tensor, "M n"]
    log_probs: Float[Tensor, "M n"]
    """Log-probabilities of the actions under the policy that took them."""

    def mean(self, values: Float[Tensor, "M n"]) -> Float[Tensor, "M"]:
        """The mean over each task's valid samples."""
        return (values * self.valid).sum(1) / self.valid.sum(1).clamp(min=1)

    def map(self, function: Callable[[Tensor], Tensor]) -> "PolicyBatch":
        """The batch with `function` of the first two dimensions of each field, such as a choice of tasks or samples."""
        return PolicyBatch(
            observations=map_values(function, self.observations),
            actions=function(self.actions),
            weights=function(self.weights),
            valid=function(self.valid),
            log_probs=function(self.log_probs),
        )


class PolicyLinearization:
    """Derivatives of a policy's φ over a batch, at stacked parameters: the building blocks of exact curvature.

    >>> from metarl.adaptation import stack
    >>> from metarl.nn.policy import PolicyLinearization, PolicyNetwork
    >>> family = metarl.make("PointNavigation-v0")
    >>> network = PolicyNetwork(family.observation_space, family.action_space, hidden=(64, 64))
    >>> theta, valid = stack(network.initialize(torch.Generator()), 3), torch.ones(3, 5, dtype=torch.bool)
    >>> product = PolicyLinearization(network, theta, torch.zeros(3, 5, 2)).fisher_product(theta, valid)
    """

    def __init__(self, network: PolicyNetwork, parameters: Parameters, observations: Observations | WideVectors):
        self.network = network
        self.mlp = network.mlp.linearize(parameters, network.inputs(observations))
        self.phi = network.phi(self.mlp.parameters, self.mlp.output)

    def jvp(self, direction: Parameters, *, keep: bool = True) -> Phi:
        """R{φ} along `direction`. Stores what the next `hvp` needs, unless `keep` is False."""
        return self.network.phi(direction, self.mlp.jvp(direction, keep=keep))

    def vjp(self, cotangent: Phi, *, keep: bool = True) -> Parameters:
        """The gradient `[M, ...]` of Σ φ · `cotangent`. Stores what `hvp` needs of it, unless `keep` is False."""
        return self._with_scale(self.mlp.vjp(cotangent[0], keep=keep), cotangent)

    def hvp(self, direction: Parameters, r_cotangent: Phi) -> Parameters:
        """R{vjp's gradient} along `direction`, after `vjp(cotangent)` and a `jvp(direction)` for each product."""
        return self._with_scale(self.mlp.hvp(direction, r_cotangent[0]), r_cotangent)

    def fisher_product(self, direction: Parameters, valid: Bool[Tensor, "M n"]) -> Parameters:
        """F v, where F, the mean Fisher matrix over each task's `valid` samples, is the Hessian of the mean KL."""
        share = valid.to(self.mlp.output.dtype)[..., None]
        share = share / share.sum(1, keepdim=True).clamp(min=1)
        product = self.network.head.fisher(self.phi, self.jvp(direction, keep=False))
        return self.vjp(tuple(value * share for value in product), keep=False)

    @property
    def basis(self) -> Basis | None:
        """What holds the scaled observations, if they are `WideVectors`."""
        return self.mlp.basis if isinstance(self.mlp, Linearization) else None

    def restricted(self, basis: Basis) -> "PolicyLinearization":
        """`metarl.nn.mlp.Linearization.restricted` of the MLP, if observations are `WideVectors`."""
        assert isinstance(self.mlp, Linearization)
        copied = copy.copy(self)
        copied.mlp = self.mlp.restricted(basis)
        return copied

    def _with_scale(self, gradient: Parameters, cotangent: Phi) -> Parameters:
        return gradient if len(cotangent) == 1 else gradient | {"log_std": cotangent[1].sum(1)}


class PolicyGradient:
    """The gradient and the Hessian-vector products of a policy-gradient loss, for M tasks at once.

    The loss of a task is −Σ w log π(a | o), or −Σ w π(a | o)/π_old(a | o) with `likelihood_ratio`. Both have the same
    gradient at the policy that took the samples; only the second has the unbiased Hessian there (Foerster et al. 2018).

    >>> from metarl.adaptation import adapt, stack
    >>> from metarl.nn.policy import PolicyBatch, PolicyGradient, PolicyNetwork
    >>> family, zeros = metarl.make("PointNavigation-v0"), torch.zeros(3, 5)
    >>> network = PolicyNetwork(family.observation_space, family.action_space, hidden=(64, 64))
    >>> batch = PolicyBatch(torch.zeros(3, 5, 2), torch.zeros(3, 5, 2), zeros + 0.2, zeros == 0, zeros)
    >>> theta = stack(network.initialize(torch.Generator()), 3)
    >>> adapted = adapt(theta, [PolicyGradient(network, batch)], step_sizes=[0.1])
    """

    def __init__(self, network: PolicyNetwork, batch: PolicyBatch, *, likelihood_ratio: bool = False):
        self.network = network
        self.batch = batch
        self.likelihood_ratio = likelihood_ratio

    def __call__(self, parameters: Parameters) -> Parameters:
        """The gradient `[M, ...]` at stacked `parameters`; autograd differentiates it by `hessian_product`."""
        if not torch.is_grad_enabled():
            return self.linearize(parameters, keep=False)[1]
        names = list(parameters)
        values = _DifferentiableGradient.apply(self, names, *parameters.values())
        return dict(zip(names, values, strict=True))

    @torch.no_grad()
    def linearize(self, parameters: Parameters, *, keep: bool = True) -> tuple[PolicyLinearization, Parameters]:
        """The linearization and the gradient; stores what `hessian_product` needs, unless `keep` is False."""
        local = PolicyLinearization(self.network, parameters, self.batch.observations)
        return local, self.slope(local, keep=keep)

    @torch.no_grad()
    def slope(self, local: PolicyLinearization, *, keep: bool = True) -> Parameters:
        """The gradient at `local`; stores there what `hessian_product` needs, unless `keep` is False."""
        weight = -self._sample_weights(local)[..., None]
        scores = self.network.head.score(local.phi, self.batch.actions)
        return local.vjp(tuple(weight * score for score in scores), keep=keep)

    def map(self, function: Callable[[Tensor], Tensor]) -> "PolicyGradient":
        """The same loss of the samples that `PolicyBatch.map` leaves."""
        return PolicyGradient(self.network, self.batch.map(function), likelihood_ratio=self.likelihood_ratio)

    @torch.no_grad()
    def hessian_product(self, local: PolicyLinearization, direction: Parameters) -> Parameters:
        """H v `[M, ...]` at `local`, which `linearize` returned."""
        head, batch = self.network.head, self.batch
        r_phi = local.jvp(direction)
        weight = -self._sample_weights(local)[..., None]
        r_score = head.score_derivative(local.phi, batch.actions, r_phi)
        if not self.likelihood_ratio:
            return local.hvp(direction, tuple(weight * r for r in r_score))
        # The weight itself moves with log π: R{w ρ s} = w ρ (R{log π} s + R{s}).
        score = head.score(local.phi, batch.actions)
        r_log_prob = sum((s * r).sum(-1, keepdim=True) for s, r in zip(score, r_phi, strict=True))
        pairs = zip(score, r_score, strict=True)
        return local.hvp(direction, tuple(weight * (r_log_prob * s + r) for s, r in pairs))

    def _sample_weights(self, local: PolicyLinearization) -> Float[Tensor, "M n"]:
        if not self.likelihood_ratio:
            return self.batch.weights
        log_prob = self.network.head.log_prob(local.phi, self.batch.actions)
        return self.batch.weights * (log_prob - self.batch.log_probs).exp()


class _DifferentiableGradient(torch.autograd.Function):
    """θ → ∇L(θ), whose backward pass is v → H(θ) v, written out."""

    @staticmethod
    def forward(ctx, gradient: PolicyGradient, names: list[str], *values: Tensor) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
        local, result = gradient.linearize(dict(zip(names, values, strict=True)))
        ctx.gradient, ctx.names, ctx.local = gradient, names, local
        ctx.save_for_backward(*values)
        return tuple(result[name] for name in names)

    @staticmethod
    def backward(ctx, *directions: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        with torch.no_grad():
            product = ctx.gradient.hessian_product(ctx.local, dict(zip(ctx.names, directions, strict=True)))
        values = tuple(product[name] for name in ctx.names)
        if torch.is_grad_enabled():  # the caller wants to differentiate once more
            values = _NoThirdDerivative.apply(len(values), *values, *ctx.saved_tensors, *directions)
        return (None, None, *values)


class _NoThirdDerivative(torch.autograd.Function):
    """Passes H(θ) v on as a function of θ and v. Autograd would otherwise take it for a constant."""

    @staticmethod
    def forward(ctx, count: int, *values: Tensor) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
        return tuple(value.clone() for value in values[:count])

    @staticmethod
    def backward(ctx, *directions: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        raise RuntimeError(
            "PolicyGradient can be differentiated once, by a written-out Hessian product, and no further: "
            "for higher derivatives use metarl.adaptation.gradient_of with the loss itself"
        )
