"""The interface and the common part of the supervised few-shot learners.

A learner turns a support set into a predictor (`adapt`). Training (`fit`) minimises the loss of predictors on the query
sets of training episodes. Both work on E tasks at once. Query labels never reach a predictor, which sees inputs only.
"""

import abc
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.adaptation import Parameters
from metarl.errors import UsageError
from metarl.faults import check_finite
from metarl.fewshot.data.encoder import FileEncoder
from metarl.fewshot.episodes import Episodes, EpisodeShape, Kind, Samples, TaskSpec
from metarl.fewshot.objectives.plain import Objective, ObjectiveConfig, Predictor, task_score
from metarl.fewshot.preprocessing import Preprocessing, as_labels
from metarl.fewshot.support_order import by_content
from metarl.optimizer_state import load_optimizer_tensors, optimizer_tensors
from metarl.randomness import make_generator
from metarl.tasks import check_count

Normalisation = Literal["transductive", "support-statistics", "none"]
"""What a prediction depends on through normalisation layers: the other queries ("transductive"), the statistics of the
support set, or neither ("none": no such layers, or averages that are fixed after training)."""


class CalibrationWarning(UserWarning):
    """Calibrated probabilities were asked for a support set of other sizes than those that were calibrated.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", metarl.fewshot.CalibrationWarning)  # rather no answer than such a one
    """


@dataclass(frozen=True)
class LearnerConfig:
    """Options of every learner. A learner's own options are the fields of a subclass, defined next to the learner.

    >>> metarl.fewshot.LearnerConfig(learning_rate=1e-2).num_tasks
    4
    """

    iterations: int = 10_000
    """Training steps."""
    num_tasks: int = 4
    """Training episodes per step (E)."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    halve_every: int | None = None
    """Training steps between halvings of the learning rate; never if not given."""
    train_ways: int | None = None
    """Ways of the training episodes; as in the test if not given."""
    train_shots: int | None = None
    """Shots of the training episodes; as in the test if not given."""
    train_queries: int | None = None
    """Queries per way of the training episodes; as in the test if not given."""
    width: int = 64
    """Filters of each convolution (images, signals)."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of the fully connected layers (vectors)."""
    backbone: str | None = None
    """A network of your own, MODULE:NAME: a class with the interface of metarl.fewshot.networks.Network, called with
    the shape of an input and the number of outputs, or None for an encoder."""

    def __post_init__(self) -> None:
        for name in ("iterations", "num_tasks", "width"):
            check_count(name, getattr(self, name))
        for name in ("halve_every", "train_ways", "train_shots", "train_queries"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate must be positive, got {self.learning_rate}")


class Learner(abc.ABC):
    """A few-shot learner on `device`, initialised from `seed`.

    A subclass makes its networks in `build` and implements `adapt`. Raises `UsageError` if the learner cannot learn
    tasks like `spec`.

    >>> from metarl.fewshot.data import open_data
    >>> from metarl.fewshot.learners.protonet import ProtoNet, ProtoNetConfig
    >>> data = open_data("biased")
    >>> learner = ProtoNet(ProtoNetConfig(), data.spec(data.default_shape()), seed=0)
    >>> metrics = learner.fit(data.episodes("train", 16, learner.training_shape, seed=0), seed=0)
    >>> learner.predict(torch.zeros(4, 6), [0, 1, 0, 1], torch.zeros(3, 6)).shape
    torch.Size([3, 2])
    """

    config_class: ClassVar[type[LearnerConfig]] = LearnerConfig
    kinds: ClassVar[tuple[Kind, ...]] = ("classification", "regression")
    """The kinds of tasks that the learner supports."""
    iterations_matter: ClassVar[bool] = False
    """Whether a training step depends on the number of iterations, so that a run cannot be extended."""
    any_ways: ClassVar[bool] = False
    """Whether a trained learner takes support sets of any number of classes."""
    takes_backbone: ClassVar[bool] = False
    """Whether its network may be the user's, `LearnerConfig.backbone`."""

    def __init__(
        self,
        config: LearnerConfig,
        spec: TaskSpec,
        *,
        objective: Objective | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        if spec.kind not in self.kinds:
            raise UsageError(f"{type(self).__name__} learns {' and '.join(self.kinds)}, not {spec.kind}")
        if config.backbone is not None and not self.takes_backbone:
            raise UsageError(f"{type(self).__name__} has a network of a kind of its own: leave --backbone out")
        self.config = config
        self.spec = spec
        self.objective = objective or Objective(ObjectiveConfig(), spec)
        self.device = torch.device(device)
        self.seed = seed
        self.updates = 0
        """Training steps taken."""
        self.file_encoder: FileEncoder | None = None
        """How files become inputs; from the run that the learner is loaded from, if its data are files."""
        self.temperature: float | None = None
        """The temperature of calibrated probabilities; from the run, if it is calibrated."""
        if not self.any_ways and self.training_shape.ways != spec.shape.ways:
            raise UsageError(f"{type(self).__name__} is trained with the ways of the test: leave --train-ways out")
        self.train_with(*self.build())

    @abc.abstractmethod
    def build(self) -> tuple[Parameters, Parameters]:
        """Makes the networks; returns the initial learned parameters and the initial buffers."""

    @classmethod
    def default_config(cls, spec: TaskSpec) -> LearnerConfig:
        """The options for tasks like `spec` that apply unless the user gives others."""
        return cls.config_class()

    @property
    @abc.abstractmethod
    def normalisation(self) -> Normalisation:
        """How predictions are normalised. Every result names it."""

    @property
    def order_matters(self) -> bool:
        """Whether a predictor depends on the order of the support set, which is then read as a sequence.

        Training shows it in random orders, of which a file that is sorted by class is none: `predict` therefore reads
        it in an order that depends on the examples alone (`metarl.fewshot.support_order`).
        """
        return False

    @abc.abstractmethod
    def adapt(self, support: Samples, *, training: bool = False) -> Predictor:
        """Adapts to E support sets; returns the predictor. In `training` it is differentiable by `self.parameters`.

        Support sets may have any size, classes of unequal size, and any order.
        """

    def fit(self, episodes: Episodes, *, seed: int) -> dict[str, float]:
        """Takes one training step; returns `loss`, `accuracy` (or `mse`) and any other metrics.

        A learner with another training procedure overrides this and calls `minimize`.
        """
        predictor = self.adapt(episodes.support, training=True)
        losses, outputs = self.objective.query_loss(predictor, episodes.query, self.generator("fit", seed))
        loss = losses.mean()
        self.minimize(loss)
        return {"loss": float(loss.detach()), **self.score(outputs.detach(), episodes.query)}

    @torch.no_grad()
    def predict(
        self, support_x: Any, support_y: Any, query_x: Any, support_groups: Any = None, *, calibrated: bool = False
    ) -> Float[Tensor, "Q O"]:
        """Probabilities `[Q, N]`, or values `[Q, O]` in regression, for the queries of one task.

        Inputs are raw, as `Preprocessing.from_user` takes them. `support_y` `[S]` are integers from 0 to N − 1, each at
        least once, or values `[S, O]`. `support_groups` `[S]`, integers counted from 0, are for objectives that use
        groups in adaptation. The order of the support set does not matter. `calibrated` probabilities are those of the
        run's `temperature`, which is fitted for the ways and the shots of the test: other ways are refused, of other
        shots a `CalibrationWarning` tells. Raises `UsageError` for anything else. Each query is predicted by itself,
        unless the learner's `normalisation` is transductive, of which a warning tells.
        """
        if calibrated and self.spec.kind != "classification":
            raise UsageError("calibrated are the probabilities of classes: a regression has none, leave calibrated out")
        if calibrated and self.temperature is None:
            raise UsageError("the learner has no temperature: metarl evaluate RUN --figures calibrates a run")
        if self.normalisation == "transductive":
            warnings.warn(
                "normalisation is transductive: a prediction depends on the queries that are predicted with it",
                stacklevel=2,
            )
        support, queries = self.converted(support_x, support_y, query_x, support_groups)
        note = self.calibration_note(support.y[0]) if calibrated else None
        if note is not None:
            warnings.warn(note, CalibrationWarning, stacklevel=2)
        outputs = self.adapt(by_content(support) if self.order_matters else support)(queries)[0]
        check_predictions(outputs)
        if self.spec.kind == "regression":
            return outputs if self.spec.targets is None else self.spec.targets.invert(outputs)
        return (outputs / self.temperature if calibrated and self.temperature else outputs).softmax(-1)

    def calibration_note(self, labels: Int[Tensor, "S"]) -> str | None:
        """What is not known of calibrated probabilities for a support set with these `labels`; None if nothing.

        Raises `UsageError` for another number of classes than the calibration is for.
        """
        shape, counts = self.spec.shape, labels.bincount().tolist()
        if len(counts) != shape.ways:
            raise UsageError(
                f"the run is calibrated for {shape.ways} classes, got {len(counts)}: leave calibrated out, or train a "
                f"run with --ways {len(counts)}"
            )
        fewest, most = min(counts), max(counts)
        if fewest == most == shape.shots:
            return None
        given = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        return (
            f"the run is calibrated for {shape.shots} support examples of each class, got {given}: whether the "
            f"probabilities and the coverage hold for these is not known; a run with --shots {fewest} would know"
        )

    def converted(
        self, support_x: Any, support_y: Any, query_x: Any, support_groups: Any = None
    ) -> tuple[Samples, Float[Tensor, "1 Q ..."]]:
        """The checked arguments of `predict` as one task on the learner's device: support and query inputs."""
        convert = self.spec.preprocessing.from_user
        support_x, query_x = convert(support_x, "support_x"), convert(query_x, "query_x")
        support_y = self._targets(support_y, len(support_x))
        groups = None if support_groups is None else as_labels(support_groups, "support_groups")
        if groups is not None and len(groups) != len(support_x):
            raise UsageError(f"support_x has {len(support_x)} examples, support_groups {len(groups)}")
        support = Samples(support_x[None], support_y[None], None if groups is None else groups[None])
        return support.to(self.device), query_x[None].to(self.device)

    def embed(self, inputs: Float[Tensor, "n ..."]) -> Float[Tensor, "n D"] | None:
        """The embeddings that the learner compares, if they do not depend on the support set; else None."""
        return None

    def support_weights(self, support: Samples, queries: Float[Tensor, "E Q ..."]) -> Float[Tensor, "E Q S"] | None:
        """The weight of each support example in each answer, if answers are weighted sums of labels; else None."""
        return None

    def class_distances(self, support: Samples, queries: Float[Tensor, "E Q ..."]) -> Float[Tensor, "E Q N"] | None:
        """The distance of each query from each class, if the learner predicts the nearest class; else None."""
        return None

    def curve(self, episodes: Episodes) -> dict[int, Float[Tensor, "E"]]:
        """The score of each task after 0, 1, … steps of adaptation; empty if the learner takes no steps."""
        return {}

    @property
    def training_shape(self) -> EpisodeShape:
        """The shape of the training episodes."""
        test, config = self.spec.shape, self.config
        return EpisodeShape(
            config.train_ways or test.ways, config.train_shots or test.shots, config.train_queries or test.queries
        )

    def train_with(self, parameters: Parameters, buffers: Parameters | None = None) -> None:
        """Sets `self.parameters`, which Adam trains, and `self.buffers`, which change otherwise."""
        self.parameters = {name: value.to(self.device).requires_grad_() for name, value in parameters.items()}
        self.buffers = {name: value.to(self.device) for name, value in (buffers or {}).items()}
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=self.config.learning_rate)

    def minimize(self, loss: Float[Tensor, ""]) -> None:
        """Takes one step of Adam down the gradient of `loss`."""
        self.optimizer.zero_grad()
        loss.backward()
        self.apply_gradients()

    def apply_gradients(self) -> None:
        """Takes one step of Adam down the gradients stored in `self.parameters`.

        Raises `NumericalFault`, without a step, if one of them is not finite.
        """
        gradients = (value.grad for value in self.parameters.values() if value.grad is not None)
        check_finite("a gradient of the learner", *gradients)
        halvings = 0 if self.config.halve_every is None else self.updates // self.config.halve_every
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * 0.5**halvings
        self.optimizer.step()
        self.updates += 1

    def score(self, outputs: Float[Tensor, "E n O"], samples: Samples) -> dict[str, float]:
        """The mean `accuracy` or `mse` of predictions."""
        return {self.metric: float(task_score(outputs, samples).mean())}

    @property
    def metric(self) -> str:
        return "accuracy" if self.spec.kind == "classification" else "mse"

    def generator(self, *parts: int | str) -> torch.Generator:
        """A stream of random numbers for one purpose, on the learner's device."""
        return make_generator("fewshot", *parts, device=self.device)

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Everything that `fit` changes: tensors, and plain values. A copy."""
        tensors = {name: value.detach().cpu().clone() for name, value in self._named().items()}
        return tensors | optimizer_tensors(self.optimizer), {"updates": self.updates}

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Restores what `state` returned; raises `UsageError` if it belongs to another learner."""
        named = self._named()
        if {name: tuple(value.shape) for name, value in named.items()} != {
            name: tuple(value.shape) for name, value in tensors.items() if not name.startswith("optimizer.")
        }:
            raise UsageError(f"the checkpoint is not of this {type(self).__name__}: its tensors differ")
        for name, value in named.items():
            value.copy_(tensors[name])
        load_optimizer_tensors(self.optimizer, tensors)
        self.updates = int(values["updates"])

    def _named(self) -> dict[str, Tensor]:
        learned = {f"parameters.{name}": value for name, value in self.parameters.items()}
        return learned | {f"buffers.{name}": value for name, value in self.buffers.items()}

    def _targets(self, values: Any, count: int) -> Tensor:
        """Checks a user's labels, or values, for `count` examples and converts them to a tensor."""
        if self.spec.kind == "regression":
            targets = (self.spec.targets or Preprocessing((self.spec.outputs,))).from_user(values, "support_y")
        else:
            targets = as_labels(values, "support_y")
        if len(targets) != count:
            raise UsageError(f"support_x has {count} examples, support_y {len(targets)}")
        return targets if self.spec.kind == "regression" else self._checked_labels(targets)

    def _checked_labels(self, labels: Int[Tensor, "S"]) -> Int[Tensor, "S"]:
        """Checks that the labels are 0, 1, … N − 1 for a number of classes that the learner accepts."""
        ways = int(labels.max()) + 1
        if labels.unique().tolist() != list(range(ways)):
            raise UsageError(f"support_y: want labels 0, 1, … N-1, each at least once; got {labels.unique().tolist()}")
        if not self.any_ways and ways != self.spec.shape.ways:
            raise UsageError(f"{type(self).__name__} was trained for {self.spec.shape.ways} classes, got {ways}")
        return labels


def check_predictions(outputs: Float[Tensor, "Q O"]) -> None:
    """Raises `UsageError` for the first query, counted from 1, whose prediction is not finite."""
    wrong = (~outputs.isfinite()).any(1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0, 0]) + 1
        raise UsageError(
            f"the prediction for query {row} is not finite: its numbers, or those of the support, are far beyond those "
            f"of the training"
        )
