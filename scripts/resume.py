"""`metarl resume`."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl.experiment import resume
from metarl.parallel import launched_rank
from metarl.scripts.arguments import exit_code, parse


@dataclass
class Arguments:
    """Continues a run exactly from its last checkpoint. Prints the run folder."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    env: Annotated[str | None, tyro.conf.arg(metavar="MODULE:NAME")] = None
    """The family of the training, if it was an instance, which the run folder cannot name."""
    iterations: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Train to this many iterations, from the beginning, instead of the run's own bounds."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Train to this many environment steps, from the beginning, instead of the run's own bounds."""
    device: Annotated[str | None, tyro.conf.arg(metavar="DEVICE")] = None
    """Go on computing here: cpu, cuda or cuda:N."""
    max_hours: Annotated[float | None, tyro.conf.arg(metavar="H")] = None
    """Stop and save before this many hours are over."""
    max_faults: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Faults tolerated in one iteration from here on, for a run that faults have stopped."""
    max_divergent: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Iterations in a row that may diverge from here on, for a run that divergence has stopped."""


def main(arguments: Sequence[str]) -> int:
    parsed = parse(Arguments, arguments, "metarl resume")
    options = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(parsed) if field.name != "run"}
    path = resume(parsed.run, **options)
    if launched_rank() == 0:
        print(path)
    return exit_code(path)
