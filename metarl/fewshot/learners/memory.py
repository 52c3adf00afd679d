"""The common part of MANN and the Neural Turing Machine: a recurrent network that learns by reading a sequence.

Santoro et al. (ICML 2016, section 2): examples come one by one, each with the label of the example before, (x_1, 0),
(x_2, y_1), …, (x_T, y_{T−1}), and the network predicts y_t when it sees x_t. The prediction for a query is thus the
output after the support set. Training uses the predictions at every step of a sequence, which holds the support and
query examples of an episode in random order.

Deviations: the network must learn to bind labels to earlier inputs, and to see that two drawings show one character.
Neither helps without the other, and learning both at once takes tens of thousands of steps before the loss moves. The
first one alone takes hundreds, so training on images starts with sequences that repeat one drawing of each character.
`class_distortion` is not in the paper either; it keeps the network from memorising characters.

`adapt` reads the support set in the given order: other orders give different predictions.
"""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metarl.adaptation import Parameters
from metarl.errors import UsageError
from metarl.fewshot.distortion import distort
from metarl.fewshot.episodes import Episodes, Samples, TaskSpec
from metarl.fewshot.learner import Learner, LearnerConfig, Normalisation
from metarl.fewshot.objectives.plain import Predictor
from metarl.nn.recurrent import lstm_cell
from metarl.randomness import make_generator
from metarl.tasks import check_count

ControllerKind = Literal["lstm", "feed-forward"]
State = Any
"""The state of B sequences between steps: a named tuple of tensors `[B, ...]`, which each kind of cell defines."""
MEMORY_START = 1e-6
"""Initial value of the memory: a small constant learns fastest (Collier and Beel 2018)."""

NORM_EPSILON = 1e-8
"""Added to squared norms, so that the gradient of an almost empty row stays finite."""


@dataclass(frozen=True)
class MemoryConfig(LearnerConfig):
    """Options of networks with an external memory; the defaults are those of Santoro et al., section 4.1.

    >>> from metarl.fewshot.learners.memory import MemoryConfig
    >>> MemoryConfig(controller="feed-forward").controller_size
    200
    """

    num_tasks: int = 16
    """Sequences per step (E)."""
    train_shots: int | None = 9
    """Examples of each class in a training sequence, together with `train_queries`: 10 in all in the paper."""
    train_queries: int | None = 1
    """Further examples of each class in a training sequence, added to `train_shots`."""
    controller: ControllerKind = "lstm"
    """Network that reads and writes the memory."""
    controller_size: int = 200
    """Units of the controller."""
    slots: int = 128
    """Rows of the memory."""
    slot_size: int = 40
    """Numbers in each row."""
    read_heads: int = 4
    """Read heads (reads per step)."""
    image_size: int = 20
    """Side in pixels to which images are shrunk; the controller reads their pixels."""
    rotation: float = 11.25
    """Largest random rotation of training images, in degrees (π/16)."""
    translation: float = 0.095
    """Largest random translation of training images, in x and y, as a share of their side (10 of 105 pixels)."""
    class_distortion: float = 0.0
    """Largest random stretch and shear that turns a training class into a new one: all drawings of the class in a
    sequence get the same, and are mirrored or not."""
    clip: float = 10.0
    """Norm to which longer gradients are scaled down."""
    warm_up: int = 0
    """First training steps, in which all examples of a class are the same undistorted example."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("controller_size", "slots", "slot_size", "read_heads", "image_size"):
            check_count(name, getattr(self, name))
        if self.slots < self.read_heads:
            raise UsageError(f"slots must be at least read_heads, got {self.slots} and {self.read_heads}")
        if not (self.clip > 0 and self.rotation >= 0 and 0 <= self.translation < 1):
            raise UsageError("clip must be positive, rotation not negative, and translation in [0, 1)")
        if not 0 <= self.class_distortion < 0.5:  # from there on the matrix can be singular
            raise UsageError(f"class_distortion must lie in [0, 0.5), got {self.class_distortion}")
        if self.warm_up < 0:
            raise UsageError(f"warm_up must be at least 0, got {self.warm_up}")


class GradientAfterLoop(torch.autograd.Function):
    """Passes on sums `[T, B, G]`, to each of which a loop adds W v_t, and computes the gradient of W `[G, V]`.

    The loop appends its v_t `[B, V]` to the list `vectors`. Autograd would add up T matrices for this gradient, which
    takes a fifth of a training step. Here it is one matrix product.

    >>> from metarl.fewshot.learners.memory import GradientAfterLoop
    >>> vectors, weight = [], torch.zeros(4, 2, requires_grad=True)
    >>> sums = GradientAfterLoop.apply(torch.zeros(3, 1, 4, requires_grad=True), weight, vectors)
    >>> vectors += [torch.ones(1, 2)] * 3  # what a loop of 3 steps multiplies by the weight
    >>> sums.sum().backward()
    >>> weight.grad[0]
    tensor([3., 3.])
    """

    @staticmethod
    def forward(ctx: Any, sums: Tensor, weight: Tensor, vectors: list[Tensor]) -> Tensor:
        ctx.vectors = vectors
        return sums.view_as(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradient, gradient.flatten(0, 1).mT @ torch.cat(ctx.vectors), None


class Controller(nn.Module):
    """Computes h_t from the input and the last reads: an LSTM, or one tanh layer, which has no memory.

    >>> from metarl.fewshot.learners.memory import Controller
    >>> controller = Controller("lstm", inputs=6, reads=2 * 8, units=32)
    >>> inputs, zeros = controller.begin(torch.zeros(5, 3, 6)), torch.zeros(3, 32)
    >>> hidden, cell = controller(inputs[0], torch.zeros(3, 2, 8), zeros, zeros)
    """

    def __init__(self, kind: ControllerKind, inputs: int, reads: int, units: int):
        super().__init__()
        self.units = units
        self.is_lstm = kind == "lstm"
        self.input = nn.Linear(inputs, 4 * units if self.is_lstm else units)
        fed_back = reads + units if self.is_lstm else reads
        self.feedback = nn.Linear(fed_back, 4 * units if self.is_lstm else units, bias=False)
        self._fed_back: list[Tensor] = []

    def begin(self, inputs: Float[Tensor, "T B I"]) -> Float[Tensor, "T B G"]:
        """Starts a loop over the steps; returns the contribution of the inputs to each step."""
        self._fed_back = []
        sums: Tensor = GradientAfterLoop.apply(self.input(inputs), self.feedback.weight, self._fed_back)
        return sums

    def forward(
        self,
        inputs: Float[Tensor, "B G"],
        reads: Float[Tensor, "B R W"],
        hidden: Float[Tensor, "B H"],
        cell: Float[Tensor, "B H"],
    ) -> tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]:
        """h_t and c_t, given the contribution of step t from `begin`."""
        vector = torch.cat([hidden, reads.flatten(1)], 1) if self.is_lstm else reads.flatten(1)
        if torch.is_grad_enabled():
            self._fed_back.append(vector.detach())
        sums = inputs + F.linear(vector, self.feedback.weight.detach())
        if not self.is_lstm:
            return sums.tanh(), cell
        return lstm_cell(sums, cell)


class MemoryCell(nn.Module, abc.ABC):
    """A controller with a memory. `outputs` is the size of its output [h_t, r_t].

    >>> from metarl.fewshot.learners.memory import MemoryCell
    >>> from metarl.fewshot.learners.ntm import NTMCell
    >>> issubclass(NTMCell, MemoryCell)
    True
    """

    controller: Controller
    outputs: int

    @abc.abstractmethod
    def initial(self, size: int) -> State:
        """The state of `size` sequences before their first step."""

    @abc.abstractmethod
    def advance(self, inputs: Float[Tensor, "B G"], state: State) -> tuple[Float[Tensor, "B O"], State]:
        """[h_t, r_t] and the state after a step, given the contribution of the step from `self.controller.begin`."""

    def forward(self, inputs: Float[Tensor, "T B I"], state: State) -> tuple[Float[Tensor, "T B O"], State]:
        """The outputs at T steps, and the state after them."""
        outputs = []
        for step in self.controller.begin(inputs):
            output, state = self.advance(step, state)
            outputs.append(output)
        return torch.stack(outputs), state

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Xavier-uniform weights (Glorot and Bengio 2010), zero biases, an LSTM's forget gates open (bias 1)."""
        initialize(self, generator)
        if self.controller.is_lstm:
            self.controller.input.bias[self.controller.units : 2 * self.controller.units] = 1.0


class MemoryLearner(Learner, abc.ABC):
    """A learner that reads the support set as a sequence and predicts each query from the state after it.

    `adapt` depends on the order of the support set, which is random in training.

    >>> from metarl.fewshot.learners.memory import MemoryLearner
    >>> from metarl.fewshot.learners.mann import MANN
    >>> issubclass(MANN, MemoryLearner)
    True
    """

    config_class: ClassVar[type[LearnerConfig]] = MemoryConfig
    config: MemoryConfig

    def build(self) -> tuple[Parameters, Parameters]:
        config, spec = self.config, self.spec
        if config.warm_up > 0 and spec.kind == "regression":
            raise UsageError("regression has no classes to repeat one example of: leave warm_up at 0")
        if spec.preprocessing.is_image:
            pixels = spec.input_shape[0] * config.image_size**2
        else:
            pixels = math.prod(spec.input_shape)
        generator = make_generator("memory learner", self.seed)
        self.cell = self.make_cell(pixels + spec.outputs)
        self.cell.initialize(generator)
        with torch.no_grad():  # otherwise hundreds of pixels would drown the label at first
            self.cell.controller.input.weight[:, pixels:] *= max(1.0, math.sqrt(pixels / spec.outputs))
        self.readout = nn.Linear(self.cell.outputs, spec.outputs)
        initialize(self.readout, generator)
        network = nn.ModuleDict({"cell": self.cell, "readout": self.readout}).to(self.device)
        return dict(network.named_parameters()), {}

    @classmethod
    def default_config(cls, spec: TaskSpec) -> LearnerConfig:
        """Training sequences of 10 examples of each class, as in the paper, or more if the test's support is larger."""
        options: dict[str, Any] = {"train_shots": max(9, spec.shape.shots)}
        if spec.kind == "classification" and spec.preprocessing.is_image:
            options |= {"learning_rate": 2e-3, "warm_up": 1500}
        return cls.config_class(**options)

    @abc.abstractmethod
    def make_cell(self, inputs: int) -> MemoryCell:
        """Makes the cell for input vectors of `inputs` numbers."""

    @property
    def normalisation(self) -> Normalisation:
        return "none"

    @property
    def order_matters(self) -> bool:
        return True

    def adapt(self, support: Samples, *, training: bool = False) -> Predictor:
        state = self.cell.initial(len(support.x))
        _, state = self.cell(self._inputs(support.x, self._before(support)), state)
        last = self._labels(support)[:, -1]

        def predictor(x: Float[Tensor, "E n ..."]) -> Float[Tensor, "E n O"]:
            count = x.shape[1]
            inputs = self._inputs(x.flatten(0, 1)[:, None], last.repeat_interleave(count, 0)[:, None])
            each = type(state)(*(value.repeat_interleave(count, 0) for value in state))  # queries are independent
            outputs, _ = self.cell(inputs, each)
            return self.readout(outputs[0]).unflatten(0, (len(x), count))

        return predictor

    def fit(self, episodes: Episodes, *, seed: int) -> dict[str, float]:
        """Takes one step on the loss of all predictions along a sequence, including the first example of each class."""
        sequence = mix(episodes, self.generator("order", seed))
        if self.updates < self.config.warm_up:
            sequence = repeat_first(sequence)
        elif self.spec.preprocessing.is_image:
            moved = distort(
                sequence,
                self.spec.outputs,
                self.generator("distortion", seed),
                rotation=self.config.rotation,
                translation=self.config.translation,
                class_distortion=self.config.class_distortion,
            )
            sequence = Samples(moved, sequence.y, sequence.groups)
        losses, outputs = self.objective.query_loss(
            lambda x: self.along(x, sequence), sequence, self.generator("fit", seed)
        )
        loss = losses.mean()
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip)
        self.apply_gradients()
        scores = self.score(outputs.detach(), sequence)
        return {"loss": float(loss.detach()), **scores, "gradient_norm": float(norm)}

    def along(self, x: Float[Tensor, "E T ..."], sequence: Samples) -> Float[Tensor, "E T O"]:
        """The predictions for `x`, each given the examples before it and their labels in `sequence`."""
        outputs, _ = self.cell(self._inputs(x, self._before(sequence)), self.cell.initial(len(x)))
        return self.readout(outputs).transpose(0, 1)

    @torch.no_grad()
    def curve(self, episodes: Episodes) -> dict[int, Float[Tensor, "E"]]:
        """The score of the first, second, … instance of a class, that is after 0, 1, … examples of it.

        Measured along a sequence, as in training. In regression, the score at each position.
        """
        sequence = mix(episodes, self.generator("instances"))
        outputs = self.along(sequence.x, sequence)
        if self.spec.kind == "regression":
            errors = (outputs - sequence.y).square().mean(2)
            return dict(enumerate(errors.unbind(1)))
        right = (outputs.argmax(-1) == sequence.y).float()
        seen = examples_before(sequence.y, self.spec.outputs)
        means = {}
        for count in range(int(seen.max()) + 1):
            chosen = seen == count
            means[count] = (right * chosen).sum(1) / chosen.sum(1)
        return means

    def _inputs(self, x: Float[Tensor, "E T ..."], before: Float[Tensor, "E T O"]) -> Float[Tensor, "T E I"]:
        """The inputs of the controller: pixels or features, and the previous label.

        The pixels of each image are standardised to mean 0 and deviation 1. Otherwise the common part of all images
        would make all keys similar.
        """
        if self.spec.preprocessing.is_image:
            images = x.flatten(0, 1)
            side = self.config.image_size
            if images.shape[-2:] != (side, side):
                images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
            pixels = images.flatten(1)
            x = F.layer_norm(pixels, pixels.shape[1:]).unflatten(0, x.shape[:2])
        return torch.cat([x.flatten(2), before], 2).transpose(0, 1)

    def _labels(self, samples: Samples) -> Float[Tensor, "E T O"]:
        """Labels as one-hot vectors; values as they are."""
        if self.spec.kind == "regression":
            return samples.y
        return F.one_hot(samples.y, self.spec.outputs).float()

    def _before(self, samples: Samples) -> Float[Tensor, "E T O"]:
        """The label of the previous example; zeros for the first."""
        labels = self._labels(samples)
        return torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :-1]], 1)


def mix(episodes: Episodes, generator: torch.Generator) -> Samples:
    """The support and query examples of each task as one sequence in random order."""
    x = torch.cat([episodes.support.x, episodes.query.x], 1)
    y = torch.cat([episodes.support.y, episodes.query.y], 1)
    order = torch.rand(x.shape[:2], generator=generator, device=x.device).argsort(1)
    rows = torch.arange(len(x), device=x.device)[:, None]
    groups = None
    if episodes.support.groups is not None and episodes.query.groups is not None:
        groups = torch.cat([episodes.support.groups, episodes.query.groups], 1)[rows, order]
    return Samples(x[rows, order], y[rows, order], groups)


def repeat_first(samples: Samples) -> Samples:
    """Replaces all examples of a class by its first one."""
    first = (samples.y[:, :, None] == samples.y[:, None]).byte().argmax(2)
    rows = torch.arange(len(first), device=first.device)[:, None]
    return Samples(samples.x[rows, first], samples.y, samples.groups)


def examples_before(labels: Int[Tensor, "E T"], ways: int) -> Int[Tensor, "E T"]:
    """The number of examples of its own class before each example."""
    seen = F.one_hot(labels, ways).cumsum(1)
    return seen.gather(2, labels[..., None])[..., 0] - 1


def cosine(keys: Float[Tensor, "B R W"], memory: Float[Tensor, "B M W"]) -> Float[Tensor, "B R M"]:
    """K(k, M(i)) = k · M(i) / (‖k‖ ‖M(i)‖), zero if either vector is zero."""
    keys = keys * (keys.square().sum(2, keepdim=True) + NORM_EPSILON).rsqrt()
    scale = (memory.square().sum(2) + NORM_EPSILON).rsqrt()
    return keys @ memory.mT * scale[:, None]


@torch.no_grad()
def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Initialises all parameters of `module`: Xavier-uniform matrices and zero vectors."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.zero_()
        else:
            nn.init.xavier_uniform_(parameter, generator=generator)


def split(values: Float[Tensor, "B n"], sizes: Sequence[int], heads: int) -> list[Float[Tensor, "B R _"]]:
    """Splits rows of numbers into the parameters of each head, each `[B, R, size]`."""
    return list(values.unflatten(1, (heads, sum(sizes))).split(list(sizes), 2))
