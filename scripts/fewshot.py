"""`metarl fewshot`: the available options depend on the learner, the data set and the objective."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from metarl.errors import UsageError
from metarl.experiment.run_folder import check_output
from metarl.fewshot import FewShotConfig, train
from metarl.fewshot.data import DataConfig, DataSet, data_class, open_data
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners import learner_class
from metarl.fewshot.objectives import objective_class
from metarl.fewshot.objectives.plain import ObjectiveConfig
from metarl.fewshot.result import RESULT
from metarl.registry import list_data, list_learners, list_objectives
from metarl.scripts import predict
from metarl.scripts.arguments import exit_code, parse, peek
from metarl.scripts.figures import baseline_lines, mean_and_interval

LearnerOptions = TypeVar("LearnerOptions", bound=LearnerConfig)
DataOptions = TypeVar("DataOptions", bound=DataConfig)
ObjectiveOptions = TypeVar("ObjectiveOptions", bound=ObjectiveConfig)


@dataclass(kw_only=True)
class Arguments(Generic[LearnerOptions, DataOptions, ObjectiveOptions]):
    """Trains a few-shot learner, tests it on unseen classes, and draws plots. Prints the run folder."""

    data: Annotated[str, tyro.conf.arg(metavar="NAME")]
    """Data set: a name from the list, or MODULE:NAME."""
    objective: Annotated[str, tyro.conf.arg(metavar="NAME")] = str(FewShotConfig.objective)
    """Objective of training besides accuracy: a name from the list, or MODULE:NAME."""
    ways: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Classes of a test episode; the data set's default if not given (5 for most)."""
    shots: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Support examples of each class; the data set's default if not given (1 for most)."""
    queries: Annotated[int | None, tyro.conf.arg(metavar="Q")] = None
    """Queries of each class; the data set's default if not given (15 for most)."""
    episodes: int = FewShotConfig.episodes
    """Test episodes."""
    test_shots: Annotated[tuple[int, ...], tyro.conf.arg(metavar="K ...")] = ()
    """Further numbers of shots to test with."""
    test_queries: Annotated[tuple[int, ...], tyro.conf.arg(metavar="Q ...")] = ()
    """Further numbers of queries of each class to test with."""
    baselines: bool = FewShotConfig.baselines
    """Test simple models of scikit-learn on the same episodes: tables, embeddings and texts."""
    device: str = FewShotConfig.device
    """Device to compute on: cpu, cuda or cuda:N."""
    seed: int = FewShotConfig.seed
    """Seed of all randomness of the run."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Threads that torch computes with; one, and more where they pay, if not given."""
    validate_every: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Training steps between validations, on classes or rows held out of the training set (never the test's). The best
    state is tested; none if not given."""
    validation_share: float = FewShotConfig.validation_share
    """Share of the training set that is held out for validation."""
    validation_episodes: int = FewShotConfig.validation_episodes
    """Episodes of a validation."""
    patience: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Stop after so many validations without a better one; never if not given."""
    max_hours: Annotated[float | None, tyro.conf.arg(metavar="H")] = None
    """Stop and save before this many hours are over; metarl resume goes on."""
    checkpoint_every: int = FewShotConfig.checkpoint_every
    """Training steps between checkpoints."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The run folder; runs/LEARNER-DATA-seedSEED if not given."""
    learner_options: Annotated[LearnerOptions, tyro.conf.arg(name="")]
    data_options: Annotated[DataOptions, tyro.conf.arg(name="")]
    objective_options: Annotated[ObjectiveOptions, tyro.conf.arg(name="")]


@dataclass
class Named:
    """The part of `Arguments` that must be known before the rest can be parsed."""

    data: str | None = None
    objective: str = str(FewShotConfig.objective)
    ways: int | None = None
    shots: int | None = None
    queries: int | None = None
    output: Path | None = None


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["predict"]:
        predict.main(arguments[1:])
        return 0
    learner, options = _split_learner(arguments)
    named = peek(Named, options)
    data_config = DataConfig if named.data is None else data_class(named.data).config_class
    classes = (
        LearnerConfig if learner is None else learner_class(learner).config_class,
        data_config,
        objective_class(named.objective).config_class,
    )
    _check_distinct(classes)
    generic: Any = Arguments  # a type checker knows no type whose arguments are found while it runs
    form = generic[classes]
    prog = f"metarl fewshot {learner or 'LEARNER'}"
    wants_help = bool({"-h", "--help"} & set(options))
    if not wants_help:
        parse(form, options, prog)  # finds mistakes before data are read
        check_output(named.output)
    data, default = None, None
    with contextlib.suppress(*([UsageError] if wants_help else [])):
        if learner is not None and named.data is not None:
            data = open_data(named.data, peek(data_config, options))
            default = _defaults(learner, named, data)
    parsed = parse(form, options, prog, default)
    entries = {f.name: getattr(parsed, f.name) for f in dataclasses.fields(parsed) if f.name != "max_hours"}
    path = train(FewShotConfig(learner=str(learner), **entries).resolve(data), max_hours=parsed.max_hours)
    if not (code := exit_code(path)):
        _print_result(path)
    print(path)
    return code


def _check_distinct(classes: Sequence[type]) -> None:
    """Raises `UsageError` if two of learner, data set and objective have an option of one name."""
    owners: dict[str, type] = {}
    for cls in (*classes, Arguments):
        for field in dataclasses.fields(cls):
            other = owners.setdefault(field.name, cls)
            if other is not cls:
                raise UsageError(f"{other.__name__} and {cls.__name__} both have the option {field.name}: rename one")


def _defaults(learner: str, named: Named, data: DataSet) -> Arguments:
    """The defaults of all arguments. Those of a learner depend on the data and on the shape of the episodes."""
    known = {name: getattr(named, name) for name in ("data", "objective", "ways", "shots", "queries")}
    spec = FewShotConfig(learner=learner, **known).spec(data)
    cls = learner_class(learner)
    return Arguments(
        data=str(named.data),
        objective=named.objective,
        learner_options=cls.default_config(spec) if spec.kind in cls.kinds else cls.config_class(),
        data_options=type(data).config_class(),  # not those given: the default of a switch decides how it is written
        objective_options=objective_class(named.objective).config_class(),
    )


def _print_result(path: Path) -> None:
    """Prints the test results to stderr, because stdout is for the run folder only."""
    result = json.loads((path / RESULT).read_text())
    metric = "accuracy" if "accuracy" in result else "mse"
    size = f"{result['ways']}-way {result['shots']}-shot" if metric == "accuracy" else f"{result['shots']}-shot"
    lines = [f"{metric} {mean_and_interval(result[metric], result['ci95'])}"]
    lines += [
        f"{name} {mean_and_interval(row['mean'], row['ci95'])}" for name, row in result.get("metrics", {}).items()
    ]
    what = f"{size}, {result['episodes']} test episodes, normalisation {result['normalisation']}"
    print(f"{result['learner']} on {result['data']}, {what}: {', '.join(lines)}", file=sys.stderr)
    print(f"95 % interval: {result['interval']}", file=sys.stderr)
    for line in baseline_lines(result):
        print(line, file=sys.stderr)


def _split_learner(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The learner and the other arguments. A known learner may stand anywhere, another one first; None with --help."""
    rest, known = list(arguments), list_learners()
    learner = rest[0] if rest and not rest[0].startswith("-") else next((a for a in rest if a in known), None)
    if learner is not None:
        learner_class(learner)  # raises for an unknown one
        rest.remove(learner)
    elif {"-h", "--help"} & set(rest):
        print(f"LEARNER is one of {', '.join(known)}, or MODULE:NAME.")
        print("metarl fewshot predict RUN --support FILE --query FILE predicts the labels of one's own files.")
        print(f"Data sets are {', '.join(list_data())}; objectives are {', '.join(list_objectives())}.")
    else:
        raise UsageError(f"name the learner first, metarl fewshot LEARNER ...: there are {', '.join(known)}")
    return learner, rest
