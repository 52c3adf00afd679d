"""The command line that a few-shot run amounts to, so that a result says how it is had again."""

import dataclasses
import shlex
from collections.abc import Iterable, Iterator

from metarl.fewshot.data import DataSet, data_class
from metarl.fewshot.learners import learner_class
from metarl.fewshot.objectives import objective_class
from metarl.fewshot.run import FewShotConfig, FewShotRun

_OWN = ("ways", "shots", "queries", "episodes", "test_shots", "test_queries", "seed")


def command(run: FewShotRun, data: DataSet) -> str:
    """`metarl fewshot …` with the options of a run that are not their defaults.

    Left out is what changes no figure: the output folder, the device and the checkpoints.
    """
    config, learner = run.config, run.learner
    words = ["metarl", "fewshot", config.learner, "--data", config.data]
    if config.objective != FewShotConfig.objective:
        words += ["--objective", config.objective]
    usual = FewShotConfig(config.learner, config.data, **dataclasses.asdict(data.default_shape()))
    words += _changed(config, usual, _OWN)
    for options, default in (
        (learner.config, learner_class(config.learner).default_config(learner.spec)),
        (data.config, data_class(config.data).config_class()),
        (learner.objective.config, objective_class(config.objective).config_class()),
    ):
        words += _changed(options, default, [f.name for f in dataclasses.fields(default)])
    return shlex.join(words)


def _changed(options: object, default: object, names: Iterable[str]) -> Iterator[str]:
    """The words for those of the named options that `default` has otherwise."""
    for name in names:
        value = getattr(options, name)
        if value == getattr(default, name):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield f"--{flag}"
            yield from (str(part) for part in (value if isinstance(value, tuple) else (value,)))
