"""The training loop of the few-shot learners. Steps are seeded one by one, so a run that goes on goes on exactly."""

import json
import math
import time
from pathlib import Path
from typing import Any

from metarl.errors import UsageError
from metarl.experiment.checkpoints import Checkpoint, save_checkpoint
from metarl.experiment.files import write_atomically
from metarl.experiment.interrupts import Interrupts, say_how_to_go_on
from metarl.experiment.metrics import MetricsLog, Row, read_metrics
from metarl.experiment.progress import Progress
from metarl.experiment.run_folder import check_output
from metarl.fewshot.command import command
from metarl.fewshot.data import DataSet
from metarl.fewshot.evaluation import evaluate
from metarl.fewshot.learner import Learner
from metarl.fewshot.pictures import draw_pictures
from metarl.fewshot.run import FewShotConfig, FewShotRun, create_run_folder, load_run
from metarl.randomness import derive_seed

ROWS = 500
"""Rows of metrics.jsonl that a whole run has at most: each is the mean over the steps since the one before."""


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
    episodes = [("train", learner.training_shape), *(("test", shape) for shape in config.test_shapes(spec))]
    for split, shape in episodes:
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
    total, done = learner.config.iterations, last.iteration
    began = time.perf_counter() - last.wall_seconds
    every = -(-total // ROWS)
    window: list[dict[str, float]] = []
    title, share = f"{config.learner} on {config.data}", done / total
    with (
        Interrupts() as interrupts,
        MetricsLog(run.path, done, every) as log,
        Progress(title, done=share, enabled=show) as bar,
    ):
        try:
            while done < total:
                with interrupts.held():  # a step is never cut in half
                    window.append(_step(learner, data, config.seed, done + 1))
                    done += 1
                    seconds = time.perf_counter() - began
                    if done % every == 0:
                        row = {"iteration": done, **_means(window), "wall_seconds": seconds}
                        window.clear()
                        log.write(row)
                        bar.update(done / total, _text(learner, row))
                    if done % config.checkpoint_every == 0 or done == total:
                        _save(run, done, seconds)
        except KeyboardInterrupt:
            _save(run, done, time.perf_counter() - began)
            say_how_to_go_on(run.path, f"after step {done}, which is saved")
            raise
    with Interrupts():
        try:
            _test(run, data, read_metrics(run.path, total, every), show)
        except KeyboardInterrupt:
            say_how_to_go_on(run.path, "in the test; what was learned is saved")
            raise


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


def _test(run: FewShotRun, data: DataSet, rows: list[Row], show: bool) -> None:
    """Writes evaluation.json and the pictures."""
    config = run.config
    shapes = config.test_shapes(run.learner.spec)
    results: list[dict[str, Any]] = []
    total = config.episodes * len(shapes)
    with Progress("test", enabled=show) as bar:

        def report(done: int) -> None:
            done += len(results) * config.episodes
            bar.update(done / total, f"test episode {done}/{total}")

        for tested in shapes:
            results.append(
                evaluate(run.learner, data, episodes=config.episodes, shape=tested, seed=config.seed, report=report)
            )
    result = {
        "learner": config.learner,
        "data": config.data,
        "objective": config.objective,
        "command": command(run, data),
        "training_seconds": rows[-1]["wall_seconds"],
        **results[0],
    }
    if len(results) > 1:
        result["further"] = results[1:]
    write_atomically(run.path / "evaluation.json", json.dumps(result, indent=2) + "\n")
    draw_pictures(run, data, rows)


def _save(run: FewShotRun, iteration: int, seconds: float) -> None:
    tensors, values = run.learner.state()
    save_checkpoint(run.path, Checkpoint(iteration, 0, seconds, tensors, values))


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _text(learner: Learner, row: Row) -> str:
    score = row.get(learner.metric)
    shown = "" if score is None else f"{learner.metric} {score:.4f}  "
    steps = f"step {row['iteration']}/{learner.config.iterations}"
    return f"{steps}  loss {row['loss']:.4f}  {shown}{row['step_ms']:.1f} ms/step"
