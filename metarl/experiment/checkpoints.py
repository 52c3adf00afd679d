"""Checkpoints: the state of an agent or learner and of its training, as safetensors plus JSON.

`checkpoints/iteration-000050.safetensors` holds the tensors, `iteration-000050.json` everything else: the format, the
configuration, the versions of packages and the checksums of both. The JSON file is written last: without it there is no
checkpoint. The last `KEPT` and the one with the best score are kept. Nothing is ever unpickled.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from metarl.errors import UsageError
from metarl.experiment.files import remove_temporaries, sha256, write_atomically
from metarl.experiment.formats import FORMAT, check_format
from metarl.parsing import in_a_line, is_count, is_number, parse_json

KEPT = 3
FOLDER = "checkpoints"
LAST, BEST = "last", "best"
"""The two checkpoints that have names."""
_NAME = re.compile(r"iteration-(\d{1,18})\.json")


class _Damaged(UsageError):
    """A checkpoint that cannot be read; an earlier one may be."""


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
    scored: tuple[float, int] = (0.0, 0)
    """Sum and number of the scores of the iterations since the last checkpoint that has a `score`."""
    score: float | None = None
    """The mean score of the iterations since the one before, by which the best is chosen; None between two of them."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The entries of config.yaml; empty in checkpoints of earlier versions."""
    versions: Mapping[str, Any] = field(default_factory=dict)
    """The versions of packages that made it; empty in checkpoints of earlier versions."""


_PLAIN = ("iteration", "env_steps", "wall_seconds", "values", "window", "buffers", "scored", "score", "config")
"""The fields of a checkpoint in its JSON file, beside `versions`."""


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Adds `checkpoint` to the run and removes all but the last few and the best. Does nothing if it exists already."""
    folder = run / FOLDER
    stem = f"iteration-{checkpoint.iteration:06d}"
    if (folder / f"{stem}.json").exists():
        return
    tensors = safetensors.torch.save({name: value.cpu().contiguous() for name, value in checkpoint.tensors.items()})
    content: dict[str, Any] = {"format": FORMAT, "versions": dict(checkpoint.versions)}
    content |= {name: getattr(checkpoint, name) for name in _PLAIN} | {"tensors_sha256": sha256(tensors)}
    write_atomically(folder / f"{stem}.safetensors", tensors)
    write_atomically(folder / f"{stem}.json", json.dumps(content | {"sha256": _checksum(content)}, indent=2))
    _prune(folder)


def load_checkpoint(run: Path, which: str | int = LAST) -> Checkpoint:
    """Loads a checkpoint of the run: the last, the best or that of an iteration.

    A damaged one is passed over, with a line on stderr, for the one before. Raises `UsageError` if none is left, if the
    iteration has none, or if it is of another version's format.
    """
    paths = _checkpoints(run / FOLDER)
    if not paths:
        raise UsageError(f"{run} is damaged: it has no checkpoint")
    if which == BEST:
        best = _best(paths)
        paths = paths if best is None else [path for path in paths if path != best] + [best]
    elif which != LAST:
        paths = [path for path in paths if _number(path) == which]
        if not paths:
            known = ", ".join(str(_number(path)) for path in _checkpoints(run / FOLDER))
            raise UsageError(f"{run} has no checkpoint {which!r}: choose {LAST}, {BEST} or an iteration of {known}")
    complaints = []
    for path in reversed(paths):
        try:
            checkpoint = _read(path)
        except _Damaged as error:
            complaints.append(str(error))
            continue
        for complaint in complaints:
            print(f"metarl: {complaint}: taking that of iteration {checkpoint.iteration} instead", file=sys.stderr)
        return checkpoint
    raise UsageError(f"{complaints[0]}, and no earlier one is left")


def begin_from(run: Path, iteration: int) -> None:
    """Makes the checkpoint of `iteration` the last, before training goes on from it.

    Later ones, which are damaged, would stand in the way of new ones: they are renamed to `*.damaged`. What a killed
    process was writing is deleted.
    """
    folder = run / FOLDER
    remove_temporaries(folder)
    for path in _checkpoints(folder):
        if _number(path) > iteration:
            for part in (path, path.with_suffix(".safetensors")):
                if part.exists():
                    part.replace(part.with_name(f"{part.name}.damaged"))


def oldest_buffers(run: Path) -> Mapping[str, Any]:
    """The buffer record of the oldest checkpoint that training may go on from, which needs the most buffer files."""
    try:
        return _read_json(_checkpoints(run / FOLDER)[-KEPT:][0])["buffers"]
    except _Damaged:
        return {}  # nothing is known to be out of use


def _checkpoints(folder: Path) -> list[Path]:
    """The JSON files of the checkpoints in `folder`, earliest first."""
    return sorted((path for path in folder.glob("*.json") if _NAME.fullmatch(path.name)), key=_number)


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _best(paths: list[Path]) -> Path | None:
    """The one with the highest score, the latest of several; None if none has one."""
    scores: dict[Path, float] = {}
    for path in paths:
        try:
            score = _read_json(path).get("score")
        except _Damaged:
            continue
        if score is not None and is_number(score):
            scores[path] = float(score)
    return max(reversed(scores), key=scores.__getitem__) if scores else None


def _prune(folder: Path) -> None:
    """Removes all but the last few checkpoints and the best, and tensors that no JSON file goes with."""
    paths = _checkpoints(folder)
    kept = {*paths[-KEPT:], _best(paths)}
    for path in paths:
        if path not in kept:
            path.unlink()
    stems = {path.stem for path in paths if path in kept}
    for path in folder.glob("iteration-*.safetensors"):
        if path.stem not in stems:
            path.unlink()


def _read(path: Path) -> Checkpoint:
    """Reads a checkpoint; raises `_Damaged` if a part of it is missing, altered or not what it should be."""
    content, tensor_path = _read_json(path), path.with_suffix(".safetensors")
    wrong = next((name for name, fits in _FORM.items() if name in content and not fits(content[name])), None)
    wrong = wrong or next((name for name in _REQUIRED if name not in content), None)
    if wrong is not None or content["iteration"] != _number(path):
        raise _Damaged(f"checkpoint {path} is damaged ({wrong or 'iteration'} is not what it should be)")
    try:
        data = tensor_path.read_bytes()
    except OSError as error:
        raise _Damaged(f"checkpoint {path} is damaged ({tensor_path.name}: {error.strerror})") from None
    if sha256(data) != content["tensors_sha256"]:
        raise _Damaged(f"checkpoint {tensor_path} is damaged (wrong checksum)")
    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # safetensors' own, and KeyError for a dtype that torch has not
        raise _Damaged(f"checkpoint {tensor_path} is damaged ({in_a_line(error)})") from None
    found: dict[str, Any] = {name: content[name] for name in (*_PLAIN, "versions") if name in content}
    for name in ("wall_seconds", "score"):  # JSON makes whole numbers of some
        if found.get(name) is not None:
            found[name] = float(found[name])
    total, count = found.pop("scored", (0.0, 0))
    return Checkpoint(tensors=tensors, scored=(float(total), count), **found)


def _read_json(path: Path) -> dict[str, Any]:
    """Reads the JSON file; raises `_Damaged`, and `UsageError` for another format than this version's."""
    try:
        content = parse_json(path.read_bytes(), f"checkpoint {path}")
    except OSError as error:
        raise _Damaged(f"checkpoint {path} cannot be read ({error.strerror})") from None
    except UsageError as error:
        raise _Damaged(str(error)) from None
    if not isinstance(content, dict) or "sha256" not in content:
        raise _Damaged(f"checkpoint {path} is damaged (it has no checksum)")
    if content.pop("sha256") != _checksum(content):
        raise _Damaged(f"checkpoint {path} is damaged (wrong checksum)")
    check_format(f"checkpoint {path} is", content.get("format"))
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode())


def _is_window(value: Any) -> bool:
    """Whether `value` is a `Window.state`, which an empty mapping is as well."""
    if not isinstance(value, dict):
        return False
    sums, counts = value.get("sums", {}), value.get("counts", {})
    return (
        isinstance(sums, dict)
        and isinstance(counts, dict)
        and sums.keys() == counts.keys()
        and all(total is None or is_number(total) for total in sums.values())
        and all(is_count(count) and count > 0 for count in counts.values())
        and is_number(value.get("seconds", 0.0))
    )


def _is_record(value: Any) -> bool:
    """Whether `value` is a `BufferFiles.record`."""
    return isinstance(value, dict) and all(
        isinstance(entry, dict)
        and is_count(entry.get("count"))
        and is_count(entry.get("stored"))
        and entry["stored"] <= entry["count"]
        and isinstance(entry.get("checksums"), dict)
        and all(is_count(crc) for crc in entry["checksums"].values())
        for entry in value.values()
    )


def _is_scored(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and is_number(value[0]) and is_count(value[1])


_FORM: dict[str, Callable[[Any], bool]] = {
    "iteration": is_count,
    "env_steps": is_count,
    "wall_seconds": lambda value: is_number(value) and value >= 0,
    "values": lambda value: isinstance(value, dict),
    "window": _is_window,
    "buffers": _is_record,
    "tensors_sha256": lambda value: isinstance(value, str),
    "scored": _is_scored,
    "score": lambda value: value is None or is_number(value),
    "config": lambda value: isinstance(value, dict),
    "versions": lambda value: isinstance(value, dict),
}
"""What the entries of the JSON file have to be: its checksum is no proof, for anyone can compute it."""
_REQUIRED = ("iteration", "env_steps", "wall_seconds", "values", "window", "buffers", "tensors_sha256")
