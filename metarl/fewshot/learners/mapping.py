"""The common part of CNP, RNN and SNAIL: one learned function maps a support set and a query to a prediction.

Nothing is optimised at test time. `read` turns the support set into a memory, and `answer` predicts each query from the
memory, independently of other queries. Images are first embedded by convolutions; vectors are used as they are. Labels
are one-hot; values are used as they are. RNN and SNAIL differ only in the sequence core (`SequenceMapping`).

On images, the embedding takes most of a training step, and learning that labels are interchangeable takes most of the
episodes. Therefore training embeds an episode once and reads it several times (`readings`), with other labels and in
another order each time. This deviates from the papers, which draw every episode anew. It requires the plain objective:
an objective that changes the images gets one reading.
"""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.fewshot.episodes import Episodes, Samples
from metarl.fewshot.learner import Learner, LearnerConfig, Normalisation
from metarl.fewshot.networks import Network, Statistics, network_for
from metarl.fewshot.objectives.plain import Objective, Predictor
from metarl.fewshot.parameter_names import part, with_prefix
from metarl.nn.sequence import SequenceCore, State, fan_in_uniform
from metarl.randomness import make_generator
from metarl.tasks import check_count

_ENCODER, _MAP, _CORE = "encoder.", "map.", "core."


@dataclass(frozen=True)
class MappingConfig(LearnerConfig):
    """Options of mapping models.

    >>> from metarl.fewshot.learners.mapping import MappingConfig
    >>> MappingConfig(embedding=32).readings
    4
    """

    embedding: int = 64
    """Size of the embedding of an image."""
    strided: bool = True
    """Halve images by strided convolutions, which is four times cheaper than the pooling of the papers."""
    readings: int = 4
    """How often training reads each embedded episode (images), every time with labels and order permuted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("embedding", self.embedding)
        check_count("readings", self.readings)


class MappingLearner(Learner, abc.ABC):
    """A learner with an encoder of inputs (none for vectors) and a map, whose parameters `map_parameters` draws.

    >>> from metarl.fewshot.learners.mapping import MappingLearner
    >>> from metarl.fewshot.learners.cnp import ConditionalNeuralProcess
    >>> issubclass(ConditionalNeuralProcess, MappingLearner)
    True
    """

    config_class: ClassVar[type[LearnerConfig]] = MappingConfig
    config: MappingConfig
    takes_backbone = True
    targets: int
    """Size of an encoded label or value (T)."""
    features: int
    """Size of an encoded input (F)."""

    def build(self) -> tuple[Parameters, Parameters]:
        config, spec = self.config, self.spec
        generator = make_generator("mapping", self.seed)
        self.encoder: Network | None = None
        self.targets, self.features = spec.outputs, spec.input_shape[0]
        parameters, buffers = Parameters(), Parameters()
        if len(spec.input_shape) > 1 or config.backbone is not None:
            self.encoder = network_for(
                spec.input_shape,
                config.embedding,
                width=config.width,
                hidden=(),
                strided=config.strided,
                backbone=config.backbone,
            )
            self.features = config.embedding
            parameters |= with_prefix(_ENCODER, self.encoder.initialize(generator))
            buffers = self.encoder.initial_statistics()
        parameters |= with_prefix(_MAP, self.map_parameters(generator))
        return parameters, buffers

    @abc.abstractmethod
    def map_parameters(self, generator: torch.Generator) -> Parameters:
        """Builds the map for inputs of size `features` and labels of size `targets`; returns its parameters."""

    @abc.abstractmethod
    def read(self, x: Float[Tensor, "E S F"], y: Float[Tensor, "E S T"]) -> Any:
        """The memory of the support sets."""

    @abc.abstractmethod
    def answer(self, memory: Any, x: Float[Tensor, "E Q F"]) -> Float[Tensor, "E Q O"]:
        """Scores, or values, for each query independently."""

    @property
    def normalisation(self) -> Normalisation:
        return "none"

    def adapt(self, support: Samples, *, training: bool = False) -> Predictor:
        if training:
            return lambda x: self.answer(*self.read_together(support, x))
        memory = self.read(self.encode(support.x), self.written(support))
        return lambda x: self.answer(memory, self.encode(x))

    def fit(self, episodes: Episodes, *, seed: int) -> dict[str, float]:
        """Takes one step on the loss of all `readings`, or of one for vectors and for objectives that are not plain."""
        if self.encoder is None or self.config.readings == 1 or type(self.objective) is not Objective:
            return super().fit(episodes, seed=seed)
        support, query, generator = episodes.support, episodes.query, self.generator("readings", seed)
        encoded = self.encode(torch.cat([support.x, query.x], 1), training=True)
        cut = support.x.shape[1]
        embedded = Episodes(Samples(encoded[:, :cut], support.y), Samples(encoded[:, cut:], query.y))
        again = reread(embedded, self.config.readings, self.targets, generator)
        memory = self.read(again.support.x, self.written(again.support))
        losses, outputs = self.objective.query_loss(lambda x: self.answer(memory, x), again.query, generator)
        loss = losses.mean()
        self.minimize(loss)
        return {"loss": float(loss.detach()), **self.score(outputs.detach(), again.query)}

    def read_together(self, support: Samples, x: Float[Tensor, "E Q ..."]) -> tuple[Any, Float[Tensor, "E Q F"]]:
        """For training: the memory and the encoded queries, normalised by joint statistics over all tasks."""
        cut = support.x.shape[1]
        encoded = self.encode(torch.cat([support.x, x], 1), training=True)
        return self.read(encoded[:, :cut], self.written(support)), encoded[:, cut:]

    def encode(self, x: Float[Tensor, "E n ..."], *, training: bool = False) -> Float[Tensor, "E n F"]:
        """Encodes inputs for the map."""
        if self.encoder is None:
            return x
        statistics = Statistics(running=self.buffers, update=training)
        return self.encoder(part(_ENCODER, self.parameters), x, statistics)

    def written(self, samples: Samples) -> Float[Tensor, "E n T"]:
        """Encodes labels as one-hot vectors; values stay as they are."""
        y = samples.y
        return y if y.is_floating_point() else F.one_hot(y, self.targets).to(samples.x.dtype)

    def embed(self, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n D"] | None:
        return None if self.encoder is None else self.encode(inputs[None])[0]

    @property
    def map(self) -> Parameters:
        """The parameters of the map, with the names from `map_parameters`."""
        return part(_MAP, self.parameters)


class SequenceMapping(MappingLearner):
    """A sequence core, which reads the pairs (x, y) of a support set and then a query [x, 0], and a linear readout.

        s_0 blank,   s_i = core(s_{i−1}, [x_i, y_i]),   prediction = W core(s_S, [x, 0]) + b

    Each query is read from the same state s_S, so queries are independent. `adapt` depends on the order of the
    support set, which is random in training. The map's parameters are those of the core,
    and `weight` `[T, O]` and `bias` `[T]` of the readout.

    >>> from metarl.fewshot.learners.mapping import SequenceMapping
    >>> from metarl.fewshot.learners.rnn import RecurrentMapping
    >>> issubclass(RecurrentMapping, SequenceMapping)
    True
    """

    @property
    def order_matters(self) -> bool:
        return True

    @abc.abstractmethod
    def core(self, length: int) -> SequenceCore:
        """The core for sequences of `length` pairs; its parameters must not depend on `length`."""

    def map_parameters(self, generator: torch.Generator) -> Parameters:
        """Uniform in ±1/√inputs of each layer, with zero biases unless the core has others."""
        core = self.core(self.spec.shape.ways * self.spec.shape.shots + 1)
        parameters = with_prefix(_CORE, core.initialize(generator))
        parameters["weight"] = fan_in_uniform(self.targets, core.outputs, generator)
        parameters["bias"] = torch.zeros(self.targets, device=generator.device)
        return parameters

    def read(self, x: Float[Tensor, "E S F"], y: Float[Tensor, "E S T"]) -> tuple[SequenceCore, State]:
        """The core, with room for one query, and its state after reading the support sets."""
        core = self.core(x.shape[1] + 1)
        _, state = core.sequence(part(_CORE, self.map), torch.cat([x, y], 2).transpose(0, 1))
        return core, state

    def answer(self, memory: tuple[SequenceCore, State], x: Float[Tensor, "E Q F"]) -> Float[Tensor, "E Q O"]:
        core, state = memory
        own = self.map
        queries = torch.cat([x, x.new_zeros(*x.shape[:2], self.targets)], 2)
        return F.linear(core.peek(part(_CORE, own), queries, state), own["weight"], own["bias"])


def reread(episodes: Episodes, count: int, ways: int, generator: torch.Generator) -> Episodes:
    """`count` copies of the episodes, E·count, each with permuted labels and a random order of the support set."""

    def permutations(size: int) -> Int[Tensor, "R size"]:
        shape = (count * len(episodes), size)
        return torch.rand(shape, generator=generator, device=generator.device).argsort(1)

    support, query = episodes.support, episodes.query
    order, labels = permutations(support.x.shape[1]), permutations(ways)
    x = support.x.repeat(count, 1, 1).gather(1, order[..., None].expand(-1, -1, support.x.shape[2]))
    y = labels.gather(1, support.y.repeat(count, 1).gather(1, order))
    return Episodes(Samples(x, y), Samples(query.x.repeat(count, 1, 1), labels.gather(1, query.y.repeat(count, 1))))
