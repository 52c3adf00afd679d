"""`metarl resume`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl.experiment import resume
from metarl.parallel import launched_rank
from metarl.scripts.arguments import parse


@dataclass
class Arguments:
    """Continues a run exactly from its last checkpoint. Prints the run folder."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    env: Annotated[str | None, tyro.conf.arg(metavar="MODULE:NAME")] = None
    """The family of the training, if it was an instance, which the run folder cannot name."""
    max_faults: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Faults tolerated in one iteration from here on, for a run that faults have stopped."""


def main(arguments: Sequence[str]) -> None:
    parsed = parse(Arguments, arguments, "metarl resume")
    path = resume(parsed.run, env=parsed.env, max_faults=parsed.max_faults)
    if launched_rank() == 0:
        print(path)
