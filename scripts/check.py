"""`metarl check`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from metarl.contract import ContractError, check_distribution
from metarl.registry import make
from metarl.scripts.arguments import parse


@dataclass
class Arguments:
    """Runs the contract on a task distribution of your own. Exit code 1 if it is broken."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODULE:NAME")]
    """A `TaskDistribution`, or a class or function that makes one without arguments, importable from here; or an id."""
    backend: str = "auto"
    """Which of its backends to check."""


def main(arguments: Sequence[str]) -> int:
    parsed = parse(Arguments, arguments, "metarl check")
    distribution = make(parsed.target)
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
