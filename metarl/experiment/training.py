"""Training from a configuration and resuming a run folder, for agents and few-shot learners."""

import sys
from pathlib import Path
from typing import Unpack

from metarl.errors import UsageError
from metarl.experiment.agent_run import AgentExperiment, AgentTraining
from metarl.experiment.buffers import restore_buffers
from metarl.experiment.checkpoints import Checkpoint
from metarl.experiment.engine import Training, run_training
from metarl.experiment.experiment import Experiment, Parts, RunConfig
from metarl.experiment.metrics import read_metrics
from metarl.experiment.options import check_max_faults, option_differences, plain
from metarl.experiment.run_folder import check_output, create_run_folder, installed_versions, open_run, read_entries
from metarl.experiment.together import begun_before, check_restarts, check_same_configuration, follow
from metarl.importing import check_not_importing
from metarl.parallel import Ranks, join_ranks


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
    ranks = join_ranks()
    output = config.config.output if isinstance(config, Experiment) else config.output
    check_restarts(output)
    begun = begun_before(ranks, output)
    if ranks.is_first and not begun:
        check_output(output)
    experiment = config if isinstance(config, Experiment) else config.resolve()
    experiment.share_among(ranks)
    if ranks.world_size > 1:
        check_same_configuration(ranks, plain(experiment.config) | installed_versions(experiment.packages))
    if begun:
        return go_on(experiment, Path(output or ""), progress)
    with experiment.training(experiment.make()) as training:
        path = Path(ranks.from_first(lambda: str(create_run_folder(experiment))))
        _run(ranks, path, training, None, progress)
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
    ranks = join_ranks()
    opened = open_run(run, parts, ranks=ranks)
    path, experiment, checkpoint = opened.path, opened.experiment, opened.checkpoint
    if opened.finished and experiment.is_concluded(path):
        if ranks.is_first:
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
        if len(set(ranks.gather_values(checkpoint.iteration))) > 1:
            raise UsageError(f"the ranks have found different checkpoints in {path}: they must share its file system")
        _run(ranks, path, training, checkpoint, progress)
    return path


def go_on(experiment: Experiment, path: Path, progress: bool) -> Path:
    """Resumes the run `path`, which `experiment` began before torchrun started all ranks anew.

    Raises `UsageError` if it was begun with another configuration.
    """
    then, now = read_entries(path), experiment.entries()
    compared = [name for name in now if name != "fingerprint"]  # which `resume` compares
    changes = option_differences(*({name: e[name] for name in compared if name in e} for e in (then, now)))
    if changes:
        raise UsageError(f"output folder {path} holds a run of another configuration: {', '.join(changes.values())}")
    parts = Parts()
    if isinstance(experiment, AgentExperiment):  # what no name makes again
        parts["env"] = experiment.distribution if "env" in experiment.unnamed else None
        parts["agent"] = experiment.agent_class if "agent" in experiment.unnamed else None
    return resume(path, progress=progress, **parts)


def _run(ranks: Ranks, path: Path, training: Training, start: Checkpoint | None, progress: bool) -> None:
    """The first rank runs the training and writes; the others follow it."""
    if ranks.is_first:
        run_training(path, training, start, progress)
    else:
        follow(ranks, training)
