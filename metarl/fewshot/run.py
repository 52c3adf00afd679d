"""Runs that train and test a few-shot learner on a data set: configuration, experiment and training.

The folder is described in `metarl.experiment.run_folder`. Its config.yaml also holds the learner's `TaskSpec`, so that
a run can be opened without the data.
"""

import contextlib
import dataclasses
import functools
import math
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from metarl.devices import resolve_device
from metarl.errors import UsageError
from metarl.experiment.checkpoints import Checkpoint
from metarl.experiment.engine import Training
from metarl.experiment.experiment import Experiment, Parts, Run, Trained, check_part_name, check_parts, require_part
from metarl.experiment.metrics import Row
from metarl.experiment.options import LATER, build, check_seed, plain, read_config
from metarl.fewshot.command_line import changed_flags
from metarl.fewshot.data import DataConfig, DataSet, data_config, open_data
from metarl.fewshot.episodes import EpisodeShape, TaskSpec
from metarl.fewshot.learner import Learner, LearnerConfig
from metarl.fewshot.learners import learner_class
from metarl.fewshot.objectives import objective_class
from metarl.fewshot.objectives.plain import Objective, ObjectiveConfig
from metarl.fewshot.pictures import draw_pictures
from metarl.fewshot.result import RESULT, measure, write_result
from metarl.randomness import derive_seed
from metarl.registry import name_of
from metarl.tasks import SPLITS, check_count

ROWS = 500
"""Most rows of metrics in a run. Each row is the mean over the steps since the row before."""
_FLAGS = ("ways", "shots", "queries", "episodes", "test_shots", "test_queries", "seed")
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
    device: str = "cpu"
    """Device to compute on: cpu, cuda or cuda:N."""
    seed: int = 0
    """Seed of all randomness of the run."""
    checkpoint_every: int = 1000
    """Training steps between checkpoints."""
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
    ):
        for name in ("episodes", "checkpoint_every", *(() if config.row_every is None else ("row_every",))):
            check_count(name, getattr(config, name))
        for name in ("test_shots", "test_queries"):
            for count in getattr(config, name):
                check_count(name, count)
        check_seed(config.seed)
        if config.threads is not None:
            check_count("threads", config.threads)
        self.spec = spec
        self.recorded = recorded
        """The fingerprint of the data that the run was made with; None for a new run, or if there is none."""
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
            row_every=_row_every(self.options.iterations) if config.row_every is None else config.row_every,
            device=str(self.device),
        )

    @functools.cached_property
    def data(self) -> DataSet:
        """The data set, read on first use; raises `UsageError` if it differs from what the learner was trained on."""
        if self._lacks_data:
            raise UsageError(f"the data set {self.config.data!r} of the run is made by no name: give it, data=...")
        data = open_data(self._source, self.config.data_options) if self._opened is None else self._opened
        if data.spec(self.spec.shape) != self.spec:
            raise UsageError(f"data set {self.config.data!r} is not what the run was made with: its examples differ")
        return data

    @property
    def title(self) -> str:
        return f"{self.config.learner} on {self.config.data}"

    @property
    def folder_name(self) -> str:
        return f"{self.config.learner}-{self.config.data}-seed{self.config.seed}"

    def entries(self) -> dict[str, Any]:
        seen = {"fingerprint": self.data.fingerprint(), "summary": self.data.summary()}
        entries = plain(self.config) | {"spec": plain(self.spec), "data_seen": seen}
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
        return cls(dataclasses.replace(config, **given), spec, opened, lacks_data=lacks_data, recorded=recorded)

    @classmethod
    def with_bounds(cls, path: Path, entries: Mapping[str, Any], bounds: Mapping[str, int]) -> dict[str, Any]:
        config = read_config(FewShotConfig, path, entries)
        if "steps" in bounds:
            raise UsageError(f"{path} is a few-shot run, which takes no environment steps: give its iterations")
        learner, options = config.learner, entries["learner_options"]
        if learner_class(learner).iterations_matter:
            raise UsageError(f"{path} cannot be extended: how {learner} trains depends on its number of iterations")
        row_every = config.row_every or _row_every(options["iterations"])
        return {"learner_options": {**options, **bounds}, "row_every": row_every}

    def make(self) -> Learner:
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
    def training(self, trained: Trained) -> Iterator["FewShotTraining"]:
        yield FewShotTraining(self, cast(Learner, trained))

    def run(self, path: Path, trained: Trained, checkpoint: Checkpoint) -> "FewShotRun":
        return FewShotRun(path, self, cast(Learner, trained), checkpoint)

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
        return build(self.objective_class.config_class, options, f"objective {config.objective!r}")


class FewShotTraining(Training):
    """An iteration is one training step: it draws episodes and fits the learner to them. The test follows the last."""

    unit = "step"
    brief = True

    def __init__(self, experiment: FewShotExperiment, learner: Learner):
        self.experiment, self.learner, self.data = experiment, learner, experiment.data
        self.title = experiment.title
        self.checkpoint_every = experiment.config.checkpoint_every
        self.threads = experiment.config.threads
        self.row_every = experiment.config.row_every or 1
        episodes = [("train", learner.training_shape), *(("test", shape) for shape in experiment.test_shapes())]
        for split, shape in episodes:
            learner.objective.check(self.data.episodes(split, 1, shape, seed=0))  # raises if the data do not suffice

    def iterate(self, iteration: int) -> Mapping[str, int | float]:
        """Takes one step. Its metrics include the milliseconds for drawing the episodes and for the whole step."""
        learner, seed, start = self.learner, self.experiment.config.seed, time.perf_counter()
        episode_seed = derive_seed("few-shot episodes", seed, iteration)
        episodes = self.data.episodes("train", learner.config.num_tasks, learner.training_shape, seed=episode_seed)
        episodes = episodes.to(learner.device)
        drawn = time.perf_counter()
        metrics = learner.fit(episodes, seed=derive_seed("few-shot fit", seed, iteration))
        if not math.isfinite(metrics["loss"]):
            raise UsageError(f"training diverged at step {iteration} (loss {metrics['loss']}): lower the step sizes")
        noted = learner.objective.check(episodes)
        return {**metrics, **noted, "drawing_ms": 1e3 * (drawn - start), "step_ms": 1e3 * (time.perf_counter() - start)}

    def share(self, iteration: int, env_steps: int) -> float:
        return self.experiment.share(iteration, env_steps)

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return self.learner.state()

    def score(self, metrics: Mapping[str, int | float]) -> float | None:
        score = metrics.get(self.learner.metric)
        return score if score is None or self.learner.metric == "accuracy" else -score

    def notes(self) -> list[str]:
        return self.data.summary()

    def describe(self, row: Row) -> tuple[str, str]:
        score = row.get(self.learner.metric)
        shown = "" if score is None else f"{self.learner.metric} {score:.4f}  "
        steps = f"step {row['iteration']}/{self.learner.config.iterations}"
        return f"{steps}  loss {row['loss']:.4f}  {shown}{row['step_ms']:.1f} ms/step", ""

    def conclude(self, path: Path, rows: list[Row], show: bool) -> None:
        experiment, learner, config = self.experiment, self.learner, self.experiment.config
        shapes = experiment.test_shapes()
        found = measure(learner, self.data, shapes, episodes=config.episodes, seed=config.seed, show=show)
        draw_pictures(learner, self.data, config.seed, self.title, rows, path / "plots")
        write_result(path / RESULT, experiment.origin(rows[-1]["wall_seconds"]) | found)


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
    trained: Learner

    @property
    def learner(self) -> Learner:
        """The learner in the state of the last checkpoint."""
        return self.trained


def _row_every(iterations: int) -> int:
    return -(-iterations // ROWS)


def _name_of(part: str, thing: Any) -> tuple[str, bool]:
    """The name of a part of a few-shot run, and whether that name makes it again."""
    if isinstance(thing, str):
        return thing, True
    named = name_of(_PARTS[part], thing)
    if named is None:
        return (type(thing) if isinstance(thing, DataSet) else thing).__name__, False
    return named, True
