"""`metarl check`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from metarl.contract import ContractError, check_distribution
from metarl.own_frames import own_traceback
from metarl.registry import make
from metarl.scripts.arguments import key_values, parse


@dataclass
class Arguments:
    """Checks that a task distribution keeps the contract. The exit code is 1 if it does not."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODULE:NAME")]
    """An importable `TaskDistribution`, a class or function that makes one, or an id."""
    env_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Options of the task distribution, such as horizon=50."""
    backend: str = "auto"
    """Backend to check."""


def main(arguments: Sequence[str]) -> int:
    parsed = parse(Arguments, arguments, "metarl check")
    distribution = make(parsed.target, **key_values(parsed.env_options, "--env-options"))
    backend = distribution.resolve_backend(parsed.backend)
    try:
        check_distribution(distribution, backend=backend)
    except ContractError as error:
        if error.__cause__ is not None:
            sys.stderr.write(own_traceback(error.__cause__))
        print(error, file=sys.stderr)
        return 1
    print(
        f"{distribution.id} keeps the contract: spaces, sampling and validation of tasks, and under backend {backend!r}"
        " resetting, stepping, autoreset, seeding and setting tasks"
    )
    return 0
