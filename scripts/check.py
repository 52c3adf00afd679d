"""`metarl check`."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl.contract import ContractError, check_distribution
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError
from metarl.registry import near_matches
from metarl.scripts.arguments import parse


@dataclass
class Arguments:
    """Runs the contract on a task distribution of one's own. Exit code 1 where it is broken."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODULE:NAME")]
    """A `TaskDistribution`, or what makes one when called without arguments, importable from here."""
    backend: str = "auto"
    """Which of its backends to check."""


def main(arguments: Sequence[str]) -> int:
    parsed = parse(Arguments, arguments, "metarl check")
    distribution = _find(parsed.target)
    backend = distribution.resolve_backend(parsed.backend)
    try:
        check_distribution(distribution, backend=backend)
    except ContractError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{distribution.id} keeps the contract: spaces, sampling and validation of tasks, and under backend {backend!r}"
        " resetting, stepping, autoreset, seeding and setting tasks"
    )
    return 0


def _find(target: str) -> TaskDistribution:
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise UsageError(f"{target!r} is not of the form MODULE:NAME")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        raise UsageError(f"there is no module {module_name!r} here or among the installed ones") from None
    if not hasattr(module, name):
        near = near_matches(name, vars(module))
        raise UsageError(f"{module_name} has no {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    found = getattr(module, name)
    if not isinstance(found, TaskDistribution) and callable(found):
        found = found()
    if not isinstance(found, TaskDistribution):
        raise UsageError(f"{target} is no TaskDistribution, nor does it make one")
    return found
