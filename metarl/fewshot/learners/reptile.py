"""Reptile (Nichol, Achiam, Schulman 2018), algorithm 2.

φ ← φ + ε mean_i(φ'_i − φ), where φ'_i are the parameters after k steps of Adam on task i, starting from φ. The inner
Adam has β₁ = 0 and mini-batches of the support set (appendix A). ε falls linearly from `outer_lr` to 0.

Adam's mean squared gradients are learned together with φ, as in the authors' code, and each task starts from them, also
at test time. With fresh ones, the first step would move every weight by the full step size, whatever its gradient.

Deviations: all tasks of a training step start from the same mean squares, which are then replaced by the mean over
tasks; the authors' code passes them from one task to the next. At test time the mini-batches depend on what the support
examples are, not on their order (`metarl.fewshot.support_order`), so that a prediction is a function of the set.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from metarl.adaptation import Parameters, gradient_of, stack
from metarl.errors import UsageError
from metarl.fewshot.episodes import Episodes, Samples, TaskSpec
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners.gradient import GradientConfig, GradientLearner, last
from metarl.fewshot.parameter_names import part, with_prefix
from metarl.fewshot.support_order import by_content
from metarl.tasks import check_count

SQUARES = 0.999
"""β₂ of the inner Adam."""
EPSILON = 1e-8
_SQUARE, _STEPS = "square.", "steps"


@dataclass(frozen=True)
class ReptileConfig(GradientConfig):
    """Options of Reptile.

    >>> from metarl.fewshot.learners.reptile import ReptileConfig
    >>> ReptileConfig(inner_batch=5).test_steps
    50
    """

    inner_lr: float = 1e-3
    """Step size of the inner Adam."""
    inner_steps: int = 5
    """Steps of adaptation in training (k)."""
    test_steps: int = 50
    """Steps of adaptation at test time."""
    inner_batch: int = 10
    """Support examples per step of adaptation; all of them if there are fewer."""
    outer_lr: float = 1.0
    """Initial outer step size (ε): 1 moves the parameters all the way to the mean of the adapted ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("inner_batch", self.inner_batch)
        if not 0 < self.outer_lr <= 1:
            raise UsageError(f"outer_lr must lie in (0, 1], got {self.outer_lr}")


class Reptile(GradientLearner):
    """Moves the initialisation towards the adapted parameters; needs no gradient through adaptation.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
    >>> learner = Reptile(ReptileConfig(test_steps=5), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = ReptileConfig
    iterations_matter = True  # the outer step size falls to 0 at the last of them
    config: ReptileConfig

    @classmethod
    def default_config(cls, spec: TaskSpec) -> ReptileConfig:
        """The settings of appendix A for Omniglot, 5 tasks per step; those of section 3 for sine waves."""
        if spec.kind == "regression":
            return ReptileConfig(
                iterations=30_000, num_tasks=5, hidden=(64, 64), inner_lr=0.01, outer_lr=0.1, test_steps=32
            )
        shots = max(10, spec.shape.shots)
        return ReptileConfig(iterations=40_000, num_tasks=5, train_shots=shots, train_queries=1)

    def build(self) -> tuple[Parameters, Parameters]:
        """Buffers: Adam's mean squares, `square.NAME`, and the number of steps behind them, `steps`."""
        parameters, buffers = super().build()
        squares = {name: torch.zeros_like(value) for name, value in parameters.items()}
        return parameters, buffers | with_prefix(_SQUARE, squares) | {_STEPS: torch.zeros(())}

    def path(self, support: Samples, steps: int) -> Iterator[Parameters]:
        if support.x.shape[1] > self.config.inner_batch:  # which examples share a mini-batch matters
            support = by_content(support)
        return (parameters for parameters, _ in self._adam(support, steps, self.generator("reptile", "test")))

    @torch.no_grad()
    def fit(self, episodes: Episodes, *, seed: int) -> dict[str, float]:
        generator, metrics = self.generator("reptile", seed), dict[str, float]()
        start = (self.parameters, part(_SQUARE, self.buffers))
        ends = [{name: torch.zeros_like(value) for name, value in values.items()} for values in start]
        for chunk in self.chunks(episodes):
            adapted = last(self._adam(chunk.support, self.config.inner_steps, generator))
            for end, values in zip(ends, adapted, strict=True):
                for name, value in values.items():
                    end[name] += value.sum(0) / len(episodes)
            predictor = self.predictor(adapted[0], chunk.support)
            losses, outputs = self.objective.query_loss(predictor, chunk.query, generator)
            self.note(metrics, losses, outputs, chunk.query, len(chunk) / len(episodes))
        rate = self.config.outer_lr * max(0.0, 1 - self.updates / self.config.iterations)
        for values, end, share in zip(start, ends, (rate, 1.0), strict=True):
            for name, value in values.items():
                value.lerp_(end[name], share)
        self.buffers[_STEPS] += self.config.inner_steps
        self.updates += 1
        return metrics

    def _adam(
        self, support: Samples, steps: int, generator: torch.Generator
    ) -> Iterator[tuple[Parameters, Parameters]]:
        """Yields parameters and mean squares after each step of Adam without momentum, for each task separately."""
        parameters = self.start(len(support.x))
        squares = stack(part(_SQUARE, self.buffers), len(support.x))
        yield parameters, squares
        for step, batch in enumerate(self._batches(support, steps, generator), start=1):

            def loss(values: Parameters, batch: Samples = batch) -> Tensor:
                return self.objective.support_loss(self.network(values, batch.x), batch)

            gradient = gradient_of(loss)(parameters)
            squares = {name: torch.lerp(gradient[name].square(), value, SQUARES) for name, value in squares.items()}
            correction = (1 - SQUARES ** (self.buffers[_STEPS] + step)).sqrt()
            scales = {name: value.sqrt() / correction + EPSILON for name, value in squares.items()}
            parameters = {
                name: value.addcdiv(gradient[name], scales[name], value=-self.config.inner_lr)
                for name, value in parameters.items()
            }
            yield parameters, squares

    def _batches(self, support: Samples, steps: int, generator: torch.Generator) -> list[Samples]:
        """`steps` mini-batches. Each pass through the support set takes its examples in a new order."""
        total, size = support.x.shape[1], min(self.config.inner_batch, support.x.shape[1])
        if size == total:
            return [support] * steps
        passes = -(-steps * size // total)
        order = torch.cat([torch.randperm(total, generator=generator, device=self.device) for _ in range(passes)])
        return [_rows(support, order[step * size : (step + 1) * size]) for step in range(steps)]


def _rows(samples: Samples, rows: Int[Tensor, "b"]) -> Samples:
    groups = None if samples.groups is None else samples.groups[:, rows]
    return Samples(samples.x[:, rows], samples.y[:, rows], groups)
