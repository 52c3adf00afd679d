"""Siamese networks (Koch, Zemel, Salakhutdinov, ICML deep learning workshop 2015).

Twins embed two images, h(x) = sigmoid of a fully connected layer, and p(same) = σ(Σ_j α_j |h_j(x) − h_j(x')| + b)
(section 3.1). Training minimises the cross-entropy on pairs, half of which share a class (sections 3.2, 4.2). A query
gets the class of the support example with the highest p(same) (section 4.4). Scores are log-odds. Because pairs are
balanced, the odds are likelihood ratios, and the softmax over classes is p(class) given that exactly one matches.

Deviations: all pairs of an episode are used, weighted so that "same" and "different" count one half each, which is the
mean over balanced draws without their noise. The usual four convolutions with batch normalisation (running averages
after training) replace the paper's on 105 × 105 images. Adam replaces its layer-wise learning rates, momenta, L2
penalties and initial widths from Bayesian optimisation. There are no affine distortions; rotations by 90° are separate
classes in the data. With several shots, the best example of a class, or their mean, gives its score (`by`).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.fewshot.episodes import Episodes, Samples, TaskSpec
from metarl.fewshot.learner import Learner, LearnerConfig, Normalisation
from metarl.fewshot.networks import Network, Statistics, network_for
from metarl.fewshot.objectives.plain import Objective, Predictor
from metarl.randomness import make_generator
from metarl.tasks import check_count

INITIAL_SLOPE, INITIAL_BIAS = 75.0, 8.0
"""Initial log-odds of "same" as a linear function of the mean |h_j(x) − h_j(x')|, which is about 0.1 at first. Neither
answer is favoured then, and training of the embedding need not wait until Adam has raised the slope."""


@dataclass(frozen=True)
class SiameseConfig(LearnerConfig):
    """Options of siamese networks.

    >>> from metarl.fewshot.learners.siamese import SiameseConfig
    >>> SiameseConfig(by="mean").embedding
    256
    """

    embedding: int = 256
    """Size of the embedding that the twins compare."""
    by: Literal["best", "mean"] = "best"
    """Score of a class: that of the best of its support examples, or their mean."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("embedding", self.embedding)


class Siamese(Learner):
    """Predicts the class of the support example that most likely shares the query's class.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.siamese import Siamese, SiameseConfig
    >>> learner = Siamese(SiameseConfig(by="mean"), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = SiameseConfig
    config: SiameseConfig
    kinds = ("classification",)
    takes_backbone = True
    any_ways = True

    def build(self) -> tuple[Parameters, Parameters]:
        config, spec = self.config, self.spec
        self.network: Network = network_for(
            spec.input_shape, config.embedding, width=config.width, hidden=config.hidden, backbone=config.backbone
        )
        generator = make_generator("siamese", self.seed)
        parameters = self.network.initialize(generator)
        # A larger distance makes "same" less likely. With random signs, half the features would have to flip first.
        weight = torch.rand(config.embedding, generator=generator)
        parameters["distance_weight"] = -2 * INITIAL_SLOPE / config.embedding * weight
        parameters["distance_bias"] = torch.tensor(INITIAL_BIAS)
        return parameters, self.network.initial_statistics()

    @classmethod
    def default_config(cls, spec: TaskSpec) -> SiameseConfig:
        """For images, pairs among 6 drawings of each of 20 classes, and a step size that halves every 1,000 steps."""
        if len(spec.input_shape) == 3:
            ways = max(20, spec.shape.ways)
            return SiameseConfig(iterations=4000, num_tasks=1, train_ways=ways, train_queries=5, halve_every=1000)
        return SiameseConfig(num_tasks=16)

    @property
    def normalisation(self) -> Normalisation:
        return "none"

    def adapt(self, support: Samples, *, training: bool = False) -> Predictor:
        if training:
            return lambda x: self._scores_together(support, x)
        embedded = self._encode(support.x)
        return lambda x: class_scores(self.same_logits(self._encode(x), embedded), support.y, self.config.by)

    def fit(self, episodes: Episodes, *, seed: int) -> dict[str, float]:
        """Takes one step on all pairs of the episodes; an objective other than the plain one adds its query loss."""
        support, query = episodes.support, episodes.query
        cut = support.x.shape[1]
        embedded = self._encode(torch.cat([support.x, query.x], 1), training=True)
        logits = self.same_logits(embedded, embedded)
        loss = pair_loss(logits, torch.cat([support.y, query.y], 1)).mean()
        if type(self.objective) is not Objective:
            predictor = self.adapt(support, training=True)
            loss = loss + self.objective.query_loss(predictor, query, self.generator("fit", seed))[0].mean()
        self.minimize(loss)
        scores = class_scores(logits[:, cut:, :cut].detach(), support.y, self.config.by)
        return {"loss": float(loss.detach()), **self.score(scores, query)}

    def embed(self, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n D"]:
        return self._encode(inputs[None])[0]

    def same_logits(self, a: Float[Tensor, "E Q D"], b: Float[Tensor, "E S D"]) -> Float[Tensor, "E Q S"]:
        """The log-odds that an embedded example of `a` and one of `b` share a class: Σ_j α_j |a_j − b_j| + b."""
        distance = (a[:, :, None] - b[:, None]).abs()
        return distance @ self.parameters["distance_weight"] + self.parameters["distance_bias"]

    def _encode(self, inputs: Float[Tensor, "E n ..."], training: bool = False) -> Float[Tensor, "E n D"]:
        statistics = Statistics(running=self.buffers, update=training)
        return self.network(self.parameters, inputs, statistics).sigmoid()

    def _scores_together(self, support: Samples, x: Float[Tensor, "E n ..."]) -> Float[Tensor, "E n N"]:
        """Scores from one pass over support and queries, which share normalisation statistics."""
        cut = support.x.shape[1]
        embedded = self._encode(torch.cat([support.x, x], 1), training=True)
        return class_scores(self.same_logits(embedded[:, cut:], embedded[:, :cut]), support.y, self.config.by)


def pair_loss(logits: Float[Tensor, "E n n"], labels: Int[Tensor, "E n"]) -> Float[Tensor, "E"]:
    """Cross-entropy of "same" or "different" over pairs of examples; each kind has the weight one half."""
    same = labels[:, :, None] == labels[:, None]
    pairs = torch.ones_like(same[0]).triu(1)  # each pair once, nothing with itself
    return 0.5 * (_mean_over(F.softplus(-logits), same & pairs) + _mean_over(F.softplus(logits), ~same & pairs))


def _mean_over(values: Float[Tensor, "E n n"], chosen: Bool[Tensor, "E n n"]) -> Float[Tensor, "E"]:
    return (values * chosen).sum((1, 2)) / chosen.sum((1, 2)).clamp(min=1)


def class_scores(logits: Float[Tensor, "E Q S"], labels: Int[Tensor, "E S"], by: str) -> Float[Tensor, "E Q N"]:
    """The score of each class: the greatest log-odds of its support examples, or their mean."""
    members = F.one_hot(labels).bool()[:, None]
    each = logits[..., None]
    if by == "best":
        return each.masked_fill(~members, -torch.inf).amax(2)
    return (each * members).sum(2) / members.sum(2)
