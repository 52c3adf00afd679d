"""Prototypical networks (Snell, Swersky, Zemel, NeurIPS 2017).

c_k is the mean of the embedded support examples of class k (equation 1), p(y = k | x) ∝ exp(−‖f(x) − c_k‖²)
(equation 2). Training episodes have more ways than the test's (section 2.4). Embeddings are normalised by all images of
a training step, and by running averages afterwards, so a prediction does not depend on other queries.

Deviation: training episodes are 20-way by default, the paper's 60-way (Omniglot). This is cheaper and suits data sets
with fewer classes.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.fewshot.episodes import Samples, TaskSpec
from metarl.fewshot.learner import Learner, LearnerConfig, Normalisation
from metarl.fewshot.networks import Network, Statistics, network_for
from metarl.fewshot.objectives.plain import Predictor
from metarl.randomness import make_generator


@dataclass(frozen=True)
class ProtoNetConfig(LearnerConfig):
    """Options of prototypical networks.

    >>> from metarl.fewshot.learners.protonet import ProtoNetConfig
    >>> ProtoNetConfig(train_ways=60).iterations
    10000
    """


class ProtoNet(Learner):
    """Predicts the class with the nearest mean embedding.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
    >>> learner = ProtoNet(ProtoNetConfig(), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = ProtoNetConfig
    kinds = ("classification",)
    takes_backbone = True
    any_ways = True

    def build(self) -> tuple[Parameters, Parameters]:
        config, spec = self.config, self.spec
        self.network: Network = network_for(
            spec.input_shape, None, width=config.width, hidden=config.hidden, backbone=config.backbone
        )
        return self.network.initialize(make_generator("protonet", self.seed)), self.network.initial_statistics()

    @classmethod
    def default_config(cls, spec: TaskSpec) -> ProtoNetConfig:
        """For images, 20-way episodes with 5 queries; the step size halves every 2,000 steps, as in the paper."""
        if spec.preprocessing.is_image:
            ways = max(20, spec.shape.ways)
            return ProtoNetConfig(num_tasks=1, train_ways=ways, train_queries=5, halve_every=2000)
        return ProtoNetConfig(num_tasks=16)

    @property
    def normalisation(self) -> Normalisation:
        return "none"

    def adapt(self, support: Samples, *, training: bool = False) -> Predictor:
        if training:
            return lambda x: self._scores_together(support, x)
        prototypes = class_means(self._encode(support.x), support.y)
        return lambda x: -squared_distances(self._encode(x), prototypes)

    def embed(self, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n D"]:
        return self._encode(inputs[None])[0]

    def class_distances(self, support: Samples, queries: Float[Tensor, "E Q ..."]) -> Float[Tensor, "E Q N"]:
        """‖f(x) − c_k‖."""
        return (-self.adapt(support)(queries)).clamp(min=0).sqrt()

    def _scores_together(self, support: Samples, x: Float[Tensor, "E n ..."]) -> Float[Tensor, "E n N"]:
        """Scores from one pass over support and queries with shared statistics, as in the paper's training."""
        cut = support.x.shape[1]
        embedded = self._encode(torch.cat([support.x, x], 1), training=True)
        return -squared_distances(embedded[:, cut:], class_means(embedded[:, :cut], support.y))

    def _encode(self, inputs: Float[Tensor, "E n ..."], training: bool = False) -> Float[Tensor, "E n D"]:
        statistics = Statistics(running=self.buffers, update=training)
        return self.network(self.parameters, inputs, statistics)


def class_means(
    embedded: Float[Tensor, "E S D"], labels: Int[Tensor, "E S"], num_classes: int | None = None
) -> Float[Tensor, "E N D"]:
    """The mean of the rows of each class; `num_classes` is the highest label plus one if not given."""
    members = torch.nn.functional.one_hot(labels, -1 if num_classes is None else num_classes).to(embedded.dtype)
    return members.mT @ embedded / members.sum(1)[..., None]


def squared_distances(a: Float[Tensor, "E Q D"], b: Float[Tensor, "E N D"]) -> Float[Tensor, "E Q N"]:
    """‖a_q − b_n‖², by ‖a‖² − 2 a·b + ‖b‖²."""
    cross = torch.baddbmm(b.square().sum(-1)[:, None], a, b.mT, alpha=-2)
    return cross + a.square().sum(-1, keepdim=True)
