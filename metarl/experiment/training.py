"""Training from a configuration and resuming a run folder, for agents and few-shot learners."""

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

import torch

from metarl.errors import UsageError
from metarl.experiment.agent_run import AgentExperiment
from metarl.experiment.agent_training import AgentTraining
from metarl.experiment.buffers import restore_buffers
from metarl.experiment.checkpoints import Checkpoint
from metarl.experiment.config_file import read_entries, write_entries
from metarl.experiment.engine import Training, run_training
from metarl.experiment.experiment import Experiment, Parts, Run, RunConfig
from metarl.experiment.formats import installed_versions
from metarl.experiment.lock import locked
from metarl.experiment.metrics import read_metrics
from metarl.experiment.options import check_max_faults, option_differences, plain
from metarl.experiment.run_folder import check_output, create_run_folder, edits, is_begun, open_run
from metarl.experiment.together import begun_before, check_restarts, check_same_configuration, follow
from metarl.experiment.watch import DiskWatch, check_max_divergent, check_max_hours
from metarl.importing import check_not_importing
from metarl.parallel import Ranks, join_ranks
from metarl.parsing import printable
from metarl.tasks import check_count


def train(config: RunConfig | Experiment, *, progress: bool = True, max_hours: float | None = None) -> Path:
    """Trains until a bound of `config` is reached; returns the run folder.

    `config` is a `TrainConfig`, a `FewShotConfig`, or the experiment from its `resolve`. A few-shot learner is also
    tested at the end. With `max_hours`, the run is saved and left unfinished if another iteration might take longer;
    `resume` goes on with it.

    Everything is checked before the folder is made, so a `UsageError` leaves nothing behind. Any later interruption,
    including Ctrl-C, leaves a checkpoint. `progress` displays the progress on stderr.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> metarl.train(config, progress=False).name
    'random-PointNavigation-v0-seed0'
    """
    check_not_importing("metarl.train")
    check_max_hours(max_hours)
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
        return go_on(experiment, Path(output or ""), progress, max_hours)
    trained = experiment.make()
    with experiment.training(trained) as training:
        path = Path(ranks.from_first(lambda: str(create_run_folder(experiment, trained))))
        with _locked_by_first(ranks, path):
            _run(ranks, path, training, None, progress, max_hours)
    return path


def resume(
    run: Path | str,
    *,
    progress: bool = True,
    iterations: int | None = None,
    steps: int | None = None,
    device: torch.device | str | None = None,
    max_hours: float | None = None,
    max_faults: int | None = None,
    max_divergent: int | None = None,
    **parts: Unpack[Parts],
) -> Path:
    """Continues a run from its last checkpoint, as if it had never stopped; returns the run folder.

    A run may go on with other bounds and elsewhere, and nothing else of it may change. `iterations` or `steps`, counted
    from the beginning, take the place of both of the run's own bounds, also of a complete run: it is then what a run
    with these bounds would have been. `device` moves it. Both are written into config.yaml. `max_faults` and
    `max_divergent` take the place of the run's own bounds this time, for a run that they have stopped; `max_hours` is
    that of `train`. `parts` are those of `load_run`.

    A complete run is left unchanged. Raises `UsageError` for a folder that `load_run` refuses, if another process
    trains it, if config.yaml has been changed in what may not change, and if the family or the data differ from those
    that the run was started with.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> run = metarl.train(config, progress=False)
    >>> metarl.load_run(metarl.resume(run, iterations=2, progress=False)).checkpoint.iteration
    2
    """
    check_not_importing("metarl.resume")
    check_max_hours(max_hours)
    bounds = {name: value for name, value in (("iterations", iterations), ("steps", steps)) if value is not None}
    for name, value in bounds.items():
        check_count(name, value)
    ranks, path = join_ranks(), Path(run)
    read_entries(path)  # raises if this is no run
    with _locked_by_first(ranks, path):
        begun = is_begun(path)
        opened = open_run(path, parts, device=device, bounds=bounds, unbegun=True, ranks=ranks)
        experiment, checkpoint = opened.experiment, opened.checkpoint
        _check_bounds(opened, bounds)
        if opened.finished and experiment.is_concluded(path):
            if ranks.is_first:
                print(f"{path} is complete: {checkpoint.iteration} iterations", file=sys.stderr)
            return path
        _check_unchanged(opened, ranks)
        with experiment.training(opened.trained) as training:
            _set_tolerance(path, training, max_faults, max_divergent)
            # If files are damaged, these two raise before anything is changed.
            read_metrics(path, checkpoint.iteration, training.row_every)
            if begun:
                restore_buffers(path, training.buffers(), checkpoint.buffers)
            if len(set(ranks.gather_values(checkpoint.iteration))) > 1:
                raise UsageError(f"the ranks have found different checkpoints in {path}: they must share its files")
            # All ranks have read the folder by now.
            if (bounds or device is not None) and ranks.is_first:
                _write_changes(opened, bounds)
            _run(ranks, path, training, checkpoint if begun else None, progress, max_hours)
    return path


def go_on(experiment: Experiment, path: Path, progress: bool, max_hours: float | None) -> Path:
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
    return resume(path, progress=progress, max_hours=max_hours, **parts)


def _run(
    ranks: Ranks, path: Path, training: Training, start: Checkpoint | None, progress: bool, max_hours: float | None
) -> None:
    """The first rank runs the training and writes; the others follow it."""
    if ranks.is_first:
        run_training(path, training, start, progress, max_hours)
    else:
        follow(ranks, training)


def _locked_by_first(ranks: Ranks, path: Path) -> contextlib.AbstractContextManager[None]:
    """The lock of a run folder, which the rank that writes holds for all."""
    return locked(path) if ranks.is_first else contextlib.nullcontext()


def _check_bounds(run: Run, bounds: Mapping[str, int]) -> None:
    """Raises `UsageError` for a bound that the run has passed already."""
    done = {"iterations": run.checkpoint.iteration, "steps": run.checkpoint.env_steps}
    for name, bound in bounds.items():
        if bound < done[name]:
            raise UsageError(f"{run.path} has done {done[name]} {name} already: {bound} would be a shorter run")


def _check_unchanged(run: Run, ranks: Ranks) -> None:
    """Raises `UsageError` if the run would go on with something else; says which packages are others by now."""
    changes = run.experiment.changes() + edits(run)
    if changes:
        raise UsageError(f"{run.path} cannot go on with something else than it began with: {', '.join(changes)}")
    then = run.checkpoint.versions
    now = installed_versions(then)
    others = [f"{name} {now[name]} instead of {then[name]}" for name in then if now[name] != then[name]]
    if others and ranks.is_first:
        listed = ", ".join(map(printable, others))
        print(f"metarl: {run.path} may not go on bit for bit as it would have: {listed}", file=sys.stderr)


def _set_tolerance(path: Path, training: Training, max_faults: int | None, max_divergent: int | None) -> None:
    """Replaces what the run tolerates by what is given."""
    check_max_faults(max_faults)
    check_max_divergent(max_divergent)
    if max_faults is None and max_divergent is None:
        return
    if not isinstance(training, AgentTraining):
        raise UsageError(f"{path} is a few-shot run: it has no environments with faults, and stops when it diverges")
    training.max_faults = training.max_faults if max_faults is None else max_faults
    training.max_divergent = training.max_divergent if max_divergent is None else max_divergent


def _write_changes(run: Run, bounds: Mapping[str, int]) -> None:
    """Writes other bounds and another device into config.yaml. Results of the shorter run are deleted."""
    path, experiment = run.path, run.experiment
    entries = read_entries(path)
    entries |= experiment.with_bounds(path, entries, bounds) if bounds else {}
    entries["device"] = experiment.config.device
    if "backend" in entries:
        entries["backend"] = experiment.config.backend
    try:
        (path / experiment.result).unlink(missing_ok=True)
        write_entries(path, entries)
    except OSError as error:
        raise DiskWatch(path).fault(error) from error
