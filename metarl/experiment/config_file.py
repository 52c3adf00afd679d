"""config.yaml of a run folder: what the run was made from. What of it may change later is listed here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from metarl.errors import UsageError
from metarl.experiment.files import write_atomically
from metarl.experiment.formats import check_format
from metarl.parsing import parse_yaml, printable

CONFIG = "config.yaml"
# By name, because the few-shot package depends on this one and is imported only for its own runs.
KINDS = {
    "agent": "metarl.experiment.agent_run:AgentExperiment",
    "few-shot": "metarl.fewshot.run:FewShotExperiment",
}
"""Kind of run → class of experiment."""
MAY_CHANGE = frozenset(
    {"iterations", "steps", "device", "backend", "threads", "checkpoint_every", "max_faults", "max_divergent"}
)
"""The entries that a run may go on with other values of: they say how long it trains, where, and how it is watched.

`backend` follows the device. `iterations` of a few-shot run stands among the learner's options."""
_NOT_COMPARED = frozenset({"format", "kind", "versions", "fingerprint", "data_seen"})
"""Entries that describe what was found, which has comparisons of its own."""


def read_entries(path: Path) -> dict[str, Any]:
    """Reads config.yaml of a run folder.

    Raises `UsageError` if it is missing or damaged, or if the run has another version's format.
    """
    file = path / CONFIG
    if not path.is_dir():
        raise UsageError(f"there is no run folder {path}")
    if not file.is_file():
        inside = next((child.parent for child in sorted(path.glob(f"*/{CONFIG}"))), None)
        hint = "" if inside is None else f", but holds one: {inside}"
        raise UsageError(f"{path} is no run folder: it has no {CONFIG}{hint}")
    entries = parse_yaml(_read(file), str(file))
    if not isinstance(entries, dict):
        raise UsageError(f"{file} is damaged: it holds no options")
    check_format(f"{path} is a run", entries.get("format"))
    kind = entries.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UsageError(f"{file} is damaged: kind is {printable(repr(kind))}, not {' or '.join(KINDS)}")
    for name, cls in (("unnamed", list), ("versions", dict), ("fingerprint", dict)):
        if not isinstance(entries.get(name, cls()), cls):
            raise UsageError(f"{file} is damaged: {name} is {printable(repr(entries[name]))}")
    return entries


def write_entries(path: Path, entries: Mapping[str, Any]) -> None:
    """Writes config.yaml of the run folder `path`."""
    write_atomically(path / CONFIG, yaml.safe_dump(dict(entries), sort_keys=False))


def changed_entries(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The entries, in words, that `now` has and `then` had not, of those that may not change.

    >>> from metarl.experiment.config_file import changed_entries
    >>> changed_entries({"seed": 1, "iterations": 10}, {"seed": 2, "iterations": 20})
    ['seed 2 instead of 1']
    """
    old, new = _fixed(then), _fixed(now)
    missing = object()
    return [
        f"{name} {_word(new, name)} instead of {_word(old, name)}"
        for name in [*old, *(name for name in new if name not in old)]
        if old.get(name, missing) != new.get(name, missing)
    ]


def _fixed(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that may not change, with the options of a nested one by their own names."""
    flat: dict[str, Any] = {}
    for name, value in entries.items():
        if name in _NOT_COMPARED or name in MAY_CHANGE:
            continue
        if isinstance(value, Mapping) and name.endswith("options"):
            few_shot = entries.get("kind") == "few-shot" and name == "learner_options"
            inner = {option: v for option, v in value.items() if not (few_shot and option == "iterations")}
            flat |= {f"{name} {option}": v for option, v in inner.items()}
        else:
            flat[name] = value
    return flat


def _word(entries: Mapping[str, Any], name: str) -> str:
    return printable(repr(entries[name])) if name in entries else "nothing"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
