"""The common part of MAML, ANIL and Reptile: a network whose learned parameters are the start of adaptation."""

import abc
import collections
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.adaptation import Parameters, stack
from metarl.errors import UsageError
from metarl.fewshot.episodes import Episodes, Samples
from metarl.fewshot.learner import Learner, LearnerConfig, Normalisation
from metarl.fewshot.networks import Network, Statistics, network_for
from metarl.fewshot.objectives.plain import Predictor, task_score
from metarl.randomness import make_generator

Point = TypeVar("Point")

CHUNK_BYTES = 16 * 2**20
"""Activations of one layer beyond which a CPU slows down: tasks are adapted in chunks of at most this size."""
MAX_CHUNK = 8
"""Tasks per chunk at most: more gain nothing, as measured by `metarl benchmark fewshot`."""


@dataclass(frozen=True)
class GradientConfig(LearnerConfig):
    """Options of learners that adapt by gradient steps.

    >>> from metarl.fewshot.learners.gradient import GradientConfig
    >>> GradientConfig(inner_lr=0.1).test_steps
    3
    """

    inner_lr: float = 0.4
    """Step size of adaptation (α)."""
    inner_steps: int = 1
    """Gradient steps of adaptation in training."""
    test_steps: int = 3
    """Gradient steps of adaptation at test time."""
    averaged: bool = False
    """Average the last convolution's output over its positions (images)."""
    normalisation: Normalisation = "support-statistics"
    """Normalise by batch statistics of the support set, not at all, or, as in the papers of MAML and Reptile, by those
    of the queries that are predicted together (transductive): then a prediction depends on the other queries."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner_steps < 1 or self.test_steps < 0:
            raise UsageError(f"inner_steps must be at least 1 and test_steps at least 0, got {self.inner_steps}")


class GradientLearner(Learner, abc.ABC):
    """A learner whose parameters are the initialisation of a network that adapts by gradient steps.

    >>> from metarl.fewshot.learners.gradient import GradientLearner
    >>> from metarl.fewshot.learners.reptile import Reptile
    >>> issubclass(Reptile, GradientLearner)
    True
    """

    config_class: ClassVar[type[LearnerConfig]] = GradientConfig
    config: GradientConfig
    takes_backbone = True

    def build(self) -> tuple[Parameters, Parameters]:
        config, spec = self.config, self.spec
        self.network: Network = network_for(
            spec.input_shape,
            spec.outputs,
            width=config.width,
            hidden=config.hidden,
            strided=True,
            averaged=config.averaged,
            normalised=config.normalisation != "none",
            backbone=config.backbone,
        )
        return self.network.initialize(make_generator("gradient learner", self.seed)), {}

    @property
    def normalisation(self) -> Normalisation:
        return self.config.normalisation if self.network.initial_statistics() else "none"

    def predictor(self, parameters: Parameters, support: Samples) -> Predictor:
        """The network with the adapted `parameters` `[E, ...]` of each task."""
        if self.normalisation != "support-statistics":
            return lambda x: self.network(parameters, x)
        reference = support.x.shape[1]
        both = Statistics(reference=reference)
        return lambda x: self.network(parameters, torch.cat([support.x, x], 1), both)[:, reference:]

    def start(self, num_tasks: int) -> Parameters:
        """The adapted parameters before the first step, for each task."""
        return stack(self.parameters, num_tasks)

    @abc.abstractmethod
    def path(self, support: Samples, steps: int) -> Iterator[Parameters]:
        """Yields θ_0, θ_1, … of each task: `start`, then the parameters after each of `steps` steps on the support."""

    def adapt(self, support: Samples, *, training: bool = False) -> Predictor:
        steps = self.config.inner_steps if training else self.config.test_steps
        return self.predictor(last(self.path(support, steps)), support)

    @torch.no_grad()
    def curve(self, episodes: Episodes) -> dict[int, Float[Tensor, "E"]]:
        """The score of each task after 0, 1, … 10, then 20, 50, 100, … and after `test_steps` steps."""
        path = self.path(episodes.support, self.config.test_steps)
        return {
            steps: task_score(self.predictor(parameters, episodes.support)(episodes.query.x), episodes.query)
            for steps, parameters in enumerate(path)
            if steps == self.config.test_steps or is_shown(steps)
        }

    def chunks(self, episodes: Episodes) -> Iterator[Episodes]:
        """The episodes in groups whose activations fit the CPU's cache; all at once on a GPU."""
        size = len(episodes)
        if self.device.type == "cpu" and self.network.initial_statistics():
            largest = max(episodes.support.x.shape[1], episodes.query.x.shape[1])
            size = max(1, min(MAX_CHUNK, CHUNK_BYTES // self.network.activation_bytes(largest)))
        for start in range(0, len(episodes), size):
            yield episodes[start : start + size]

    def note(
        self,
        metrics: dict[str, float],
        losses: Float[Tensor, "E"],
        outputs: Float[Tensor, "E n O"],
        query: Samples,
        share: float,
    ) -> None:
        """Adds the loss and the score of a chunk to `metrics`; the chunk is this `share` of all tasks."""
        means = {"loss": float(losses.detach().mean()), **self.score(outputs.detach(), query)}
        for name, value in means.items():
            metrics[name] = metrics.get(name, 0.0) + share * value


def is_shown(steps: int) -> bool:
    """Whether a curve has a point after `steps`: scoring each of many steps takes longer than the steps themselves."""
    return steps <= 10 or str(steps).rstrip("0") in ("1", "2", "5")


def last(path: Iterator[Point]) -> Point:
    """The last element of `path`; the others are not kept in memory."""
    return collections.deque(path, maxlen=1).pop()
