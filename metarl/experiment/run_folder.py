"""The run folder: creating, writing and opening it. A run folder may be moved.

config.yaml       every option, resolved; format, kind of run and package versions
metrics.jsonl     one object per row of metrics
events.out.…      the same for TensorBoard
checkpoints/      the last few states of the agent or learner, and the best
buffers/          the agent's replay buffers, if it has any
evaluation.json   the last evaluation
plots/  videos/   plots and videos
"""

import itertools
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack, cast

import torch

from metarl.agent import Agent
from metarl.errors import UsageError
from metarl.experiment.agent_run import AgentRun
from metarl.experiment.checkpoints import FOLDER, LAST, Checkpoint, load_checkpoint
from metarl.experiment.config_file import CONFIG, KINDS, changed_entries, read_entries, write_entries
from metarl.experiment.experiment import Experiment, Parts, Run, Trained
from metarl.experiment.files import is_temporary
from metarl.experiment.formats import FORMAT, installed_versions
from metarl.experiment.lock import locked
from metarl.faults import all_finite
from metarl.importing import import_named
from metarl.parallel import Ranks
from metarl.parsing import in_a_line, printable


def check_output(output: Path | str | None) -> None:
    """Raises `UsageError` if `output` exists and is not empty: nothing is ever overwritten."""
    if output is None:
        return
    output = Path(output)
    if any("\udc80" <= character <= "\udcff" for character in str(output)):  # how Python has bytes that are no text
        raise UsageError(f"output folder {output} is no name in UTF-8, which TensorBoard needs: choose another")
    if (output / "config.yaml").exists():
        raise UsageError(f"output folder {output} already holds a run: choose another, or metarl resume {output}")
    if output.exists() and (not output.is_dir() or not all(map(is_temporary, output.iterdir()))):
        raise UsageError(f"output folder {output} is not empty: choose another")


def create_run_folder(experiment: Experiment, trained: Trained | None = None) -> Path:
    """Makes the run folder, `output` or the first free name under runs/, and writes its config.yaml.

    It has what `trained` says of itself, if that is given.
    """
    output = experiment.config.output
    check_output(output)
    about = {"format": FORMAT, "kind": experiment.kind}
    made_from = experiment.entries() | ({} if trained is None else experiment.entries_of(trained))
    entries = {**about, **made_from, "versions": installed_versions(experiment.packages)}
    try:
        if output is not None:
            path = Path(output)
            path.mkdir(parents=True, exist_ok=True)
        else:
            name = experiment.folder_name.replace("/", "-").replace(":", "-")
            path = _make_free_folder(Path("runs") / name)
        with locked(path):  # another process may have found the folder free, too
            check_output(path)
            write_entries(path, entries)
    except OSError as error:
        raise UsageError(f"cannot create the run folder {error.filename}: {error.strerror}") from None
    return path


def open_run(
    run: Path | str,
    parts: Parts,
    *,
    device: torch.device | str | None = None,
    checkpoint: str | int = LAST,
    bounds: Mapping[str, int] | None = None,
    unbegun: bool = False,
    ranks: Ranks | None = None,
) -> Run:
    """`load_run` without its warning; `parts`, by name, takes the place of what the run folder names.

    `bounds` are `iterations` and `steps` that take the place of the run's own. If `unbegun`, a run that was stopped
    before its first checkpoint is opened as well, as it was made. With `ranks`, the training that is to go on is shared
    out among them.
    """
    path = Path(run)
    entries = read_entries(path)
    check_contents(path)
    cls: type[Experiment] = import_named(KINDS[entries["kind"]])
    if bounds:
        entries |= cls.with_bounds(path, entries, bounds)
    parts = cast(Parts, {name: part for name, part in parts.items() if part is not None})
    experiment = experiment_of(path, entries, device, parts)
    experiment.share_among(ranks or Ranks())
    if unbegun and not is_begun(path):
        trained = _made(path, experiment)
        return experiment.run(path, trained, Checkpoint(0, 0, 0.0, *trained.state()))
    loaded = load_checkpoint(path, checkpoint)
    trained = _made(path, experiment)
    restore_state(path, trained, loaded)
    return experiment.run(path, trained, loaded)


def experiment_of(
    path: Path, entries: Mapping[str, Any], device: torch.device | str | None, parts: Parts
) -> Experiment:
    """The experiment that the entries of config.yaml describe; raises `UsageError` if that is none."""
    cls: type[Experiment] = import_named(KINDS[entries["kind"]])
    try:
        return cls.from_entries(path, entries, device, parts)
    except UsageError as error:  # which may quote what the file says
        raise UsageError(printable(str(error), 1000)) from error
    except Exception as error:  # whatever a family raises for options that it does not check
        text = f"{type(error).__name__}: {in_a_line(error)}"
        raise UsageError(f"{path / CONFIG}: what it describes cannot be made ({text})") from error


def edits(run: Run) -> list[str]:
    """What of config.yaml is not as it was when the checkpoint was saved, in words, and may not change."""
    return changed_entries(run.checkpoint.config, read_entries(run.path)) if run.checkpoint.config else []


def is_begun(path: Path) -> bool:
    """Whether the run has a checkpoint, or had one: rows of metrics come after the first."""
    return any((path / FOLDER).glob("*.json")) or (path / "metrics.jsonl").exists()


def check_contents(path: Path) -> None:
    """Raises `UsageError` if the run folder holds what leads out of it: a link, or a file that is no plain one."""
    inside = path.resolve()
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            found = Path(folder) / name
            if found.is_symlink() and not found.resolve().is_relative_to(inside):
                raise UsageError(f"{found} is a link that leads out of the run folder: put what it names in its place")
            if found.exists() and not (found.is_file() or found.is_dir()):
                raise UsageError(f"{found} is neither a file nor a folder: a run folder has no such thing")


def _made(path: Path, experiment: Experiment) -> Trained:
    """The untrained agent or learner; raises `UsageError` if it is larger than the memory."""
    try:
        return experiment.make()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        raise UsageError(f"{path / CONFIG} describes more than fits into memory: {in_a_line(error)}") from None


def restore_state(path: Path, trained: Trained, checkpoint: Checkpoint) -> None:
    """Loads the checkpoint's state into `trained`; raises `UsageError` if what is then there is not what was loaded."""
    what = f"the checkpoint of iteration {checkpoint.iteration} of {path}"
    if not all(_is_finite(value) for value in checkpoint.tensors.values()):
        raise UsageError(f"{what} is damaged: it has numbers that are not finite, which are never saved")
    try:
        trained.load_state(checkpoint.tensors, checkpoint.values)
        tensors, values = trained.state()
    except UsageError as error:  # which may name what the file names
        raise UsageError(printable(str(error), 1000)) from None
    except Exception as error:  # whatever an agent raises for tensors that are not its own
        raise UsageError(f"{what} is not of this agent: {type(error).__name__}: {in_a_line(error)}") from error
    for name in [*checkpoint.tensors, *(name for name in tensors if name not in checkpoint.tensors)]:
        if not _is_same(checkpoint.tensors.get(name), tensors.get(name)):
            raise UsageError(f"{what} is not of this agent: {printable(name)!r} is missing or another one once loaded")
    if json.loads(json.dumps(dict(values))) != checkpoint.values:
        raise UsageError(f"{what} is not of this agent: its values are others once loaded")


def _is_finite(value: torch.Tensor) -> bool:
    # Complex numbers, and floats of eight bits, which `isfinite` does not know, are of no agent.
    return not value.is_complex() and (not value.is_floating_point() or value.dtype.itemsize > 1) and all_finite(value)


def _is_same(left: torch.Tensor | None, right: torch.Tensor | None) -> bool:
    if left is None or right is None:
        return False
    return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left.cpu(), right.cpu())


def load_run(
    run: Path | str,
    *,
    device: torch.device | str | None = None,
    checkpoint: str | int = LAST,
    **parts: Unpack[Parts],
) -> Run:
    """Opens the run folder of an agent or a few-shot learner, in the state of its last checkpoint or of another.

    `checkpoint` is "last", "best" (of the highest mean return or accuracy in training between two checkpoints) or the
    iteration of one. A damaged one is passed over for the one before, which is said on stderr.

    `device` defaults to the run's device. Replay buffers stay on disk. `parts`, such as `env=family`, stand in
    for what the folder names: an instance, or a class that cannot be imported, is not found again by itself.

    Raises `UsageError` if the folder is missing, damaged or of another version, if what it was trained with cannot be
    made again and is not given, or if the family has other spaces by now. Warns of other changes in the family that can
    be seen without drawing tasks.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> run = metarl.load_run(metarl.train(config, progress=False))
    >>> run.config.seed, run.checkpoint.iteration
    (0, 1)
    """
    opened = open_run(run, parts, device=device, checkpoint=checkpoint)
    changes = opened.experiment.changes(splits=()) + edits(opened)
    if changes:
        warnings.warn(f"{opened.path} was trained on something else: {', '.join(changes)}", stacklevel=2)
    return opened


def load_agent(
    run: Path | str,
    *,
    device: torch.device | str | None = None,
    checkpoint: str | int = LAST,
    **parts: Unpack[Parts],
) -> Agent:
    """Loads the trained agent of a run folder, on the run's device or on `device`.

    `checkpoint` and `parts` are those of `load_run`. Raises `UsageError` as `load_run` does, and for a few-shot run.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> agent = metarl.load_agent(metarl.train(config, progress=False))
    """
    opened = load_run(run, device=device, checkpoint=checkpoint, **parts)
    if not isinstance(opened, AgentRun):
        raise UsageError(f"{opened.path} is a few-shot run: metarl.fewshot.load opens its learner")
    return opened.agent


def _make_free_folder(base: Path) -> Path:
    """Makes `base`, or the first of base-2, base-3, … that does not exist."""
    base.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")
