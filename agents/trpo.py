"""Trust-region steps (Schulman et al. 2015): conjugate gradient for the direction, backtracking for the length."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Vector = Float[Tensor, "P"]


@dataclass(frozen=True)
class TrustRegion:
    """How far, and how carefully, a step may go."""

    max_kl: float = 0.01
    cg_iterations: int = 10
    cg_damping: float = 1e-5
    backtracks: int = 15
    backtrack_ratio: float = 0.8


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Float[Tensor, "P"], *, iterations: int, tolerance: float = 1e-10
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"]]:
    """x with A x = b, and the A x reached, for a symmetric positive definite A given by `product(x)` = A x.

    The method of Hestenes and Stiefel (1952).
    Ends after `iterations`, or once |b − A x|² is below `tolerance`.
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
    """What a step did."""

    parameters: Vector
    loss: float
    kl: float
    backtracks: int
    """Shortenings before the step was accepted; equal to `TrustRegion.backtracks` where none was."""
    accepted: bool


def trust_region_step(
    region: TrustRegion,
    parameters: Vector,
    gradient: Vector,
    curvature: Callable[[Vector], Vector],
    evaluate: Callable[[Vector], tuple[float, float]],
    loss: float,
) -> TrustRegionStep:
    """The longest of the backtracked natural-gradient steps that lowers the loss within the trust region.

    `curvature` multiplies by the Hessian of the mean KL at `parameters`; `evaluate` returns the loss and the mean KL of
    other parameters; `loss` is that of `parameters`, which are kept if no step is accepted.
    """

    def damped(vector: Vector) -> Vector:
        return curvature(vector) + region.cg_damping * vector

    direction, image = conjugate_gradient(damped, gradient, iterations=region.cg_iterations)
    scale = torch.sqrt(2 * region.max_kl / (direction @ image).clamp(min=1e-20))
    for backtracks in range(region.backtracks):
        candidate = parameters - scale * region.backtrack_ratio**backtracks * direction
        new_loss, kl = evaluate(candidate)
        if new_loss < loss and kl <= region.max_kl:  # False for NaN
            return TrustRegionStep(candidate, new_loss, kl, backtracks, True)
    return TrustRegionStep(parameters, loss, 0.0, region.backtracks, False)
