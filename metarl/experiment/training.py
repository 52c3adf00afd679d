"""The training loop. Iterations are seeded one by one, so a run that goes on from a checkpoint goes on exactly."""

import contextlib
import sys
import time
from pathlib import Path

from metarl.experiment.checkpoints import Checkpoint, save_checkpoint
from metarl.experiment.config import TrainConfig
from metarl.experiment.interrupts import Interrupts, say_how_to_go_on
from metarl.experiment.metrics import MetricsLog, Row, read_metrics
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
    title = f"{config.agent} on {config.env}"
    began = time.perf_counter() - last.wall_seconds
    done = config.reached(last.iteration, last.env_steps)
    with Interrupts() as interrupts:
        try:
            with MetricsLog(run.path, last.iteration) as log, Progress(title, done=done, enabled=show_progress) as bar:
                while done < 1:
                    iteration = last.iteration + 1
                    seeds = [derive_seed(part, config.seed, iteration) for part in ("train tasks", "improve")]
                    env.set_tasks(run.distribution.sample(env.num_tasks, split="train", seed=seeds[0]))
                    metrics = agent.improve(env, seed=seeds[1])
                    seconds = time.perf_counter() - began
                    row: Row = {
                        "iteration": iteration,
                        **metrics,
                        "env_steps": last.env_steps + int(metrics["env_steps"]),
                        "wall_seconds": seconds,
                        "steps_per_second": metrics["env_steps"] / (seconds - last.wall_seconds),
                    }
                    with interrupts.held():  # what is in the log is in `last`, too
                        log.write(row)
                        last = Checkpoint.of(agent, iteration, row["env_steps"], seconds)
                    done = min(1.0, config.reached(iteration, row["env_steps"]))
                    bar.update(done, _text(config, row), _details(row))
                    if iteration % config.checkpoint_every == 0:
                        save_checkpoint(run.path, last)
        except BaseException:
            save_checkpoint(run.path, last)
            say_how_to_go_on(run.path, f"after iteration {last.iteration}, which is saved")
            raise
        save_checkpoint(run.path, last)
    plot_training(read_metrics(run.path, last.iteration), title, run.path / "plots" / "training.png")


def _text(config: TrainConfig, row: Row) -> str:
    bound = "" if config.iterations is None else f"/{config.iterations}"
    return (
        f"iteration {row['iteration']}{bound}  env steps {row['env_steps']:,}  return {row['return_mean']:.2f}  "
        f"{row['steps_per_second']:,.0f} steps/s"
    )


def _details(row: Row) -> str:
    shown = {"iteration", "env_steps", "wall_seconds", "steps_per_second", "return_mean"}
    return "  ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in shown)
