"""The plain objective, accuracy, which is also the base class of the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.fewshot.episodes import Episodes, Samples, TaskSpec

Predictor = Callable[[Tensor], Tensor]
"""The result of adapting to E support sets: a function from query inputs `[E, n, ...]` to scores `[E, n, N]`, whose
softmax are the probabilities, or to values `[E, n, O]` in regression. Differentiable by parameters and inputs."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """Options of the plain objective, which has none. Other objectives have a subclass with their own options.

    >>> from metarl.fewshot.objectives.plain import ObjectiveConfig
    >>> ObjectiveConfig()
    ObjectiveConfig()
    """

    former: ClassVar[Mapping[str, str]] = {}
    """Names that options have had in earlier versions, and the present ones."""


class Objective:
    """Minimises the cross-entropy, or the mean squared error in regression; measures accuracy or squared error.

    >>> from metarl.fewshot import Samples
    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.objectives.plain import Objective, ObjectiveConfig
    >>> data = open_data("biased")
    >>> objective = Objective(ObjectiveConfig(), data.spec(data.default_shape()))
    >>> objective.support_loss(torch.zeros(1, 2, 2), Samples(torch.zeros(1, 2, 6), torch.tensor([[0, 1]])))
    tensor([0.6931])
    """

    config_class: ClassVar[type[ObjectiveConfig]] = ObjectiveConfig

    def __init__(self, config: ObjectiveConfig, spec: TaskSpec):
        self.config = config
        self.spec = spec

    @classmethod
    def check_data(cls, config: ObjectiveConfig, facts: Mapping[str, Any], group_names: Sequence[str]) -> None:
        """Raises `UsageError` if data of these `facts` and groups (`DataSet`) do not go with the options."""

    def check(self, episodes: Episodes) -> dict[str, float]:
        """Raises `UsageError` if episodes lack what the objective needs; returns metrics of the episodes."""
        return {}

    def corrupt(self, support: Samples, generator: torch.Generator) -> Samples:
        """The support set to train on in the place of `support`."""
        return support

    def corruptions(self, support: Samples, generator: torch.Generator) -> Mapping[str, Sequence[Samples]]:
        """Corrupted support sets to test with, by the name of the metric, which is the worst score over them."""
        return {}

    def support_loss(self, outputs: Float[Tensor, "E n O"], support: Samples) -> Float[Tensor, "E"]:
        """The loss of each task in the inner loop of a gradient learner, given the predictions for the support set."""
        return task_loss(outputs, support)

    def query_loss(
        self, predictor: Predictor, query: Samples, generator: torch.Generator
    ) -> tuple[Float[Tensor, "E"], Float[Tensor, "E n O"]]:
        """The training loss of each task, and the predictions; `generator` is for objectives that draw numbers."""
        outputs = predictor(query.x)
        return task_loss(outputs, query), outputs

    def measure(
        self, predictor: Predictor, query: Samples, outputs: Float[Tensor, "E n O"], generator: torch.Generator
    ) -> dict[str, Float[Tensor, "E"]]:
        """Metrics of each test episode besides accuracy or mse, given `outputs = predictor(query.x)`.

        A metric is NaN if it is not defined for an episode (an empty group). The mean omits NaNs and counts them.
        """
        return {}

    def compared(self, query: Samples) -> Mapping[str, Sequence[Bool[Tensor, "E n"]]]:
        """The sets of queries over which metrics of `measure` have a rate each, by the name of the metric.

        With few different examples in one of the sets, the metric has no interval.
        """
        return {}


def task_loss(outputs: Float[Tensor, "E n O"], samples: Samples) -> Float[Tensor, "E"]:
    """The mean loss of each task: cross-entropy of scores if `samples.y` are labels, else the squared error."""
    if samples.y.is_floating_point():
        return (outputs - samples.y).square().mean((1, 2))
    log_p = outputs.log_softmax(-1)
    return -log_p.gather(-1, samples.y[..., None])[..., 0].mean(1)


def task_score(outputs: Float[Tensor, "E n O"], samples: Samples) -> Float[Tensor, "E"]:
    """The accuracy of each task, or its mean squared error in regression."""
    return query_score(outputs, samples).mean(1)


def query_score(outputs: Float[Tensor, "E n O"], samples: Samples) -> Float[Tensor, "E n"]:
    """1 for a right prediction and 0 for a wrong one, or the squared error in regression."""
    if samples.y.is_floating_point():
        return (outputs - samples.y).square().mean(2)
    return (outputs.argmax(-1) == samples.y).float()
