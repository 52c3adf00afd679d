"""The training of a few-shot learner: its steps, its validations, and the test that follows the last step."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.engine import Training
from metarl.experiment.metrics import Row
from metarl.fewshot.data import DataSet
from metarl.fewshot.episodes import EpisodeShape
from metarl.fewshot.evaluation import evaluate
from metarl.fewshot.learner import Learner
from metarl.fewshot.model_card import write_model_card
from metarl.fewshot.pictures import draw_pictures
from metarl.fewshot.result import RESULT, measure, write_result
from metarl.fewshot.validation import Selection, validation_shape
from metarl.randomness import derive_seed

ROWS = 500
"""Rows of metrics in a run, about. Each row is the mean over the steps since the row before."""


def usual_row_every(iterations: int, validate_every: int | None = None) -> int:
    """Training steps that a row of metrics averages. They divide those between validations, after which it may stop."""
    every = -(-iterations // ROWS)
    if validate_every is None:
        return every
    return max(n for n in range(1, min(every, validate_every) + 1) if validate_every % n == 0)


@runtime_checkable
class _Setting(Protocol):
    """What the training needs of a `FewShotExperiment`."""

    config: Any

    @property
    def title(self) -> str: ...

    def share(self, iteration: int, env_steps: int) -> float: ...

    def make_learner(self) -> Learner: ...

    def origin(self, training_seconds: float) -> dict[str, Any]: ...


@contextlib.contextmanager
def _explained(split: str, shape: EpisodeShape, tested: EpisodeShape) -> Iterator[None]:
    """A context in which `UsageError` says which options the sizes of training episodes have, if they are others."""
    try:
        yield
    except UsageError as error:
        if split != "train" or shape == tested:
            raise
        raise UsageError(
            f"{error}: training episodes have {shape.ways} ways, {shape.shots} shots and {shape.queries} queries, "
            f"which --train-ways, --train-shots and --train-queries change"
        ) from None


class FewShotTraining(Training):
    """An iteration is one training step: it draws episodes and fits the learner to them. The test follows the last."""

    unit = "step"
    brief = True

    def __init__(
        self,
        experiment: _Setting,
        trained: Learner | Selection,
        data: DataSet,
        shapes: Sequence[EpisodeShape],
    ):
        learner = trained.learner if isinstance(trained, Selection) else trained
        self.experiment, self.trained, self.learner, self.data, self.shapes = experiment, trained, learner, data, shapes
        self.title = experiment.title
        self.checkpoint_every = experiment.config.checkpoint_every
        self.threads = experiment.config.threads
        self.row_every = experiment.config.row_every or 1
        episodes = [("train", learner.training_shape), *(("test", shape) for shape in shapes)]
        if isinstance(trained, Selection):
            self.validation_shape = validation_shape(data, learner.spec.shape)
            episodes.append(("validation", self.validation_shape))
        for split, shape in episodes:  # raises if the data do not suffice
            with _explained(split, shape, learner.spec.shape):
                learner.objective.check(data.episodes(split, 1, shape, seed=0))

    def iterate(self, iteration: int) -> Mapping[str, int | float]:
        """Takes one step. Its metrics include the milliseconds for drawing the episodes and for the whole step."""
        learner, config, start = self.learner, self.experiment.config, time.perf_counter()
        episode_seed = derive_seed("few-shot episodes", config.seed, iteration)
        episodes = self.data.episodes("train", learner.config.num_tasks, learner.training_shape, seed=episode_seed)
        episodes = episodes.to(learner.device)
        generator = learner.generator("corruption", config.seed, iteration)
        support = learner.objective.corrupt(episodes.support, generator)
        episodes = dataclasses.replace(episodes, support=support)
        drawn = time.perf_counter()
        metrics = learner.fit(episodes, seed=derive_seed("few-shot fit", config.seed, iteration))
        if not math.isfinite(metrics["loss"]):
            raise UsageError(f"training diverged at step {iteration} (loss {metrics['loss']}): lower the step sizes")
        noted = learner.objective.check(episodes)
        times = {"drawing_ms": 1e3 * (drawn - start), "step_ms": 1e3 * (time.perf_counter() - start)}
        return {**metrics, **noted, **times, **self._validate(iteration)}

    def share(self, iteration: int, env_steps: int) -> float:
        if isinstance(self.trained, Selection) and self.trained.best.stopped:
            return 1.0
        return self.experiment.share(iteration, env_steps)

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return self.trained.state()

    def score(self, metrics: Mapping[str, int | float]) -> float | None:
        score = metrics.get(self.learner.metric)
        return score if score is None or self.learner.metric == "accuracy" else -score

    def notes(self) -> list[str]:
        return self.data.summary()

    def describe(self, row: Row) -> tuple[str, str]:
        metric = self.learner.metric
        shown = [f"{metric} {row[metric]:.4f}"] if row.get(metric) is not None else []
        if isinstance(self.trained, Selection) and self.trained.best.score is not None:
            shown.append(f"best validation {self.trained.best.score:.4f}")
        steps = f"step {row['iteration']}/{self.learner.config.iterations}"
        return "  ".join([steps, f"loss {row['loss']:.4f}", *shown, f"{row['step_ms']:.1f} ms/step"]), ""

    def conclude(self, path: Path, rows: list[Row], show: bool) -> None:
        experiment, learner, config = self.experiment, self.learner, self.experiment.config
        selected = {}
        if isinstance(self.trained, Selection):
            learner, best = self.trained.load_best(experiment.make_learner()), self.trained.best
            validation = {"best": best.score, "step": best.step, "stopped_early": best.stopped}
            selected = {"validation": validation | {"episodes": config.validation_episodes}}
        how = {"episodes": config.episodes, "seed": config.seed, "baselines": config.baselines, "show": show}
        found = measure(learner, self.data, self.shapes, **how)
        draw_pictures(learner, self.data, config.seed, self.title, rows, path / "plots")
        result = experiment.origin(rows[-1]["wall_seconds"]) | selected | found
        write_model_card(path, result, self.data)
        write_result(path / RESULT, result)

    def _validate(self, iteration: int) -> Mapping[str, float]:
        """The score on the validation episodes, if they are due after this step or it is the last."""
        trained, config = self.trained, self.experiment.config
        if not isinstance(trained, Selection):
            return {}
        if iteration % config.validate_every and iteration != self.learner.config.iterations:
            return {}
        found = evaluate(
            self.learner,
            self.data,
            episodes=config.validation_episodes,
            shape=self.validation_shape,
            split="validation",
            seed=derive_seed("validation", config.seed),
        )
        score = found[self.learner.metric]
        trained.note(score, iteration, config.patience)
        return {f"validation_{self.learner.metric}": score}
