"""Random quadratics f(θ) = ‖W θ − y‖² in 10 dimensions, Gaussian W, y and start θ_0 (Andrychowicz et al. 2016, 3.1).

A learned optimizer is trained on new functions at every step. It is then compared on unseen functions with SGD, RMSprop
and Adam, each with its best learning rate on these same functions.

Deviation: gradients are preprocessed (`log_and_sign`); the paper does not do this for quadratics.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.errors import UsageError
from metarl.fewshot.learners.l2o import LearnedOptimizer
from metarl.randomness import make_generator
from metarl.tasks import check_count


def _rates(least: int) -> tuple[float, ...]:
    """Ten learning rates from 10^least to 10^(least + 3), each 2.15 times the one before."""
    return tuple(10 ** (least + third / 3) for third in range(10))


RATES = {"adam": _rates(-2), "rmsprop": _rates(-3), "sgd": _rates(-4)}
"""Learning rates to try. The best of each optimizer lies well inside."""
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


@dataclass(frozen=True)
class QuadraticsConfig:
    """One comparison of optimizers.

    >>> from metarl.fewshot.quadratics import QuadraticsConfig
    >>> QuadraticsConfig(epochs=100).dimensions
    10
    """

    epochs: int = 1000
    """Batches of functions to train the optimizer on."""
    batch: int = 128
    """Functions in a batch."""
    steps: int = 100
    """Steps on each function, in training and in the test."""
    unroll: int = 20
    """Steps that gradients are propagated through."""
    units: int = 20
    """Units of each of the optimizer's two layers."""
    scale: float = 0.1
    """Factor of the LSTM's output."""
    learning_rate: float = 3e-3
    """Adam's step size at first, for training the optimizer; it falls linearly to a hundredth."""
    dimensions: int = 10
    """Dimensions of θ."""
    test_functions: int = 1000
    """Unseen functions to compare on."""
    seed: int = 0
    """All randomness comes from it."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "steps", "unroll", "units", "dimensions", "test_functions"):
            check_count(name, getattr(self, name))
        if self.steps % self.unroll != 0:
            raise UsageError(f"steps must be a multiple of unroll, got {self.steps} and {self.unroll}")
        if not (self.learning_rate > 0 and self.scale > 0):
            raise UsageError(f"learning_rate and scale must be positive, got {self.learning_rate} and {self.scale}")


@dataclass(frozen=True)
class Quadratics:
    """B functions, each with a starting point of the optimisation.

    >>> from metarl.fewshot.quadratics import Quadratics
    >>> functions = Quadratics.draw(128, dimensions=10, generator=torch.Generator())
    >>> functions.gradient(functions.start).shape
    torch.Size([128, 10])
    """

    matrix: Float[Tensor, "B D D"]
    """W."""
    target: Float[Tensor, "B D"]
    """y."""
    start: Float[Tensor, "B D"]
    """θ_0."""

    @classmethod
    def draw(cls, count: int, dimensions: int, generator: torch.Generator) -> "Quadratics":
        values = torch.randn(count, dimensions, dimensions + 2, generator=generator)
        return cls(values[..., 2:], values[..., 0], values[..., 1])

    def loss(self, theta: Float[Tensor, "B D"]) -> Float[Tensor, "B"]:
        return self._residual(theta).square().sum(1)

    def gradient(self, theta: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """2 Wᵀ (W θ − y)."""
        return 2 * (self.matrix.mT @ self._residual(theta)[..., None])[..., 0]

    def _residual(self, theta: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        return (self.matrix @ theta[..., None])[..., 0] - self.target


def train(
    config: QuadraticsConfig, report: Callable[[int, float], None] = lambda epoch, loss: None
) -> LearnedOptimizer:
    """Trains an optimizer on `config.epochs` batches of functions."""
    rule = LearnedOptimizer(config.units, config.scale, make_generator("quadratics", "rule", config.seed))
    outer = torch.optim.Adam(rule.parameters(), lr=config.learning_rate)
    for epoch in range(config.epochs):
        outer.param_groups[0]["lr"] = config.learning_rate * (1 - 0.99 * epoch / config.epochs)
        generator = make_generator("quadratics", "train", config.seed, epoch)
        functions = Quadratics.draw(config.batch, config.dimensions, generator)
        theta, state = functions.start, rule.initial(functions.start.numel())
        for _ in range(config.steps // config.unroll):
            theta, state = theta.detach(), state.detach()
            total = torch.zeros(())
            for _ in range(config.unroll):
                theta, state = _step(rule, functions, theta, state)
                total = total + functions.loss(theta).mean()
            outer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(rule.parameters(), 1.0)
            outer.step()
        report(epoch + 1, float(functions.loss(theta.detach()).mean()))
    return rule


@torch.no_grad()
def learned_losses(rule: LearnedOptimizer, functions: Quadratics, steps: int) -> Float[Tensor, "steps1 B"]:
    """The loss of each function after 0, 1, … `steps` steps of the learned optimizer."""
    theta, state = functions.start, rule.initial(functions.start.numel())
    losses = [functions.loss(theta)]
    for _ in range(steps):
        theta, state = _step(rule, functions, theta, state)
        losses.append(functions.loss(theta))
    return torch.stack(losses)


def designed_losses(name: str, rate: float, functions: Quadratics, steps: int) -> Float[Tensor, "steps1 B"]:
    """The same for "adam", "rmsprop" or "sgd", which treat coordinates, and therefore functions, independently."""
    theta = functions.start.clone().requires_grad_()
    optimizer = OPTIMIZERS[name]([theta], lr=rate)  # type: ignore[call-arg]
    losses = [functions.loss(theta).detach()]
    for _ in range(steps):
        theta.grad = functions.gradient(theta.detach())
        optimizer.step()
        losses.append(functions.loss(theta).detach())
    return torch.stack(losses)


def compare(rule: LearnedOptimizer, config: QuadraticsConfig) -> dict[str, dict[str, Any]]:
    """Mean losses of each optimizer on unseen functions; the designed ones at the rate with the lowest final loss."""
    generator = make_generator("quadratics", "test", config.seed)
    functions = Quadratics.draw(config.test_functions, config.dimensions, generator)
    results: dict[str, dict[str, Any]] = {"learned": _summary(learned_losses(rule, functions, config.steps))}
    for name, rates in RATES.items():
        by_rate = {rate: _summary(designed_losses(name, rate, functions, config.steps)) for rate in rates}
        converged = [rate for rate in rates if by_rate[rate]["final_loss"] is not None]
        best = min(converged, key=lambda rate: by_rate[rate]["final_loss"])
        finals = {f"{rate:.5f}": by_rate[rate]["final_loss"] for rate in rates}
        results[name] = {**by_rate[best], "learning_rate": best, "final_loss_by_rate": finals}
    return results


def run_quadratics(
    config: QuadraticsConfig, report: Callable[[int, float], None] = lambda epoch, loss: None
) -> dict[str, Any]:
    """Trains the optimizer and compares it; returns the results of each optimizer, by name."""
    began = time.perf_counter()
    rule = train(config, report)
    seconds = time.perf_counter() - began
    return {"training_seconds": seconds, "optimizers": compare(rule, config)}


def _step(rule: LearnedOptimizer, functions: Quadratics, theta: Tensor, state: Any) -> tuple[Tensor, Any]:
    gradient = functions.gradient(theta.detach())  # a constant: no second derivatives
    update, state = rule(gradient.flatten(), state)
    return theta + update.view_as(theta), state


def _summary(losses: Float[Tensor, "steps1 B"]) -> dict[str, Any]:
    """Means over functions; the final loss is None if the optimizer diverges."""
    final = losses[-1].double()
    if not final.isfinite().all():
        return {"final_loss": None}
    return {
        "final_loss": float(final.mean()),
        "final_loss_median": float(final.median()),
        "final_loss_error": float(final.std() / len(final) ** 0.5),
        "losses": [float(value) for value in losses.double().mean(1)],
    }
