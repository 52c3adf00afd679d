"""The training loop. Iterations are seeded one by one, so a run that goes on from a checkpoint goes on exactly."""

import contextlib
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from metarl.experiment.checkpoints import Checkpoint, save_checkpoint
from metarl.experiment.config import TrainConfig
from metarl.experiment.metrics import MetricsLog, read_metrics
from metarl.experiment.plots import plot_training
from metarl.experiment.progress import Progress
from metarl.experiment.run_folder import Run, check_output, create_run_folder, load_run
from metarl.randomness import derive_seed
from metarl.vector_env import TaskVectorEnv


def train(config: TrainConfig, *, progress: bool = True) -> Path:
    """Trains until the first bound of `config` is reached; returns the run folder.

    Everything is checked before the folder is made: `UsageError` leaves nothing behind. Whatever stops the training
    later, Ctrl-C included, leaves a checkpoint of the last complete iteration. `progress` shows how it goes, on stderr.
    """
    check_output(config.output)
    config = config.resolve()
    distribution = config.make_distribution()
    agent = config.make_agent(distribution)
    start = Checkpoint.of(agent)
    with contextlib.closing(config.make_env(distribution)) as env:
        path = create_run_folder(config)
        save_checkpoint(path, start)
        _learn(Run(path, config, distribution, agent, start), env, progress)
    return path


def resume(run: Path | str, *, progress: bool = True) -> Path:
    """Goes on with a run where its last checkpoint was made, as if it had never stopped; returns the run folder.

    A run that has reached its bound is left as it is. Raises `UsageError` for a folder that `load_run` refuses.
    """
    opened = load_run(run)
    if opened.finished:
        print(f"{opened.path} is complete: {opened.checkpoint.iteration} iterations", file=sys.stderr)
    else:
        read_metrics(opened.path, opened.checkpoint.iteration)  # raises where they are damaged
        with contextlib.closing(opened.config.make_env(opened.distribution)) as env:
            _learn(opened, env, progress)
    return opened.path


def _learn(run: Run, env: TaskVectorEnv, show_progress: bool) -> None:
    config, agent, last = run.config, run.agent, run.checkpoint
    began = time.perf_counter() - last.wall_seconds
    done = config.reached(last.iteration, last.env_steps)
    with _sigterm_interrupts():
        try:
            with MetricsLog(run.path, last.iteration) as log, Progress(config, done, enabled=show_progress) as progress:
                while config.reached(last.iteration, last.env_steps) < 1:
                    iteration = last.iteration + 1
                    seeds = [derive_seed(part, config.seed, iteration) for part in ("train tasks", "improve")]
                    env.set_tasks(run.distribution.sample(env.num_tasks, split="train", seed=seeds[0]))
                    metrics = agent.improve(env, seed=seeds[1])
                    seconds = time.perf_counter() - began
                    row: dict[str, Any] = {
                        "iteration": iteration,
                        **metrics,
                        "env_steps": last.env_steps + int(metrics["env_steps"]),
                        "wall_seconds": seconds,
                        "steps_per_second": metrics["env_steps"] / (seconds - last.wall_seconds),
                    }
                    log.write(row)
                    progress.update(row)
                    last = Checkpoint.of(agent, iteration, row["env_steps"], seconds)
                    if iteration % config.checkpoint_every == 0:
                        save_checkpoint(run.path, last)
        except BaseException:
            save_checkpoint(run.path, last)
            command = f"metarl resume {shlex.quote(str(run.path))}"
            print(f"stopped after iteration {last.iteration}, which is saved; go on with: {command}", file=sys.stderr)
            raise
        save_checkpoint(run.path, last)
    title = f"{config.agent} on {config.env}"
    plot_training(read_metrics(run.path, last.iteration), title, run.path / "plots" / "training.png")


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Makes SIGTERM mean Ctrl-C; signal handlers belong to the main thread, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
