"""Formats of run folders, and the versions of metarl that read them."""

import importlib.metadata
import platform
from collections.abc import Iterable
from typing import Any

from metarl.errors import UsageError
from metarl.parsing import printable

FORMAT = 2
"""The format that this version writes and reads."""
READERS = {1: "0.1"}
"""Earlier formats and the versions that read them."""


def metarl_version() -> str:
    """The installed version."""
    return importlib.metadata.version("metarl-kit")


def installed_versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The versions of Python and of `packages`, None for one that is not installed."""
    return {name: _version(name) for name in packages} | {"python": platform.python_version()}


def check_format(what: str, found: Any) -> None:
    """Raises `UsageError`, naming the version that reads it, if `what` has another format than this version's."""
    if found == FORMAT:
        return
    # A damaged file may hold anything, a list included.
    reader = READERS.get(found) if isinstance(found, int) else None
    way_out = f"metarl {reader} reads it, this is {metarl_version()}"
    if reader is None:
        way_out = f"this is metarl {metarl_version()}, which reads format {FORMAT}"
    raise UsageError(f"{what} of format {printable(repr(found), 60)}: {way_out}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # the latter for what is no name at all
        return None
