"""Conditional neural processes (Garnelo et al., ICML 2018): a feed-forward set encoder.

Equations 1 to 3: r_i = h(x_i, y_i) for each support example, r = ⊕ r_i, φ = g(x, r) for each query. In regression, ⊕ is
the mean and φ = (μ, ω) parametrises a Gaussian with σ = σ₀ + (1 − σ₀) softplus(ω), as in the authors' code; training
maximises the likelihood. In classification (section 4.3), ⊕ is the mean within each class, r concatenates these N
means, and φ are the scores; x is an embedding by convolutions, shared by h and g. The order of the support set does not
matter.

As in equation 4, regression conditions on the first n examples of the support set, with a new n in every step, and
trains on the likelihood of these, of the rest and of the query set. Deviations: n is the same for all tasks of a step;
strided convolutions are the default, the paper pools.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.errors import UsageError
from metarl.fewshot.episodes import Episodes, Samples, TaskSpec
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners.mapping import MappingConfig, MappingLearner
from metarl.fewshot.networks import ReluMLP
from metarl.fewshot.parameter_names import part, with_prefix
from metarl.nn.sequence import fan_in_uniform
from metarl.tasks import check_count


@dataclass(frozen=True)
class CNPConfig(MappingConfig):
    """Options of conditional neural processes; `hidden` are the units of h and g, also for images.

    >>> from metarl.fewshot.learners.cnp import CNPConfig
    >>> CNPConfig(representation=64).min_std
    0.1
    """

    hidden: tuple[int, ...] = (128, 128)
    """Units of the fully connected layers."""
    representation: int = 128
    """Size of r_i."""
    min_std: float = 0.1
    """Smallest standard deviation of a prediction (σ₀, regression), in units of the values."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("representation", self.representation)
        if not 0 < self.min_std < 1:
            raise UsageError(f"min_std must lie in (0, 1), got {self.min_std}")


class ConditionalNeuralProcess(MappingLearner):
    """Predicts each query from its input and the mean of the embedded support examples.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.cnp import ConditionalNeuralProcess, CNPConfig
    >>> learner = ConditionalNeuralProcess(CNPConfig(), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = CNPConfig
    config: CNPConfig

    @classmethod
    def default_config(cls, spec: TaskSpec) -> CNPConfig:
        """In regression, training supports of up to ten examples, or twice those of the test if that is more."""
        if spec.kind == "regression":
            shots = max(10, 2 * spec.shape.shots)
            return CNPConfig(
                iterations=20_000,
                num_tasks=64,
                learning_rate=2e-3,
                halve_every=5000,
                train_shots=shots,
                train_queries=20,
            )
        return CNPConfig(iterations=4000, num_tasks=16, halve_every=1500, train_queries=5, readings=16)

    def map_parameters(self, generator: torch.Generator) -> Parameters:
        config, regression = self.config, self.spec.kind == "regression"
        sets = 1 if regression else self.targets
        outputs = 2 * self.targets if regression else self.targets
        self.h = ReluMLP((self.features + self.targets, *config.hidden, config.representation))
        self.g = ReluMLP((self.features + sets * config.representation, *config.hidden, outputs))
        return with_prefix("h.", _initialize(self.h, generator)) | with_prefix("g.", _initialize(self.g, generator))

    def read(self, x: Float[Tensor, "E S F"], y: Float[Tensor, "E S T"]) -> Float[Tensor, "E R"]:
        """r: the mean over the support set, or over each class of it."""
        r = self.h(part("h.", self.map), torch.cat([x, y], 2))
        if self.spec.kind == "regression":
            return r.mean(1)
        return (y.mT @ r / y.sum(1)[..., None]).flatten(1)

    def answer(self, memory: Float[Tensor, "E R"], x: Float[Tensor, "E Q F"]) -> Float[Tensor, "E Q O"]:
        """Scores; in regression the mean μ."""
        outputs = self._decode(memory, x)
        return outputs[..., : self.targets] if self.spec.kind == "regression" else outputs

    def distribution(
        self, memory: Float[Tensor, "E R"], x: Float[Tensor, "E Q F"]
    ) -> tuple[Float[Tensor, "E Q O"], Float[Tensor, "E Q O"]]:
        """Mean and standard deviation of the values at `x`, given the memory from `read` (regression)."""
        mean, raw = self._decode(memory, x).chunk(2, -1)
        least = self.config.min_std
        return mean, least + (1 - least) * F.softplus(raw)

    def fit(self, episodes: Episodes, *, seed: int) -> dict[str, float]:
        """In regression, maximises the likelihood of all points given part of the support; `loss` is minus its log."""
        if self.spec.kind == "classification":
            return super().fit(episodes, seed=seed)
        support, query = episodes.support, episodes.query
        total = support.x.shape[1]
        size = int(torch.randint(1, total + 1, (), generator=self.generator("cnp", seed), device=self.device))
        context = Samples(support.x[:, :size], support.y[:, :size])
        points = Samples(torch.cat([support.x, query.x], 1), torch.cat([support.y, query.y], 1))
        mean, std = self.distribution(*self.read_together(context, points.x))
        loss = gaussian_nll(mean, std, points.y)
        self.minimize(loss)
        return {"loss": float(loss.detach()), **self.score(mean.detach()[:, total:], query)}

    def _decode(self, memory: Float[Tensor, "E R"], x: Float[Tensor, "E Q F"]) -> Float[Tensor, "E Q G"]:
        both = torch.cat([x, memory[:, None].expand(-1, x.shape[1], -1)], 2)
        return self.g(part("g.", self.map), both)


def _initialize(network: ReluMLP, generator: torch.Generator) -> Parameters:
    """Smaller weights than He's, so that the initial standard deviation is about one for any support set."""
    parameters = network.initialize(generator)
    for name, value in parameters.items():
        if value.ndim == 2:
            parameters[name] = fan_in_uniform(value.shape[0], value.shape[1], generator)
    return parameters


def gaussian_nll(
    mean: Float[Tensor, "E n O"], std: Float[Tensor, "E n O"], values: Float[Tensor, "E n O"]
) -> Float[Tensor, ""]:
    """−log N(values; mean, std²), averaged over all numbers."""
    return (0.5 * ((values - mean) / std).square() + std.log() + 0.5 * math.log(2 * math.pi)).mean()
