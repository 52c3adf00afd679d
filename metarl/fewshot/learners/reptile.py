"""Reptile (Nichol, Achiam, Schulman 2018), algorithm 2.

φ ← φ + ε mean_i(φ'_i − φ), where φ'_i is what k steps of Adam on task i make of φ. The inner Adam has β₁ = 0 and
mini-batches of the support set (appendix A). ε falls linearly from `outer_lr` to 0.
Deviation: every task starts with fresh moments of Adam, where the authors' code carries them over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from metarl.adaptation import Parameters, gradient_of
from metarl.errors import UsageError
from metarl.fewshot.episodes import Episodes, Samples, TaskSpec
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners.gradient import GradientConfig, GradientLearner, last
from metarl.tasks import check_count

SQUARES = 0.999
"""β₂ of the inner Adam."""
EPSILON = 1e-8


@dataclass(frozen=True)
class ReptileConfig(GradientConfig):
    """Options of Reptile."""

    inner_lr: float = 1e-3
    """Step size of the inner Adam."""
    inner_steps: int = 5
    """Steps of adaptation in training (k)."""
    test_steps: int = 50
    """Steps of adaptation at test time."""
    inner_batch: int = 10
    """Support examples per step of adaptation; all where there are no more."""
    outer_lr: float = 1.0
    """How far the parameters move towards the adapted ones at first (ε)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("inner_batch", self.inner_batch)
        if not 0 < self.outer_lr <= 1:
            raise UsageError(f"outer_lr must lie in (0, 1], got {self.outer_lr}")


class Reptile(GradientLearner):
    """Moves the initialisation towards where adaptation leads; needs no gradient through it."""

    config_class: ClassVar[type[LearnerConfig]] = ReptileConfig
    config: ReptileConfig

    @classmethod
    def default_config(cls, spec: TaskSpec) -> ReptileConfig:
        """Appendix A's settings for Omniglot, 5 tasks a step; for sine waves those of the paper's section 3."""
        if spec.kind == "regression":
            return ReptileConfig(
                iterations=30_000, num_tasks=5, hidden=(64, 64), inner_lr=0.01, outer_lr=0.1, test_steps=32
            )
        shots = max(10, spec.shape.shots)
        return ReptileConfig(iterations=40_000, num_tasks=5, train_shots=shots, train_queries=1)

    def path(self, support: Samples, steps: int) -> Iterator[Parameters]:
        return self._adam(support, steps, self.generator("reptile", "test"))

    def fit(self, episodes: Episodes, *, seed: int) -> dict[str, float]:
        generator = self.generator("reptile", seed)
        size, total = len(episodes), 0.0
        moves = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        metrics = dict[str, float]()
        with torch.no_grad():
            for chunk in self.chunks(episodes):
                adapted = last(self._adam(chunk.support, self.config.inner_steps, generator))
                for name, value in adapted.items():
                    moves[name] += (value - self.parameters[name]).sum(0) / size
                losses, outputs = self.objective.query_loss(
                    self.predictor(adapted, chunk.support), chunk.query, generator
                )
                total += float(losses.sum()) / size
                for metric, score in self.score(outputs, chunk.query).items():
                    metrics[metric] = metrics.get(metric, 0.0) + score * len(chunk) / size
            rate = self.config.outer_lr * max(0.0, 1 - self.updates / self.config.iterations)
            for name, value in self.parameters.items():
                value.add_(moves[name], alpha=rate)
        self.updates += 1
        return {"loss": total, **metrics}

    def _adam(self, support: Samples, steps: int, generator: torch.Generator) -> Iterator[Parameters]:
        """Adam without momentum, for each task by itself, on mini-batches that pass through the support set."""
        parameters = self.start(len(support.x))
        squares = {name: torch.zeros_like(value) for name, value in parameters.items()}
        yield parameters
        for step, batch in enumerate(self._batches(support, steps, generator), start=1):

            def loss(values: Parameters, batch: Samples = batch) -> Tensor:
                return self.objective.support_loss(self.network(values, batch.x), batch)

            gradient = gradient_of(loss)(parameters)
            correction = 1 - SQUARES**step
            moved = {}
            for name, value in parameters.items():
                squares[name] = SQUARES * squares[name] + (1 - SQUARES) * gradient[name].square()
                scale = (squares[name] / correction).sqrt() + EPSILON
                moved[name] = value - self.config.inner_lr * gradient[name] / scale
            parameters = moved
            yield parameters

    def _batches(self, support: Samples, steps: int, generator: torch.Generator) -> list[Samples]:
        """`steps` mini-batches: each pass through the support set takes its examples in a new order."""
        total, size = support.x.shape[1], min(self.config.inner_batch, support.x.shape[1])
        if size == total:
            return [support] * steps
        passes = -(-steps * size // total)
        order = torch.cat([torch.randperm(total, generator=generator, device=self.device) for _ in range(passes)])
        return [_rows(support, order[step * size : (step + 1) * size]) for step in range(steps)]


def _rows(samples: Samples, rows: Int[Tensor, "b"]) -> Samples:
    groups = None if samples.groups is None else samples.groups[:, rows]
    return Samples(samples.x[:, rows], samples.y[:, rows], groups)
