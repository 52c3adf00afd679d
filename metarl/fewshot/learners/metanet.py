"""Meta networks (Munkhdalai, Yu, ICML 2017), algorithm 1, for classification.

Two networks, a meta learner u and a base learner b, have slow weights Q and W, which are trained, and fast weights,
which the trained functions d and m compute from gradients of losses on the support:

    ∇_i = ∇_Q loss(u(Q, x_i), y_i) for one example of each class,       Q* = d(∇_1, …, ∇_N)
    W*_i = m(∇_W loss(b(W, x_i), y_i)),  r_i = u(Q, Q*, x_i)            for each support example: memories M and R
    W*(x) = Σ_i softmax_i(cos(r_i, u(Q, Q*, x))) W*_i                   for a query x
    p(y | x) = softmax of b(W, W*(x), x)

A layer with both kinds of weights adds their outputs: relu(W x) + relu(W* x), and W x + W* x before a softmax (section
3.3, layer augmentation). d is an LSTM and m an MLP, both with 20 units and applied to each coordinate of the gradients
separately. Their inputs are (log |∇| / p, sign ∇) with p = 7, or (−1, eᵖ ∇) for small gradients (section 4.1).

d reads one example of each class, in the order of labels; the paper samples them. In training it is the first, of a
random order; at test time the first by content (`metarl.fewshot.support_order`), so that the support is a set.

Deviations: only the fully connected layers (one hidden, one output) have fast weights; the last convolution has none
here, because every query would need its own convolution. There are four convolutions with batch normalisation (by all
images of a training step, by running averages afterwards) of 32 filters each, to be affordable on a CPU. The loss of u
is cross-entropy for any number of shots; the paper has a contrastive loss for more than one shot. A learned factor with
the initial value `sharpness` multiplies the cosines. Training does not differentiate through the gradients ∇, which are
plain inputs of d and m.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from metarl.adaptation import Parameters, gradient_of, stack
from metarl.errors import UsageError
from metarl.fewshot.episodes import Samples, TaskSpec
from metarl.fewshot.learner import Learner, LearnerConfig, Normalisation
from metarl.fewshot.learners.l2o import log_and_sign
from metarl.fewshot.lstm import initial_lstm, lstm_step
from metarl.fewshot.networks import Network, ReluMLP, Statistics, linear, network_for
from metarl.fewshot.objectives.plain import Predictor, task_loss
from metarl.fewshot.parameter_names import part, with_prefix
from metarl.fewshot.support_order import by_content
from metarl.randomness import make_generator
from metarl.tasks import check_count

META_UNITS = 20
"""Units of d's LSTM and of m's layers."""
LOG_RANGE = 7.0
"""p of the gradients' preprocessing: magnitudes above e^−p are given by their logarithm."""
FAST_SCALE = 0.1
"""Initial scale of fast weights, relative to slow ones."""
HEAD_SCALE = 0.1
"""Initial scale of b's slow output layer: labels are permuted in each task, so it cannot predict them."""
NETWORKS = ("base", "meta")
"""b and u."""


@dataclass(frozen=True)
class Memory:
    """The memory of E support sets of S examples.

    >>> from metarl.fewshot.learners.metanet import Memory
    >>> fast, values = {"weight0": torch.zeros(2, 64, 6)}, {"weight0": torch.zeros(2, 10, 64, 6)}
    >>> Memory(fast, values, keys=torch.zeros(2, 10, 64)).keys.shape
    torch.Size([2, 10, 64])
    """

    fast: Parameters
    """Q*, of u's hidden layer: `weight0` `[E, out, in]` and `bias0` `[E, out]`."""
    values: Parameters
    """M: the fast weights of b from each example, `[E, S, ...]`."""
    keys: Float[Tensor, "E S R"]
    """R: the representation of each example."""


@dataclass(frozen=True)
class MetaNetConfig(LearnerConfig):
    """Options of meta networks.

    >>> from metarl.fewshot.learners.metanet import MetaNetConfig
    >>> MetaNetConfig(units=32).width
    32
    """

    width: int = 32
    """Filters of each convolution (images)."""
    units: int = 64
    """Units of the fully connected hidden layer of either network, and size of a representation."""
    sharpness: float = 10.0
    """Initial factor of the cosines before the softmax."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("units", self.units)
        if not self.sharpness > 0:
            raise UsageError(f"sharpness must be positive, got {self.sharpness}")


class MetaNet(Learner):
    """Computes fast weights from gradients and retrieves them by similarity.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.metanet import MetaNet, MetaNetConfig
    >>> learner = MetaNet(MetaNetConfig(), open_data("biased").spec(metarl.fewshot.EpisodeShape(ways=2)))
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = MetaNetConfig
    config: MetaNetConfig
    kinds = ("classification",)
    takes_backbone = True

    def build(self) -> tuple[Parameters, Parameters]:
        config, spec = self.config, self.spec
        self.encoder: Network = network_for(
            spec.input_shape, None, width=config.width, hidden=config.hidden, backbone=config.backbone
        )
        self.layers = ReluMLP((self.encoder.outputs, config.units, spec.outputs))
        """The layers with fast weights, after the encoder: hidden and output."""
        self.rule = ReluMLP((2, META_UNITS, META_UNITS, 1))
        """m, of one coordinate of a gradient."""
        generator = make_generator("metanet", self.seed)
        parameters, statistics = Parameters(), Parameters()
        for name in NETWORKS:
            parameters |= with_prefix(f"{name}.encoder.", self.encoder.initialize(generator))
            parameters |= with_prefix(f"{name}.layers.", self.layers.initialize(generator))
            statistics |= with_prefix(f"{name}.", self.encoder.initial_statistics())
        parameters |= with_prefix("rule.", self.rule.initialize(generator))
        parameters["rule.weight2"] *= FAST_SCALE
        parameters["base.layers.weight1"] *= HEAD_SCALE
        parameters |= initial_lstm("lstm", 2, META_UNITS, META_UNITS, generator)
        parameters["lstm.output"] = FAST_SCALE * torch.randn(1, META_UNITS, generator=generator)
        parameters["log_sharpness"] = torch.tensor(math.log(config.sharpness))
        return parameters, statistics

    @classmethod
    def default_config(cls, spec: TaskSpec) -> MetaNetConfig:
        """For images, 4 tasks per step with 5 queries of each class, and a step size that halves every 1,500 steps."""
        if len(spec.input_shape) == 3:
            return MetaNetConfig(iterations=6000, num_tasks=4, train_queries=5, halve_every=1500)
        return MetaNetConfig(num_tasks=16)

    @property
    def normalisation(self) -> Normalisation:
        return "none"

    def adapt(self, support: Samples, *, training: bool = False) -> Predictor:
        cut = support.x.shape[1]

        def together(x: Float[Tensor, "E n ..."]) -> Float[Tensor, "E n N"]:
            """Scores from one pass over support and queries, which share normalisation statistics."""
            features = self._encode(torch.cat([support.x, x], 1), training=True)
            known = {name: value[:, :cut] for name, value in features.items()}
            return self._predict(self._remember(known, support.y), {k: v[:, cut:] for k, v in features.items()})

        if training:
            return together
        if cut > self.spec.outputs:  # several shots: which of a class comes first matters
            support = by_content(support)
        memory = self._remember(self._encode(support.x), support.y)
        return lambda x: self._predict(memory, self._encode(x))

    def _encode(self, inputs: Float[Tensor, "E n ..."], training: bool = False) -> dict[str, Float[Tensor, "E n F"]]:
        """The features of the inputs from the convolutions of either network."""
        features = {}
        for name in NETWORKS:
            statistics = Statistics(running=part(f"{name}.", self.buffers), update=training)
            features[name] = self.encoder(part(f"{name}.encoder.", self.parameters), inputs, statistics)
        return features

    def _remember(self, features: dict[str, Float[Tensor, "E S F"]], labels: Int[Tensor, "E S"]) -> Memory:
        """The memory of the support sets: Q*, M and R."""
        first = F.one_hot(labels, self.spec.outputs).argmax(1)  # [E, N], where the first example of each class lies
        chosen = features["meta"].gather(1, first[..., None].expand(-1, -1, features["meta"].shape[-1]))
        gradients = self.example_gradients(part("meta.layers.", self.parameters), chosen, labels.gather(1, first))
        fast = {name: self._read(gradients[name]) for name in ("weight0", "bias0")}
        gradients = self.example_gradients(part("base.layers.", self.parameters), features["base"], labels)
        rule = part("rule.", self.parameters)
        memory = {}
        for name, value in gradients.items():
            coordinates = log_and_sign(value, LOG_RANGE).flatten(0, -2)[
                None
            ]  # one batch of all coordinates, [1, E·S·out·in, 2]
            memory[name] = self.rule(rule, coordinates).reshape(value.shape)
        return Memory(fast, memory, self._represent(fast, features["meta"]))

    def example_gradients(
        self, slow: Parameters, features: Float[Tensor, "E S F"], labels: Int[Tensor, "E S"]
    ) -> Parameters:
        """The gradient of each example's cross-entropy by the fully connected layers, `[E, S, ...]`, detached."""
        count = labels.numel()
        inputs, targets = features.detach().reshape(count, 1, -1), labels.reshape(count, 1)
        with torch.no_grad():
            gradient = gradient_of(lambda p: task_loss(self.layers(p, inputs), Samples(inputs, targets)))
            values = gradient(stack(slow, count))
        return {name: value.unflatten(0, labels.shape) for name, value in values.items()}

    def _read(self, gradients: Float[Tensor, "E T ..."]) -> Float[Tensor, "E ..."]:
        """d: an LSTM that reads each coordinate's gradients one after the other."""
        hidden = cell = gradients.new_zeros(*gradients[:, 0].shape, META_UNITS)
        for gradient in log_and_sign(gradients, LOG_RANGE).unbind(1):
            hidden, cell = lstm_step(self.parameters, "lstm", gradient, hidden, cell)
        return F.linear(hidden, self.parameters["lstm.output"])[..., 0]

    def _represent(self, fast: Parameters, features: Float[Tensor, "E n F"]) -> Float[Tensor, "E n R"]:
        """r = u(Q, Q*, x), the hidden layer's output, of unit length."""
        slow = part("meta.layers.", self.parameters)
        hidden = linear(slow["weight0"], slow["bias0"], features).relu()
        hidden = hidden + linear(fast["weight0"], fast["bias0"], features).relu()
        return F.normalize(hidden, dim=-1)

    def _predict(self, memory: Memory, features: dict[str, Float[Tensor, "E Q F"]]) -> Float[Tensor, "E Q N"]:
        """b(W, W*(x), x) for every query."""
        cosines = self._represent(memory.fast, features["meta"]) @ memory.keys.mT
        attention = (self.parameters["log_sharpness"].exp() * cosines).softmax(-1)
        slow = part("base.layers.", self.parameters)
        recalled = {name: torch.einsum("eqs,es...->eq...", attention, value) for name, value in memory.values.items()}
        hidden = features["base"]
        for layer in range(2):
            weight, bias = f"weight{layer}", f"bias{layer}"
            by_slow = linear(slow[weight], slow[bias], hidden)
            by_fast = torch.einsum("eqoi,eqi->eqo", recalled[weight], hidden) + recalled[bias]
            hidden = by_slow.relu() + by_fast.relu() if layer == 0 else by_slow + by_fast
        return hidden
