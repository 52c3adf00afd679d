"""Runs that train and test a few-shot learner on a data set: configuration, experiment and training.

The folder is described in `metarl.experiment.run_folder`. Its config.yaml also holds the learner's `TaskSpec`, so that
a run can be opened without the data.
"""

import contextlib
import dataclasses
import functools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from metarl.devices import resolve_device
from metarl.errors import UsageError
from metarl.experiment.checkpoints import Checkpoint
from metarl.experiment.experiment import Experiment, Parts, Run, Trained, check_part_name, check_parts, require_part
from metarl.experiment.options import LATER, build, check_seed, plain, read_config
from metarl.fewshot.calibration import read_calibration
from metarl.fewshot.command_line import changed_flags
from metarl.fewshot.data import DataConfig, DataSet, data_config, open_data
from metarl.fewshot.data.encoder import FileEncoder, open_encoder
from metarl.fewshot.episodes import EpisodeShape, TaskSpec
from metarl.fewshot.learner import Learner, LearnerConfig
from metarl.fewshot.learners import learner_class
from metarl.fewshot.objectives import objective_class
from metarl.fewshot.objectives.plain import Objective, ObjectiveConfig
from metarl.fewshot.result import RESULT
from metarl.fewshot.training import FewShotTraining, usual_row_every
from metarl.fewshot.validation import Selection, Validated
from metarl.registry import name_of
from metarl.tasks import SPLITS, check_count

_FLAGS = (
    *("ways", "shots", "queries", "episodes", "test_shots", "test_queries", "baselines", "seed"),
    *("validate_every", "validation_share", "validation_episodes", "patience"),
)
"""The flags of `metarl fewshot` that affect results, besides those of the learner, the data and the objective."""
_PARTS = {"learner": "learner", "data": "data set", "objective": "objective"}
"""What a few-shot run is made of → what the registry calls it."""


@dataclass(frozen=True)
class FewShotConfig:
    """The configuration of a few-shot run. `resolve` checks it and fills in the defaults.

    >>> config = metarl.fewshot.FewShotConfig(learner="protonet", data="biased", shots=5)
    >>> config.resolve().spec.shape.queries
    100
    """

    learner: str | type[Learner]
    """Id of the learner, MODULE:NAME, or its class."""
    data: str | type[DataSet] | DataSet
    """Id of the data set, MODULE:NAME, its class, or the open data set itself."""
    objective: str | type[Objective] = "plain"
    """Id of the objective, MODULE:NAME, or its class."""
    ways: int | None = None
    """Classes of a test episode (N); the data set's default if not given."""
    shots: int | None = None
    """Support examples of each class (K); the data set's default if not given."""
    queries: int | None = None
    """Queries of each class (Q); the data set's default if not given."""
    learner_options: Mapping[str, Any] | LearnerConfig = field(default_factory=dict)
    """Options of the learner, by name or as its config dataclass."""
    data_options: Mapping[str, Any] | DataConfig = field(default_factory=dict)
    """Options of the data set."""
    objective_options: Mapping[str, Any] | ObjectiveConfig = field(default_factory=dict)
    """Options of the objective."""
    episodes: int = 600
    """Test episodes."""
    test_shots: tuple[int, ...] = ()
    """Further numbers of shots to test with."""
    test_queries: tuple[int, ...] = ()
    """Further numbers of queries of each class to test with."""
    baselines: bool = field(default=True, metadata=LATER)
    """Whether to test simple models of scikit-learn on the same episodes: tables, embeddings and texts."""
    device: str = "cpu"
    """Device to compute on: cpu, cuda or cuda:N."""
    seed: int = 0
    """Seed of all randomness of the run."""
    checkpoint_every: int = 1000
    """Training steps between checkpoints."""
    validate_every: int | None = field(default=None, metadata=LATER)
    """Training steps between validations, on examples held out of the training set; none if not given. The state that
    is best by validation is tested and loaded; training is resumed from the last one."""
    validation_share: float = field(default=0.2, metadata=LATER)
    """Share of the training set's classes, or rows, that is held out for validation."""
    validation_episodes: int = field(default=100, metadata=LATER)
    """Episodes of a validation, the same ones each time."""
    patience: int | None = field(default=None, metadata=LATER)
    """Stop the training after so many validations without a better one; never if not given."""
    row_every: int | None = field(default=None, metadata=LATER)
    """Training steps that one row of metrics averages; if not given, so many that a run has 500 rows."""
    threads: int | None = field(default=None, metadata=LATER)
    """Threads that torch computes with; one, and more where they pay, if not given."""
    output: Path | str | None = None
    """The run folder; runs/LEARNER-DATA-seedSEED if not given."""

    def resolve(self, data: DataSet | None = None) -> "FewShotExperiment":
        """Makes the experiment; raises `UsageError` for a configuration that cannot be trained.

        `data` is the data set that `data` and `data_options` name, if it is already open.
        """
        data = open_data(self.data, self.data_options) if data is None else data
        config = dataclasses.replace(self, data_options=data.config)
        return FewShotExperiment(config, self.spec(data), data)

    def spec(self, data: DataSet) -> TaskSpec:
        """The test tasks. Sizes that are not given are the data set's defaults."""
        default = data.default_shape()
        given = {name: getattr(self, name) for name in ("ways", "shots", "queries")}
        shape = dataclasses.replace(default, **{name: value for name, value in given.items() if value is not None})
        if data.kind == "regression" and shape.ways != 1:
            raise UsageError(f"{_name_of('data', self.data)[0]} is regression: it has no classes, leave --ways out")
        return data.spec(shape)


class FewShotExperiment(Experiment):
    """A `FewShotConfig` with the classes and options of its learner and objective. It opens the data when needed.

    In its `config`, learner, data and objective are names; `unnamed` lists those that no name makes again. An open data
    set is one of them. A run can be opened without its data, but not go on.
    """

    kind = "few-shot"
    result = Path(RESULT)
    packages = ("metarl-kit", "torch", "numpy", "pillow", "matplotlib")
    config: FewShotConfig

    def __init__(
        self,
        config: FewShotConfig,
        spec: TaskSpec,
        data: DataSet | None = None,
        *,
        lacks_data: bool = False,
        recorded: str | None = None,
        encoder: FileEncoder | None = None,
    ):
        for name in ("episodes", "checkpoint_every", "validation_episodes"):
            check_count(name, getattr(config, name))
        for name in ("threads", "validate_every", "patience", "row_every"):
            if getattr(config, name) is not None:
                check_count(name, getattr(config, name))
        if config.patience is not None and config.validate_every is None:
            raise UsageError("patience counts validations: give validate_every too")
        if config.validate_every is not None and config.validate_every % (config.row_every or 1):
            raise UsageError(f"row_every {config.row_every} must divide validate_every {config.validate_every}")
        for name in ("test_shots", "test_queries"):
            for count in getattr(config, name):
                check_count(name, count)
        check_seed(config.seed)
        self.spec = spec
        self.recorded = recorded
        """The fingerprint of the data that the run was made with; None for a new run, or if there is none."""
        self.encoder = encoder if data is None else open_encoder(data.encoder())
        """How files become inputs; None if the data are no files."""
        self.device = resolve_device(config.device)
        self.learner_class = learner_class(config.learner)
        self.objective_class = objective_class(config.objective)
        self._opened, self._source, self._lacks_data = data, config.data, lacks_data
        data_options = self._data_options(config)
        named = {part: _name_of(part, getattr(config, part)) for part in _PARTS}
        self.names = {part: name for part, (name, _) in named.items()}
        self.unnamed = [part for part, (_, found) in named.items() if not found or (lacks_data and part == "data")]
        config = dataclasses.replace(config, **self.names)  # type: ignore[arg-type]
        self.options = self._learner_options(config)
        self.config = dataclasses.replace(
            config,
            ways=spec.shape.ways,
            shots=spec.shape.shots,
            queries=spec.shape.queries,
            learner_options=self.options,
            data_options=data_options,
            objective_options=self._objective_options(config),
            row_every=config.row_every or usual_row_every(self.options.iterations, config.validate_every),
            device=str(self.device),
        )
        if data is not None:
            options = cast(ObjectiveConfig, self.config.objective_options)
            self.objective_class.check_data(options, data.facts(), data.group_names())

    @functools.cached_property
    def data(self) -> DataSet:
        """The data set, read on first use; raises `UsageError` if it differs from what the learner was trained on."""
        if self._lacks_data:
            raise UsageError(f"the data set {self.config.data!r} of the run is made by no name: give it, data=...")
        data = open_data(self._source, self.config.data_options) if self._opened is None else self._opened
        if data.spec(self.spec.shape) != self.spec:
            raise UsageError(f"data set {self.config.data!r} is not what the run was made with: its examples differ")
        return data

    @functools.cached_property
    def splits(self) -> DataSet:
        """The data set as the run uses it: with the split "validation", held out of "train", if the run validates."""
        if self.config.validate_every is None:
            return self.data
        return Validated(self.data, self.config.validation_share)

    @property
    def calibration_split(self) -> str:
        """The split that temperatures and prediction sets are fitted on."""
        return "train" if self.config.validate_every is None else "validation"

    @property
    def title(self) -> str:
        return f"{self.config.learner} on {self.config.data}"

    @property
    def folder_name(self) -> str:
        return f"{self.config.learner}-{self.config.data}-seed{self.config.seed}"

    def entries(self) -> dict[str, Any]:
        seen = {"fingerprint": self.data.fingerprint(), "summary": self.data.summary()}
        entries = plain(self.config) | {"spec": plain(self.spec), "data_seen": seen, "encoder": self.data.encoder()}
        return entries | ({"unnamed": self.unnamed} if self.unnamed else {})

    def changes(self, splits: Sequence[str] = SPLITS) -> list[str]:
        if not splits or self.recorded is None:  # opening a run does not read the data
            return []
        return [] if self.data.fingerprint() == self.recorded else [f"other examples of {self.config.data}"]

    @classmethod
    def from_entries(
        cls,
        path: Path,
        entries: Mapping[str, Any],
        device: torch.device | str | None,
        parts: Parts,
    ) -> "FewShotExperiment":
        check_parts(path, parts, _PARTS)
        for name, base in (("learner", Learner), ("objective", Objective), ("data", DataSet)):
            if name != "data":  # without which a run can be opened
                require_part(path, entries, parts, name)
            if name not in entries.get("unnamed", ()):
                check_part_name(path, entries, parts, name, _PARTS[name], base)
        config, file = read_config(FewShotConfig, path, entries), path / "config.yaml"
        if not isinstance(entries.get("spec"), Mapping):
            raise UsageError(f"{file} is damaged: spec is missing")
        spec = build(TaskSpec, entries["spec"], f"{file}, spec")
        given: dict[str, Any] = dict(parts) | ({} if device is None else {"device": str(device)})
        data = parts.get("data")
        if isinstance(data, DataSet):
            given["data_options"] = data.config
        lacks_data = "data" in entries.get("unnamed", ()) and data is None
        opened = data if isinstance(data, DataSet) else None
        seen = entries.get("data_seen")  # runs of earlier versions have none
        recorded = seen.get("fingerprint") if isinstance(seen, Mapping) else None
        encoder = open_encoder(entries.get("encoder"), f"{file}, encoder")
        config = dataclasses.replace(config, **given)
        return cls(config, spec, opened, lacks_data=lacks_data, recorded=recorded, encoder=encoder)

    @classmethod
    def with_bounds(cls, path: Path, entries: Mapping[str, Any], bounds: Mapping[str, int]) -> dict[str, Any]:
        config = read_config(FewShotConfig, path, entries)
        if "steps" in bounds:
            raise UsageError(f"{path} is a few-shot run, which takes no environment steps: give its iterations")
        learner, options = config.learner, entries["learner_options"]
        if learner_class(learner).iterations_matter:
            raise UsageError(f"{path} cannot be extended: how {learner} trains depends on its number of iterations")
        if config.validate_every is not None:
            raise UsageError(f"{path} cannot be extended: it validates at its last step, whichever that is")
        row_every = config.row_every or usual_row_every(options["iterations"])
        return {"learner_options": {**options, **bounds}, "row_every": row_every}

    def make(self) -> Learner | Selection:
        """The untrained learner, with the choice of its best state if the run validates."""
        learner = self.make_learner()
        return learner if self.config.validate_every is None else Selection(learner)

    def make_learner(self) -> Learner:
        objective = self.objective_class(cast(ObjectiveConfig, self.config.objective_options), self.spec)
        return self.learner_class(
            self.options, self.spec, objective=objective, device=self.device, seed=self.config.seed
        )

    def test_shapes(self) -> list[EpisodeShape]:
        """The shapes of all test episodes, the run's own first: every number of shots with every number of queries."""
        shape = self.spec.shape
        return [
            dataclasses.replace(shape, shots=shots, queries=queries)
            for shots in (shape.shots, *self.config.test_shots)
            for queries in (shape.queries, *self.config.test_queries)
        ]

    def command(self) -> str:
        """`metarl fewshot …` with the options of the run that differ from their defaults.

        It omits what does not affect results: the output folder, the device and the checkpoints.
        """
        config, data, names = self.config, self.data, self.names
        words = ["metarl", "fewshot", names["learner"], "--data", names["data"]]
        if config.objective != FewShotConfig.objective:
            words += ["--objective", names["objective"]]
        usual = FewShotConfig(config.learner, config.data, **dataclasses.asdict(data.default_shape()))
        words += changed_flags(config, usual, _FLAGS)
        words += changed_flags(self.options, self.learner_class.default_config(self.spec))
        words += changed_flags(data.config, type(data).config_class())
        words += changed_flags(config.objective_options, self.objective_class.config_class())
        return shlex.join(words)

    def origin(self, training_seconds: float) -> dict[str, Any]:
        """The description of the run in evaluation.json, which precedes the results."""
        config = self.config
        return {
            "learner": config.learner,
            "data": config.data,
            "objective": config.objective,
            "command": self.command(),
            "training_seconds": training_seconds,
            **self.data.facts(),
        }

    def share(self, iteration: int, env_steps: int) -> float:
        return iteration / self.options.iterations

    @contextlib.contextmanager
    def training(self, trained: Trained) -> Iterator[FewShotTraining]:
        yield FewShotTraining(self, cast(Learner | Selection, trained), self.splits, self.test_shapes())

    def run(self, path: Path, trained: Trained, checkpoint: Checkpoint) -> "FewShotRun":
        return FewShotRun(path, self, cast(Learner | Selection, trained), checkpoint)

    def _learner_options(self, config: FewShotConfig) -> LearnerConfig:
        cls, options = self.learner_class, config.learner_options
        if self.spec.kind not in cls.kinds:
            raise UsageError(
                f"{config.learner} learns {' and '.join(cls.kinds)}, and {config.data} is {self.spec.kind}"
            )
        if isinstance(options, LearnerConfig):
            return options
        default = cls.default_config(self.spec)
        return build(type(default), options, f"learner {config.learner!r}", default)

    def _data_options(self, config: FewShotConfig) -> Mapping[str, Any] | DataConfig:
        if isinstance(config.data_options, DataConfig) or isinstance(config.data, DataSet) or self._lacks_data:
            return config.data_options
        return data_config(config.data, config.data_options)

    def _objective_options(self, config: FewShotConfig) -> ObjectiveConfig:
        options = config.objective_options
        if isinstance(options, ObjectiveConfig):
            return options
        cls = self.objective_class.config_class
        return build(cls, {cls.former.get(n, n): v for n, v in options.items()}, f"objective {config.objective!r}")


@dataclass(frozen=True)
class FewShotRun(Run):
    """An open run folder of `metarl fewshot`. Opening does not read the data.

    >>> options = {"iterations": 2}
    >>> config = metarl.fewshot.FewShotConfig("protonet", "biased", learner_options=options, episodes=10)
    >>> run = metarl.load_run(metarl.train(config, progress=False))
    >>> metarl.fewshot.evaluate(run.learner, run.experiment.data, episodes=10)["shots"]
    10
    """

    experiment: FewShotExperiment
    trained: Learner | Selection

    @functools.cached_property
    def learner(self) -> Learner:
        """The learner in the state of the last checkpoint, or in its best state if the run validates."""
        trained = self.trained
        learner = trained.load_best(self.experiment.make_learner()) if isinstance(trained, Selection) else trained
        learner.file_encoder = self.encoder
        calibration = read_calibration(self.path)
        if calibration is not None and calibration.training_steps == learner.updates:
            learner.temperature = calibration.temperature
        return learner

    @property
    def encoder(self) -> FileEncoder | None:
        """How files become inputs; None if the data are no files."""
        return self.experiment.encoder

    @property
    def finished(self) -> bool:
        stopped = isinstance(self.trained, Selection) and self.trained.best.stopped
        return stopped or super().finished


def _name_of(part: str, thing: Any) -> tuple[str, bool]:
    """The name of a part of a few-shot run, and whether that name makes it again."""
    if isinstance(thing, str):
        return thing, True
    named = name_of(_PARTS[part], thing)
    if named is None:
        return (type(thing) if isinstance(thing, DataSet) else thing).__name__, False
    return named, True
