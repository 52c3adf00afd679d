"""Training from a configuration and resuming a run folder, for agents and few-shot learners."""

import sys
from pathlib import Path
from typing import Unpack

from metarl.errors import UsageError
from metarl.experiment.agent_run import AgentTraining
from metarl.experiment.buffers import restore_buffers
from metarl.experiment.engine import run_training
from metarl.experiment.experiment import Experiment, Parts, RunConfig
from metarl.experiment.metrics import read_metrics
from metarl.experiment.options import check_max_faults
from metarl.experiment.run_folder import check_output, create_run_folder, open_run
from metarl.importing import check_not_importing


def train(config: RunConfig | Experiment, *, progress: bool = True) -> Path:
    """Trains until a bound of `config` is reached; returns the run folder.

    `config` is a `TrainConfig`, a `FewShotConfig`, or the experiment from its `resolve`. A few-shot learner is also
    tested at the end.

    Everything is checked before the folder is made, so a `UsageError` leaves nothing behind. Any later interruption,
    including Ctrl-C, leaves a checkpoint. `progress` displays the progress on stderr.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> metarl.train(config, progress=False).name
    'random-PointNavigation-v0-seed0'
    """
    check_not_importing("metarl.train")
    if isinstance(config, Experiment):
        experiment = config
        check_output(experiment.config.output)
    else:
        check_output(config.output)
        experiment = config.resolve()
    with experiment.training(experiment.make()) as training:
        path = create_run_folder(experiment)
        run_training(path, training, None, progress)
    return path


def resume(run: Path | str, *, progress: bool = True, max_faults: int | None = None, **parts: Unpack[Parts]) -> Path:
    """Continues a run from its last checkpoint, as if it had never stopped; returns the run folder.

    `max_faults` takes the place of the run's own bound, for a run that faults have stopped. `parts` are those of
    `load_run`. A complete run is left unchanged. Raises `UsageError` for a folder that
    `load_run` refuses, and if the family differs from the one that the run was started with.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> run = metarl.train(config, progress=False)
    >>> metarl.resume(run) == run  # complete: nothing is left to do
    True
    """
    check_not_importing("metarl.resume")
    opened = open_run(run, parts)
    path, experiment, checkpoint = opened.path, opened.experiment, opened.checkpoint
    if opened.finished and experiment.is_concluded(path):
        print(f"{path} is complete: {checkpoint.iteration} iterations", file=sys.stderr)
        return path
    changes = experiment.changes()
    if changes:
        raise UsageError(f"{path} cannot go on with something else than it began with: {', '.join(changes)}")
    check_max_faults(max_faults)
    with experiment.training(opened.trained) as training:
        if max_faults is not None:
            if not isinstance(training, AgentTraining):
                raise UsageError(f"{path} is a few-shot run: it has no environments with faults")
            training.max_faults = max_faults
        # If files are damaged, these two raise before anything is changed.
        read_metrics(path, checkpoint.iteration, training.row_every)
        restore_buffers(path, training.buffers(), checkpoint.buffers)
        run_training(path, training, checkpoint, progress)
    return path
