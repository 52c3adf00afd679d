"""Matching networks (Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra, NeurIPS 2016).

p(y = k | x̂, S) = Σ_i a(x̂, x_i) [y_i = k] (equation 1), with attention a = softmax over the support of the cosine of
f(x̂) and g(x_i) (section 2.1.1). In the plain method, f = g is the convolutional network. With full-context embeddings
(section 2.1.2, appendix A), g reads the support with a bidirectional LSTM, and f with K steps of attention:

    g(x_i, S) = →h_i + ←h_i + g'(x_i)
    ĥ_k, c_k = LSTM(f'(x̂), [h_{k−1}, r_{k−1}], c_{k−1}),  h_k = ĥ_k + f'(x̂),  r_k = Σ_i softmax(h_kᵀ g(x_i)) g(x_i)

with ĥ_0 = c_0 = 0 and f(x̂, S) = h_K. The plain method treats the support as a set. Full-context embeddings read it in
the given order, which is random in training.

Deviations: cosines lie in [−1, 1], too narrow a range for confident softmax outputs, so a learned factor with the
initial value `sharpness` multiplies them (`--sharpness 1 --no-learn-sharpness` is the paper's). Training episodes are
20-way, or more if the test's are; there is no fine-tuning. Embeddings are normalised by all images of a training step,
and by running averages afterwards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.errors import UsageError
from metarl.fewshot.episodes import Samples, TaskSpec
from metarl.fewshot.learner import Learner, LearnerConfig, Normalisation
from metarl.fewshot.lstm import initial_lstm, lstm_step
from metarl.fewshot.networks import Network, Statistics, network_for
from metarl.fewshot.objectives.plain import Predictor
from metarl.randomness import make_generator
from metarl.tasks import check_count


@dataclass(frozen=True)
class MatchingConfig(LearnerConfig):
    """Options of matching networks.

    >>> from metarl.fewshot.learners.matching import MatchingConfig
    >>> MatchingConfig(full_context=True).processing_steps
    5
    """

    full_context: bool = False
    """Embed every example in the context of the whole support set (full-context embeddings)."""
    processing_steps: int = 5
    """Steps of attention over the support for each query (K), with full-context embeddings."""
    sharpness: float = 10.0
    """Initial factor of the cosines before the softmax."""
    learn_sharpness: bool = True
    """Learn the factor of the cosines."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("processing_steps", self.processing_steps)
        if not self.sharpness > 0:
            raise UsageError(f"sharpness must be positive, got {self.sharpness}")


class Matching(Learner):
    """Predicts the labels of the support examples, weighted by attention.

    With `full_context`, `adapt` depends on the order of the support set, which is random in training.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.matching import Matching, MatchingConfig
    >>> spec = open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2))
    >>> learner = Matching(MatchingConfig(full_context=True), spec)
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = MatchingConfig
    config: MatchingConfig
    kinds = ("classification",)
    takes_backbone = True
    any_ways = True

    def build(self) -> tuple[Parameters, Parameters]:
        config, spec = self.config, self.spec
        self.network: Network = network_for(
            spec.input_shape, None, width=config.width, hidden=config.hidden, backbone=config.backbone
        )
        generator = make_generator("matching", self.seed)
        parameters = self.network.initialize(generator)
        if config.learn_sharpness:
            parameters["log_sharpness"] = torch.tensor(math.log(config.sharpness))
        if config.full_context:
            size = self.network.outputs
            for name in ("forward", "backward"):
                parameters |= initial_lstm(name, size, size, size, generator)
            parameters |= initial_lstm("query", size, size, 2 * size, generator)
        return parameters, self.network.initial_statistics()

    @classmethod
    def default_config(cls, spec: TaskSpec) -> MatchingConfig:
        """For images, 20-way episodes with 5 queries, and a step size that halves every 1,000 steps."""
        if spec.preprocessing.is_image:
            ways = max(20, spec.shape.ways)
            return MatchingConfig(iterations=4000, num_tasks=1, train_ways=ways, train_queries=5, halve_every=1000)
        return MatchingConfig(num_tasks=16)

    @property
    def normalisation(self) -> Normalisation:
        return "none"

    @property
    def order_matters(self) -> bool:
        return self.config.full_context

    def adapt(self, support: Samples, *, training: bool = False) -> Predictor:
        if training:
            return lambda x: self._scores_together(support, x)
        context = self._read_support(self._encode(support.x))
        return lambda x: self._scores(context, support.y, self._encode(x))

    def embed(self, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n D"] | None:
        return None if self.config.full_context else self._encode(inputs[None])[0]

    def support_weights(self, support: Samples, queries: Float[Tensor, "E Q ..."]) -> Float[Tensor, "E Q S"]:
        """The attention a(x̂, x_i)."""
        context = self._read_support(self._encode(support.x))
        return self._similarity(context, self._encode(queries)).softmax(-1)

    @property
    def sharpness(self) -> Tensor | float:
        """The factor of the cosines."""
        return self.parameters["log_sharpness"].exp() if self.config.learn_sharpness else self.config.sharpness

    def _encode(self, inputs: Float[Tensor, "E n ..."], training: bool = False) -> Float[Tensor, "E n D"]:
        return self.network(self.parameters, inputs, Statistics(running=self.buffers, update=training))

    def _scores_together(self, support: Samples, x: Float[Tensor, "E n ..."]) -> Float[Tensor, "E n N"]:
        """Scores from one pass over support and queries, which share normalisation statistics."""
        cut = support.x.shape[1]
        embedded = self._encode(torch.cat([support.x, x], 1), training=True)
        return self._scores(self._read_support(embedded[:, :cut]), support.y, embedded[:, cut:])

    def _scores(
        self, context: Float[Tensor, "E S D"], labels: Int[Tensor, "E S"], queries: Float[Tensor, "E Q D"]
    ) -> Float[Tensor, "E Q N"]:
        """log p(y = k | x̂, S)."""
        return log_class_attention(self._similarity(context, queries), labels)

    def _similarity(self, context: Float[Tensor, "E S D"], queries: Float[Tensor, "E Q D"]) -> Float[Tensor, "E Q S"]:
        """The sharpened cosine of each embedded query and each embedded support example."""
        if self.config.full_context:
            queries = attend(self.parameters, "query", queries, context, self.config.processing_steps)
        return self.sharpness * (F.normalize(queries, dim=-1) @ F.normalize(context, dim=-1).mT)

    def _read_support(self, embedded: Float[Tensor, "E S D"]) -> Float[Tensor, "E S D"]:
        """g(x_i, S): the embeddings, in the context of the examples before and after if `full_context`."""
        if not self.config.full_context:
            return embedded
        steps = embedded.unbind(1)
        ahead = read(self.parameters, "forward", steps)
        behind = read(self.parameters, "backward", steps[::-1])[::-1]
        return torch.stack(ahead, 1) + torch.stack(behind, 1) + embedded


def log_class_attention(similarity: Float[Tensor, "E Q S"], labels: Int[Tensor, "E S"]) -> Float[Tensor, "E Q N"]:
    """log Σ_i softmax_i(similarity) [y_i = k], by log-sum-exp, so that no probability becomes 0."""
    members = F.one_hot(labels).bool()[:, None]
    each = similarity.log_softmax(-1)[..., None].masked_fill(~members, -math.inf)
    return each.logsumexp(2)


def attend(
    parameters: Parameters,
    name: str,
    queries: Float[Tensor, "E Q D"],
    context: Float[Tensor, "E S D"],
    steps: int,
) -> Float[Tensor, "E Q D"]:
    """f(x̂, S): every query after `steps` steps of an LSTM that attends to the support."""
    hidden, cell = queries, torch.zeros_like(queries)
    for _ in range(steps):
        readout = (hidden @ context.mT).softmax(-1) @ context
        hidden, cell = lstm_step(parameters, name, queries, torch.cat([hidden, readout], -1), cell)
        hidden = hidden + queries
    return hidden


def read(parameters: Parameters, name: str, inputs: Sequence[Float[Tensor, "E D"]]) -> list[Float[Tensor, "E D"]]:
    """The hidden state of an LSTM after each input, from zero states."""
    hidden = cell = torch.zeros_like(inputs[0])
    states = []
    for x in inputs:
        hidden, cell = lstm_step(parameters, name, x, hidden, cell)
        states.append(hidden)
    return states
