"""Trust-region steps (Schulman et al. 2015): conjugate gradient for the direction, backtracking for the length."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.faults import check_finite
from metarl.ranges import check_range
from metarl.tasks import check_count

Vector = Float[Tensor, "P"]


@dataclass(frozen=True)
class TrustRegion:
    """Options of a trust-region step.

    Example:
        >>> from metarl.agents.trpo import TrustRegion
        >>> TrustRegion(max_kl=0.02).backtracks
        15
    """

    max_kl: float = 0.01
    """Largest mean KL divergence of a step."""
    cg_iterations: int = 10
    """Conjugate-gradient iterations for the direction."""
    cg_damping: float = 1e-5
    """Multiple of the identity added to the curvature."""
    backtracks: int = 15
    """Step lengths to try."""
    backtrack_ratio: float = 0.8
    """Ratio of each step length to the one before."""

    def __post_init__(self) -> None:
        for name in ("cg_iterations", "backtracks"):
            check_count(name, getattr(self, name))
        check_range("max_kl", self.max_kl, above=0)
        check_range("cg_damping", self.cg_damping, least=0)
        check_range("backtrack_ratio", self.backtrack_ratio, above=0, below=1)


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Float[Tensor, "P"], *, iterations: int, tolerance: float = 1e-10
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"]]:
    """Solves A x = b for a symmetric positive definite A, given `product(x)` = A x; returns x and the A x reached.

    The method of Hestenes and Stiefel (1952). Stops after `iterations`, or once |b − A x|² is below `tolerance`.
    """
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    square = residual @ residual
    for _ in range(iterations):
        if square < tolerance:
            break
        image = product(direction)
        length = square / (direction @ image)
        x = x + length * direction
        residual = residual - length * image
        previous, square = square, residual @ residual
        direction = residual + (square / previous) * direction
    return x, b - residual


@dataclass(frozen=True)
class TrustRegionStep:
    """The result of `trust_region_step`.

    >>> from metarl.agents.trpo import TrustRegion, trust_region_step
    >>> step = trust_region_step(
    ...     TrustRegion(max_kl=0.1),
    ...     torch.ones(1),
    ...     gradient=torch.ones(1),
    ...     curvature=lambda v: v,
    ...     evaluate=lambda x: (float(x), float((x - 1).square() / 2)),
    ...     loss=1.0,
    ... )
    >>> step.accepted, step.kl <= 0.1
    (True, True)
    """

    parameters: Vector
    loss: float
    kl: float
    backtracks: int
    """How often the step was shortened before it was accepted; `TrustRegion.backtracks` if no step was."""
    accepted: bool


def trust_region_step(
    region: TrustRegion,
    parameters: Vector,
    gradient: Vector,
    curvature: Callable[[Vector], Vector],
    evaluate: Callable[[Vector], tuple[float, float]],
    loss: float,
) -> TrustRegionStep:
    """Takes the longest backtracked natural-gradient step that lowers the loss within the trust region.

    `curvature` multiplies a vector by the Hessian of the mean KL at `parameters`. `evaluate` returns the loss and the
    mean KL of other parameters. `loss` is the loss of `parameters`, which are kept if no step is accepted.

    Raises `NumericalFault` if the loss, the gradient or the direction is not finite.
    """
    check_finite("the loss or the gradient of the trust region", gradient, gradient.new_tensor(loss))

    def damped(vector: Vector) -> Vector:
        return curvature(vector) + region.cg_damping * vector

    direction, image = conjugate_gradient(damped, gradient, iterations=region.cg_iterations)
    check_finite("the direction of the trust region", direction, image)
    scale = torch.sqrt(2 * region.max_kl / (direction @ image).clamp(min=1e-20))
    for backtracks in range(region.backtracks):
        candidate = parameters - scale * region.backtrack_ratio**backtracks * direction
        new_loss, kl = evaluate(candidate)
        if new_loss < loss and kl <= region.max_kl:  # False for NaN
            return TrustRegionStep(candidate, new_loss, kl, backtracks, True)
    return TrustRegionStep(parameters, loss, 0.0, region.backtracks, False)
