"""`make licences`: every package that metarl needs, directly or through another, with its version and its licence."""

import importlib.metadata
import sys
from collections.abc import Iterator
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from rich.console import Console
from rich.table import Table

ROOT = "metarl-kit"


def main() -> int:
    """Prints the table; returns 1 if a package names no licence."""
    table = Table("package", "version", "licence")
    unknown = []
    for name in sorted(needed(ROOT)):
        found = importlib.metadata.distribution(name)
        licence = licence_of(found.metadata)
        unknown += [] if licence else [name]
        table.add_row(name, found.version, licence or "unknown")
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if unknown:
        print("metarl: no licence is named by", ", ".join(unknown), file=sys.stderr)
    return int(bool(unknown))


def needed(root: str) -> set[str]:
    """The installed packages that `root` needs, without those of its extras, by their canonical names."""
    found: set[str] = set()
    waiting = [canonicalize_name(root)]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # needed on other platforms only
            continue
        found.add(name)
        waiting += list(_names(requirements))
    return found


def licence_of(metadata: Any) -> str:
    """The licence that a package names, in the words of the newest of the three ways to do so; "" if it names none."""
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = [str(line).split(" :: ")[-1] for line in metadata.get_all("Classifier") or ()]
    named = [line for line in classifiers if "licen" in line.lower()]
    lines = str(metadata.get("License") or "").strip().splitlines()
    return ", ".join(named) or (lines[0] if lines else "")


def _names(requirements: list[str]) -> Iterator[NormalizedName]:
    """The names of those requirements that apply here without an extra."""
    for line in requirements:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


if __name__ == "__main__":
    sys.exit(main())
