"""Where metrics go besides metrics.jsonl and TensorBoard: trackio, Weights & Biases, or a logger of one's own."""

import hashlib
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from metarl.errors import UsageError
from metarl.experiment.metrics import Row, RunLogger
from metarl.importing import import_named

CLIENTS = ("trackio", "wandb")
"""Packages with the functions `init`, `log` and `finish`, which are alike."""


class _ClientLogger:
    """Sends rows to `trackio` or `wandb`, `package`, as one run of the project `metarl`.

    A run that goes on is continued there: it is known by the place of its folder.
    """

    def __init__(self, package: str, path: Path, title: str, config: Mapping[str, Any]):
        self.client = _client(package)
        place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
        known_by = f"{path.name}-{place}"
        own: dict[str, Any] = {"id": known_by, "dir": str(path)} if package == "wandb" else {}
        name = path.name if package == "wandb" else known_by
        settings = {**config, "title": title}
        self.client.init(project="metarl", name=name, config=settings, resume="allow", **own)

    def log(self, row: Row) -> None:
        self.client.log({name: value for name, value in row.items() if name != "iteration"}, step=row["iteration"])

    def close(self) -> None:
        self.client.finish()


def check_loggers(names: Sequence[str]) -> None:
    """Raises `UsageError` for a logger that is unknown, not installed, damaged or named twice."""
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"logger {name} is named twice")
        if ":" in name:
            import_named(name)
        elif name not in CLIENTS:
            raise UsageError(f"unknown logger {name!r}: choose from {', '.join(CLIENTS)}, or MODULE:NAME")
        elif importlib.util.find_spec(name) is None:
            raise UsageError(f"logger {name} is not installed: pip install {name}")
        else:
            _client(name)


def _client(package: str) -> ModuleType:
    """The package, imported; it may lack packages that it needs itself."""
    try:
        client = importlib.import_module(package)
    except ImportError as error:
        raise UsageError(f"logger {package} cannot be imported ({error}): pip install --upgrade {package}") from error
    lacking = [name for name in ("init", "log", "finish") if not callable(getattr(client, name, None))]
    if lacking:
        raise UsageError(f"logger {package} has no {', '.join(lacking)}: pip install --upgrade {package}")
    return client


def open_loggers(names: Sequence[str], path: Path, title: str, config: Mapping[str, Any]) -> list[RunLogger]:
    """Opens the loggers of a run."""
    return [
        import_named(name)(path, title, config) if ":" in name else _ClientLogger(name, path, title, config)
        for name in names
    ]
