"""The run folder: where a run is created, written down and opened again, wherever it has been moved since.

config.yaml       every option, resolved; format and package versions
metrics.jsonl     one object per iteration
events.out.…      the same for TensorBoard
checkpoints/      the last few states of the agent
evaluation.json   the last evaluation
plots/  videos/   what they show
"""

import dataclasses
import importlib.metadata
import itertools
import json
import platform
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from metarl.agent import Agent
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.experiment.checkpoints import FORMAT, Checkpoint, load_checkpoint
from metarl.experiment.config import TrainConfig
from metarl.experiment.files import write_atomically
from metarl.experiment.options import build

_PACKAGES = ("metarl-kit", "torch", "numpy", "gymnasium", "mujoco", "mujoco-warp", "metaworld")


@dataclass(frozen=True)
class Run:
    """A run folder, opened."""

    path: Path
    config: TrainConfig
    distribution: TaskDistribution
    agent: Agent
    """In the state of the last checkpoint."""
    checkpoint: Checkpoint

    @property
    def finished(self) -> bool:
        return self.config.reached(self.checkpoint.iteration, self.checkpoint.env_steps) >= 1


def check_output(output: Path | None) -> None:
    """Raises `UsageError` where `output` is taken: nothing is ever overwritten."""
    if output is None:
        return
    if (output / "config.yaml").exists():
        raise UsageError(f"output folder {output} already holds a run: choose another, or metarl resume {output}")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"output folder {output} is not empty: choose another")


def create_run_folder(config: TrainConfig) -> Path:
    """Makes the folder of a resolved `config` and writes its config.yaml."""
    name = f"{config.agent}-{config.env}-seed{config.seed}".replace("/", "-")
    return write_run_folder(config.output, name, _config_text(config))


def write_run_folder(output: Path | None, name: str, text: str) -> Path:
    """Makes the folder `output`, or runs/`name` or the first of its like that is free, with `text` as config.yaml."""
    check_output(output)
    try:
        if output is not None:
            path = output
            path.mkdir(parents=True, exist_ok=True)
        else:
            path = _make_free_folder(Path("runs") / name)
        write_atomically(path / "config.yaml", text)
    except OSError as error:
        raise UsageError(f"cannot create the run folder {error.filename}: {error.strerror}") from None
    return path


def package_versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The versions of Python and of `packages`, None where one is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def read_entries(path: Path) -> Any:
    """What config.yaml of a run folder holds; raises `UsageError` where it is missing or no YAML."""
    file = path / "config.yaml"
    if not path.is_dir():
        raise UsageError(f"there is no run folder {path}")
    if not file.is_file():
        raise UsageError(f"{path} is no run folder: it has no config.yaml")
    try:
        return yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is damaged: {error}") from None


def check_entries(path: Path, entries: Mapping[str, Any], names: Set[str]) -> None:
    """Raises `UsageError` where `entries` are of another format or lack one of `names`."""
    if entries.get("format") != FORMAT:
        raise UsageError(f"{path} is a run of format {entries.get('format')!r}: this metarl reads format {FORMAT}")
    missing = sorted(names - entries.keys())
    if missing:
        raise UsageError(f"{path / 'config.yaml'} is damaged: {missing[0]} is missing")


def load_run(run: Path | str, *, device: torch.device | str | None = None) -> Run:
    """Opens a run folder: its config, its task distribution and its agent, as the last checkpoint has it.

    `device` is the run's by default. Raises `UsageError` for a folder that is missing, damaged or of another version.
    """
    path = Path(run)
    config = _read_config(path)
    if device is not None:
        config = dataclasses.replace(config, device=str(device))
    config = config.resolve()
    distribution = config.make_distribution()
    agent = config.make_agent(distribution)
    checkpoint = load_checkpoint(path)
    agent.load_state(checkpoint.tensors, checkpoint.values)
    return Run(path, config, distribution, agent, checkpoint)


def load_agent(run: Path | str, *, device: torch.device | str | None = None) -> Agent:
    """The trained agent of a run folder, on the run's device or on `device`."""
    return load_run(run, device=device).agent


def _make_free_folder(base: Path) -> Path:
    """`base`, or the first of base-2, base-3, … that is not taken, made now."""
    base.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")


def _config_text(config: TrainConfig) -> str:
    entries = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "output"}
    entries["agent_options"] = dataclasses.asdict(config.agent_options)  # type: ignore[arg-type]
    try:
        plain = json.loads(json.dumps(entries))  # tuples become lists
    except (TypeError, ValueError) as error:
        raise UsageError(f"options must be plain values to be written to config.yaml: {error}") from None
    return yaml.safe_dump({"format": FORMAT, **plain, "versions": package_versions(_PACKAGES)}, sort_keys=False)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _read_config(path: Path) -> TrainConfig:
    entries, file = read_entries(path), path / "config.yaml"
    if not isinstance(entries, Mapping):
        raise UsageError(f"{file} is damaged: it holds no options")
    names = {f.name for f in dataclasses.fields(TrainConfig)} - {"output"}
    check_entries(path, entries, names)
    return build(TrainConfig, {name: entries[name] for name in names}, f"{file}")
