"""Checkpoints: the state of an agent or learner and of its training, as safetensors plus JSON.

`checkpoints/iteration-000050.safetensors` holds the tensors, `iteration-000050.json` everything else and the checksums
of both. The JSON file is written last: without it there is no checkpoint. Nothing is ever unpickled.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.files import sha256, write_atomically
from metarl.experiment.formats import FORMAT, check_format

KEPT = 3
_NAME = re.compile(r"iteration-(\d+)\.json")


@dataclass(frozen=True)
class Checkpoint:
    """Everything that training needs to continue exactly.

    >>> from pathlib import Path
    >>> from metarl.experiment.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
    >>> save_checkpoint(Path("run"), Checkpoint(iteration=3, tensors={"weight": torch.zeros(2)}))
    >>> load_checkpoint(Path("run")).iteration
    3
    """

    iteration: int = 0
    """Iterations completed."""
    env_steps: int = 0
    """Environment steps taken in these iterations."""
    wall_seconds: float = 0.0
    """Seconds spent on these iterations."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    window: Mapping[str, Any] = field(default_factory=dict)
    """The metrics of the unfinished row (`Window.state`)."""
    buffers: Mapping[str, Any] = field(default_factory=dict)
    """The rows of the buffer files that belong to the checkpoint (`BufferFiles.record`)."""


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Adds `checkpoint` to the run and removes all but the last few. Does nothing if it exists already."""
    folder = run / "checkpoints"
    stem = f"iteration-{checkpoint.iteration:06d}"
    if (folder / f"{stem}.json").exists():
        return
    tensors = safetensors.torch.save({name: value.cpu().contiguous() for name, value in checkpoint.tensors.items()})
    content = {
        "format": FORMAT,
        "iteration": checkpoint.iteration,
        "env_steps": checkpoint.env_steps,
        "wall_seconds": checkpoint.wall_seconds,
        "values": dict(checkpoint.values),
        "window": dict(checkpoint.window),
        "buffers": dict(checkpoint.buffers),
        "tensors_sha256": sha256(tensors),
    }
    write_atomically(folder / f"{stem}.safetensors", tensors)
    write_atomically(folder / f"{stem}.json", json.dumps(content | {"sha256": _checksum(content)}, indent=2))
    for path in _checkpoints(run)[:-KEPT]:
        path.unlink()
        path.with_suffix(".safetensors").unlink(missing_ok=True)


def load_checkpoint(run: Path) -> Checkpoint:
    """Loads the run's last checkpoint; raises `UsageError` if there is none or it is damaged."""
    paths = _checkpoints(run)
    if not paths:
        raise UsageError(f"{run} is damaged: it has no checkpoint")
    path, before = paths[-1], [p.stem for p in paths[:-1]]
    way_out = f"delete {path.name} to go on from {before[-1]}" if before else "no earlier one is left"
    try:
        content = json.loads(path.read_bytes())
        checksum = content.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"checkpoint {path} is damaged: {way_out}") from None
    check_format(f"checkpoint {path} is", content.get("format"))
    if checksum != _checksum(content):
        raise UsageError(f"checkpoint {path} is damaged (wrong checksum): {way_out}")
    tensor_path = path.with_suffix(".safetensors")
    if not tensor_path.is_file():
        raise UsageError(f"checkpoint {path} is damaged ({tensor_path.name} is missing): {way_out}")
    tensors = tensor_path.read_bytes()
    if sha256(tensors) != content["tensors_sha256"]:
        raise UsageError(f"checkpoint {tensor_path} is damaged (wrong checksum): {way_out}")
    return Checkpoint(
        iteration=content["iteration"],
        env_steps=content["env_steps"],
        wall_seconds=content["wall_seconds"],
        tensors=safetensors.torch.load(tensors),
        values=content["values"],
        window=content["window"],
        buffers=content["buffers"],
    )


def oldest_buffers(run: Path) -> Mapping[str, Any]:
    """The buffer record of the run's oldest checkpoint, which needs the most buffer files."""
    try:
        return json.loads(_checkpoints(run)[0].read_bytes())["buffers"]
    except (ValueError, KeyError, TypeError):
        return {}  # damaged: nothing is known to be out of use


def _checkpoints(run: Path) -> list[Path]:
    """The JSON files of the run's checkpoints, earliest first."""
    found = {path: _NAME.fullmatch(path.name) for path in (run / "checkpoints").glob("*.json")}
    numbers = {path: int(match[1]) for path, match in found.items() if match}
    return sorted(numbers, key=numbers.__getitem__)


def _checksum(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode())
