"""A few-shot run: what is trained on what, its folder, and how it is opened again.

config.yaml       every option, resolved, and what the learner knows of its tasks; format and package versions
metrics.jsonl     one object per row of progress
checkpoints/      the last few states of the learner
evaluation.json   the test
plots/            an episode with its predictions, the embedding, the training curve
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from metarl.devices import resolve_device
from metarl.errors import UsageError
from metarl.experiment.checkpoints import FORMAT, Checkpoint, load_checkpoint
from metarl.experiment.options import build
from metarl.experiment.run_folder import check_entries, package_versions, read_entries, write_run_folder
from metarl.fewshot.data import DataConfig, DataSet, open_data
from metarl.fewshot.episodes import EpisodeShape, TaskSpec
from metarl.fewshot.learner import Learner, LearnerConfig
from metarl.fewshot.learners import learner_class
from metarl.fewshot.objectives import objective_class
from metarl.fewshot.objectives.plain import ObjectiveConfig
from metarl.tasks import check_count

_PACKAGES = ("metarl-kit", "torch", "numpy", "pillow", "matplotlib")
_KIND = "few-shot"


@dataclass(frozen=True)
class FewShotConfig:
    """One few-shot run. `resolve` checks it and fills in what was left open."""

    learner: str
    """Name of the learner."""
    data: str
    """Name of the data set."""
    objective: str = "plain"
    """Name of the objective."""
    ways: int | None = None
    """Classes of a test episode (N); what suits the data where not given."""
    shots: int | None = None
    """Support examples of each class (K)."""
    queries: int | None = None
    """Queries of each class (Q)."""
    learner_options: Mapping[str, Any] | LearnerConfig = field(default_factory=dict)
    """Options of the learner, by name or as its config dataclass."""
    data_options: Mapping[str, Any] | DataConfig = field(default_factory=dict)
    """Options of the data set."""
    objective_options: Mapping[str, Any] | ObjectiveConfig = field(default_factory=dict)
    """Options of the objective."""
    episodes: int = 600
    """Test episodes."""
    test_shots: tuple[int, ...] = ()
    """Shots to test with, too."""
    test_queries: tuple[int, ...] = ()
    """Queries of each class to test with, too."""
    device: str = "cpu"
    """Where to compute: cpu, cuda or cuda:N."""
    seed: int = 0
    """All randomness of the run comes from it."""
    checkpoint_every: int = 1000
    """Training steps between checkpoints."""
    output: Path | None = None
    """The run folder; runs/LEARNER-DATA-seedSEED where not given."""

    def resolve(self, data: DataSet, spec: TaskSpec) -> "FewShotConfig":
        """The same run with every option spelled out; raises `UsageError` for what cannot be trained."""
        for name in ("episodes", "checkpoint_every"):
            check_count(name, getattr(self, name))
        for name in ("test_shots", "test_queries"):
            for count in getattr(self, name):
                check_count(name, count)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise UsageError(f"seed must be a whole number of at least 0, got {self.seed!r}")
        return dataclasses.replace(
            self,
            ways=spec.shape.ways,
            shots=spec.shape.shots,
            queries=spec.shape.queries,
            learner_options=self._learner_options(spec),
            data_options=data.config,
            objective_options=self._objective_options(),
            device=str(resolve_device(self.device)),
        )

    def open_data(self) -> DataSet:
        return open_data(self.data, self.data_options)

    def spec(self, data: DataSet) -> TaskSpec:
        """The tasks of the test, sizes that are not given as suits the data."""
        default = data.default_shape()
        given = {name: getattr(self, name) for name in ("ways", "shots", "queries")}
        shape = dataclasses.replace(default, **{name: value for name, value in given.items() if value is not None})
        if data.kind == "regression" and shape.ways != 1:
            raise UsageError(f"{self.data} is regression: it has no classes, leave --ways out")
        return data.spec(shape)

    def test_shapes(self, spec: TaskSpec) -> list[EpisodeShape]:
        """All episodes to test on, those of `spec` first: every number of shots with every number of queries."""
        shape = spec.shape
        return [
            dataclasses.replace(shape, shots=shots, queries=queries)
            for shots in (shape.shots, *self.test_shots)
            for queries in (shape.queries, *self.test_queries)
        ]

    def make_learner(self, spec: TaskSpec) -> Learner:
        """The learner as it is before any training."""
        objective = objective_class(self.objective)(self._objective_options(), spec)
        cls = learner_class(self.learner)
        return cls(
            self._learner_options(spec), spec, objective=objective, device=resolve_device(self.device), seed=self.seed
        )

    def _learner_options(self, spec: TaskSpec) -> LearnerConfig:
        cls = learner_class(self.learner)
        if spec.kind not in cls.kinds:
            raise UsageError(f"{self.learner} learns {' and '.join(cls.kinds)}, and {self.data} is {spec.kind}")
        if isinstance(self.learner_options, LearnerConfig):
            return self.learner_options
        default = cls.default_config(spec)
        return build(type(default), self.learner_options, f"learner {self.learner!r}", default)

    def _objective_options(self) -> ObjectiveConfig:
        if isinstance(self.objective_options, ObjectiveConfig):
            return self.objective_options
        cls = objective_class(self.objective)
        return build(cls.config_class, self.objective_options, f"objective {self.objective!r}")


@dataclass(frozen=True)
class FewShotRun:
    """A few-shot run folder, opened; the data are not read."""

    path: Path
    config: FewShotConfig
    learner: Learner
    """In the state of the last checkpoint."""
    checkpoint: Checkpoint


def create_run_folder(config: FewShotConfig, spec: TaskSpec) -> Path:
    """Makes the folder of a resolved `config` and writes its config.yaml."""
    name = f"{config.learner}-{config.data}-seed{config.seed}"
    return write_run_folder(config.output, name, _config_text(config, spec))


def is_fewshot_run(run: Path | str) -> bool:
    """Whether `run` is a folder of `metarl fewshot`."""
    try:
        entries = yaml.safe_load((Path(run) / "config.yaml").read_bytes())
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return False
    return isinstance(entries, Mapping) and entries.get("kind") == _KIND


def load_run(run: Path | str, *, device: torch.device | str | None = None) -> FewShotRun:
    """Opens a run folder; needs no data. Raises `UsageError` where it is missing, damaged or of another version."""
    path = Path(run)
    config, spec = _read_config(path)
    if device is not None:
        config = dataclasses.replace(config, device=str(device))
    learner = config.make_learner(spec)
    checkpoint = load_checkpoint(path)
    learner.load_state(checkpoint.tensors, checkpoint.values)
    return FewShotRun(path, config, learner, checkpoint)


def load(run: Path | str, *, device: torch.device | str | None = None) -> Learner:
    """The trained learner of a run folder: `load(run).predict(support_x, support_y, query_x)`."""
    return load_run(run, device=device).learner


def _config_text(config: FewShotConfig, spec: TaskSpec) -> str:
    entries = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "output"}
    for name in ("learner_options", "data_options", "objective_options"):
        entries[name] = dataclasses.asdict(entries[name])
    versions = package_versions(_PACKAGES)
    content = {"format": FORMAT, "kind": _KIND, **entries, "spec": dataclasses.asdict(spec), "versions": versions}
    return yaml.safe_dump(json.loads(json.dumps(content, default=str)), sort_keys=False)  # tuples become lists


def _read_config(path: Path) -> tuple[FewShotConfig, TaskSpec]:
    entries, file = read_entries(path), path / "config.yaml"
    if not isinstance(entries, Mapping) or entries.get("kind") != _KIND:
        raise UsageError(f"{path} is no run of metarl fewshot")
    names = {f.name for f in dataclasses.fields(FewShotConfig)} - {"output"}
    check_entries(path, entries, names | {"spec"})
    config = build(FewShotConfig, {name: entries[name] for name in names}, f"{file}")
    return config, build(TaskSpec, entries["spec"], f"{file}, spec")
