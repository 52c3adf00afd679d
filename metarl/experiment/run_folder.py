"""The run folder: creating, writing and opening it. A run folder may be moved.

config.yaml       every option, resolved; format, kind of run and package versions
metrics.jsonl     one object per row of metrics
events.out.…      the same for TensorBoard
checkpoints/      the last few states of the agent or learner
buffers/          the agent's replay buffers, if it has any
evaluation.json   the last evaluation
plots/  videos/   plots and videos
"""

import importlib.metadata
import itertools
import platform
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Unpack, cast

import torch
import yaml

from metarl.agent import Agent
from metarl.errors import UsageError
from metarl.experiment.agent_run import AgentRun
from metarl.experiment.checkpoints import load_checkpoint
from metarl.experiment.experiment import Experiment, Parts, Run
from metarl.experiment.files import write_atomically
from metarl.experiment.formats import FORMAT, check_format
from metarl.importing import import_named
from metarl.parallel import Ranks

# By name, because the few-shot package depends on this one and is imported only for its own runs.
_EXPERIMENTS = {
    "agent": "metarl.experiment.agent_run:AgentExperiment",
    "few-shot": "metarl.fewshot.run:FewShotExperiment",
}
"""Kind of run → class of experiment."""


def check_output(output: Path | str | None) -> None:
    """Raises `UsageError` if `output` exists and is not empty: nothing is ever overwritten."""
    if output is None:
        return
    output = Path(output)
    if (output / "config.yaml").exists():
        raise UsageError(f"output folder {output} already holds a run: choose another, or metarl resume {output}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"output folder {output} is not empty: choose another")


def create_run_folder(experiment: Experiment) -> Path:
    """Makes the run folder, `output` or the first free name under runs/, and writes its config.yaml."""
    output = experiment.config.output
    check_output(output)
    text = _config_text(experiment)
    try:
        if output is not None:
            path = Path(output)
            path.mkdir(parents=True, exist_ok=True)
        else:
            name = experiment.folder_name.replace("/", "-").replace(":", "-")
            path = _make_free_folder(Path("runs") / name)
        write_atomically(path / "config.yaml", text)
    except OSError as error:
        raise UsageError(f"cannot create the run folder {error.filename}: {error.strerror}") from None
    return path


def read_entries(path: Path) -> Mapping[str, Any]:
    """Reads config.yaml of a run folder.

    Raises `UsageError` if it is missing or damaged, or if the run has another version's format.
    """
    file = path / "config.yaml"
    if not path.is_dir():
        raise UsageError(f"there is no run folder {path}")
    if not file.is_file():
        raise UsageError(f"{path} is no run folder: it has no config.yaml")
    try:
        entries = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is damaged: {error}") from None
    if not isinstance(entries, Mapping):
        raise UsageError(f"{file} is damaged: it holds no options")
    check_format(f"{path} is a run", entries.get("format"))
    if entries.get("kind") not in _EXPERIMENTS:
        raise UsageError(f"{file} is damaged: kind is {entries.get('kind')!r}, not {' or '.join(_EXPERIMENTS)}")
    return entries


def open_run(
    run: Path | str, parts: Parts, *, device: torch.device | str | None = None, ranks: Ranks | None = None
) -> Run:
    """`load_run` without its warning; `parts`, by name, takes the place of what the run folder names.

    With `ranks`, the training that is to go on is shared out among them.
    """
    path = Path(run)
    entries = read_entries(path)
    cls: type[Experiment] = import_named(_EXPERIMENTS[entries["kind"]])
    parts = cast(Parts, {name: part for name, part in parts.items() if part is not None})
    experiment = cls.from_entries(path, entries, device, parts)
    experiment.share_among(ranks or Ranks())
    trained = experiment.make()
    checkpoint = load_checkpoint(path)
    trained.load_state(checkpoint.tensors, checkpoint.values)
    return experiment.run(path, trained, checkpoint)


def load_run(run: Path | str, *, device: torch.device | str | None = None, **parts: Unpack[Parts]) -> Run:
    """Opens the run folder of an agent or a few-shot learner, in the state of its last checkpoint.

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
    opened = open_run(run, parts, device=device)
    changes = opened.experiment.changes(splits=())
    if changes:
        warnings.warn(f"{opened.path} was trained on something else: {', '.join(changes)}", stacklevel=2)
    return opened


def load_agent(run: Path | str, *, device: torch.device | str | None = None, **parts: Unpack[Parts]) -> Agent:
    """Loads the trained agent of a run folder, on the run's device or on `device`.

    `parts` are those of `load_run`. Raises `UsageError` as `load_run` does, and for a few-shot run.

    >>> config = metarl.TrainConfig(agent="random", env="PointNavigation-v0", iterations=1)
    >>> agent = metarl.load_agent(metarl.train(config, progress=False))
    """
    opened = load_run(run, device=device, **parts)
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


def _config_text(experiment: Experiment) -> str:
    content = {"format": FORMAT, "kind": experiment.kind, **experiment.entries()}
    return yaml.safe_dump(content | {"versions": installed_versions(experiment.packages)}, sort_keys=False)


def installed_versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The versions of Python and of `packages`, None for one that is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
