"""`metarl resume`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from metarl.experiment import resume
from metarl.scripts.arguments import parse


@dataclass
class Arguments:
    """Continues a run exactly from its last checkpoint. Prints the run folder."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""


def main(arguments: Sequence[str]) -> None:
    print(resume(parse(Arguments, arguments, "metarl resume").run))
