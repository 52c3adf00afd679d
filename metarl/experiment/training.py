"""Training from a configuration, and going on with a run folder, for agents and few-shot learners alike."""

import sys
from pathlib import Path

from metarl.experiment.buffers import restore_buffers
from metarl.experiment.engine import run_training
from metarl.experiment.experiment import Experiment, RunConfig
from metarl.experiment.metrics import read_metrics
from metarl.experiment.run_folder import check_output, create_run_folder, load_run


def train(config: RunConfig | Experiment, *, progress: bool = True) -> Path:
    """Trains until a bound of `config` is reached; returns the run folder.

    `config` is a `TrainConfig` or a `FewShotConfig`, or the experiment that its `resolve` has made already. A few-shot
    learner is tested in the end.

    Everything is checked before the folder is made: `UsageError` leaves nothing behind. Whatever stops the training
    later, Ctrl-C included, leaves a checkpoint. `progress` shows how it goes, on stderr.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> metarl.train(config, progress=False).name
    'random-PointNavigation-v0-seed0'
    """
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


def resume(run: Path | str, *, progress: bool = True) -> Path:
    """Goes on with a run where its last checkpoint was made, as if it had never stopped; returns the run folder.

    A run that is complete is left as it is. Raises `UsageError` for a folder that `load_run` refuses.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> run = metarl.train(config, progress=False)
    >>> metarl.resume(run) == run  # complete: nothing is left to do
    True
    """
    opened = load_run(run)
    path, experiment, checkpoint = opened.path, opened.experiment, opened.checkpoint
    if opened.finished and experiment.is_concluded(path):
        print(f"{path} is complete: {checkpoint.iteration} iterations", file=sys.stderr)
        return path
    with experiment.training(opened.trained) as training:
        # Both raise, before anything is changed, if files are damaged.
        read_metrics(path, checkpoint.iteration, training.row_every)
        restore_buffers(path, training.buffers(), checkpoint.buffers)
        run_training(path, training, checkpoint, progress)
    return path
