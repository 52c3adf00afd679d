"""The training loop of the few-shot learners. Steps are seeded one by one, so a run that goes on goes on exactly."""

import json
import math
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from metarl.errors import UsageError
from metarl.experiment.checkpoints import Checkpoint, save_checkpoint
from metarl.experiment.files import write_atomically
from metarl.experiment.metrics import MetricsLog
from metarl.experiment.run_folder import check_output
from metarl.fewshot.data import DataSet
from metarl.fewshot.evaluation import evaluate
from metarl.fewshot.learner import Learner
from metarl.fewshot.pictures import draw_pictures
from metarl.fewshot.run import FewShotConfig, FewShotRun, create_run_folder, load_run
from metarl.randomness import derive_seed

ROWS = 500
"""Rows of metrics.jsonl that a whole run has at most: each is the mean over the steps since the one before."""
PLAIN_INTERVAL = 5.0
"""Seconds between lines of progress where stderr is no terminal."""


def train(config: FewShotConfig, *, data: DataSet | None = None, progress: bool = True) -> Path:
    """Trains, tests and draws; returns the run folder.

    Everything is checked before the folder is made: `UsageError` leaves nothing behind. Ctrl-C leaves a checkpoint of
    the last step. `data` is what `config` names, where it has been opened already. `progress` shows how it goes, on
    stderr.
    """
    check_output(config.output)
    data = config.open_data() if data is None else data
    spec = config.spec(data)
    config = config.resolve(data, spec)
    learner = config.make_learner(spec)
    for split, shape in (("train", learner.training_shape), ("test", spec.shape)):
        learner.objective.check(data.episodes(split, 1, shape, seed=0))  # raises where the data do not suffice
    path = create_run_folder(config, spec)
    start = Checkpoint(0, 0, 0.0, *learner.state())
    save_checkpoint(path, start)
    _learn(FewShotRun(path, config, learner, start), data, progress)
    return path


def resume(run: Path | str, *, progress: bool = True) -> Path:
    """Goes on with a run where its last checkpoint was made, as if it had never stopped; returns the run folder."""
    opened = load_run(run)
    _learn(opened, opened.config.open_data(), progress)
    return opened.path


def _learn(run: FewShotRun, data: DataSet, show: bool) -> None:
    learner, config, last = run.learner, run.config, run.checkpoint
    total = learner.config.iterations
    began = time.perf_counter() - last.wall_seconds
    window = _Window(max(1, total // ROWS))
    with _open_log(run.path, last.iteration) as log, _progress(run, show) as report, _deferred_signals() as stopping:
        for iteration in range(last.iteration + 1, total + 1):
            window.add(_step(learner, data, config.seed, iteration))
            seconds = time.perf_counter() - began
            if iteration % window.size == 0 or iteration == total:
                row = {"iteration": iteration, **window.means(), "wall_seconds": seconds}
                log.write(row)
                report(row)
            if iteration % config.checkpoint_every == 0 or iteration == total or stopping():
                _save(run, iteration, seconds)
            if stopping() and iteration < total:
                command = f"metarl resume {shlex.quote(str(run.path))}"
                print(f"stopped after step {iteration}, which is saved; go on with: {command}", file=sys.stderr)
                raise KeyboardInterrupt
    _test(run, data)


@contextmanager
def _deferred_signals() -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C or SIGTERM came, so that a step is never cut in half; in the main thread alone."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, frame: came.append(number)) for number in numbers]
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _step(learner: Learner, data: DataSet, seed: int, iteration: int) -> dict[str, float]:
    """One training step and its metrics, with the seconds of drawing the episodes and of all."""
    start = time.perf_counter()
    episode_seed = derive_seed("few-shot episodes", seed, iteration)
    episodes = data.episodes("train", learner.config.num_tasks, learner.training_shape, seed=episode_seed)
    episodes = episodes.to(learner.device)
    drawn = time.perf_counter()
    metrics = learner.fit(episodes, seed=derive_seed("few-shot fit", seed, iteration))
    if not math.isfinite(metrics["loss"]):
        raise UsageError(f"training diverged at step {iteration} (loss {metrics['loss']}): lower the step sizes")
    noted = learner.objective.check(episodes)
    return {**metrics, **noted, "drawing_ms": 1e3 * (drawn - start), "step_ms": 1e3 * (time.perf_counter() - start)}


def _test(run: FewShotRun, data: DataSet) -> None:
    """Writes evaluation.json and the pictures."""
    config, shape = run.config, run.learner.spec.shape
    result = evaluate(run.learner, data, episodes=config.episodes, seed=config.seed)
    if config.test_shots:
        shapes = [replace(shape, shots=shots) for shots in config.test_shots]
        result["by_shots"] = [
            evaluate(run.learner, data, episodes=config.episodes, shape=s, seed=config.seed) for s in shapes
        ]
    result = {"learner": config.learner, "data": config.data, "objective": config.objective, **result}
    write_atomically(run.path / "evaluation.json", json.dumps(result, indent=2) + "\n")
    draw_pictures(run, data, read_rows(run.path))


def _save(run: FewShotRun, iteration: int, seconds: float) -> None:
    tensors, values = run.learner.state()
    save_checkpoint(run.path, Checkpoint(iteration, 0, seconds, tensors, values))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    file = path / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _open_log(path: Path, iteration: int) -> MetricsLog:
    """The log after the rows of the first `iteration` steps; later ones, of a killed run, are cut off."""
    kept = [row for row in read_rows(path) if row["iteration"] <= iteration]
    log = MetricsLog(path, 0)
    for row in kept:
        log.write(row)
    return log


class _Window:
    """Means of metrics over the last steps."""

    def __init__(self, size: int):
        self.size = size
        self._rows: list[dict[str, float]] = []

    def add(self, row: dict[str, float]) -> None:
        self._rows.append(row)

    def means(self) -> dict[str, float]:
        rows, self._rows = self._rows, []
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


@contextmanager
def _progress(run: FewShotRun, show: bool) -> Iterator[Any]:
    """A function that shows a row: a bar on a terminal, a line every few seconds elsewhere."""
    total, title = run.learner.config.iterations, f"{run.config.learner} on {run.config.data}"
    console = Console(stderr=True)
    if not show:
        yield lambda row: None
        return
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
        with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[text]}"), console=console) as bar:
            task = bar.add_task(title, total=total, completed=run.checkpoint.iteration, text="")
            yield lambda row: bar.update(task, completed=row["iteration"], text=_text(run.learner, row))
        return
    last = -math.inf

    def line(row: dict[str, Any]) -> None:
        nonlocal last
        if time.perf_counter() - last >= PLAIN_INTERVAL or row["iteration"] == total:
            print(f"step {row['iteration']}/{total}  {_text(run.learner, row)}", file=sys.stderr, flush=True)
            last = time.perf_counter()

    yield line


def _text(learner: Learner, row: dict[str, Any]) -> str:
    score = row.get(learner.metric)
    shown = "" if score is None else f"{learner.metric} {score:.4f}  "
    return f"loss {row['loss']:.4f}  {shown}{row['step_ms']:.1f} ms/step"
