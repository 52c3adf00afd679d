"""`metarl benchmark before`: this version compared with another, installed in another environment, in one run."""

import importlib.metadata
import os
import platform
import statistics
import sys
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from metarl.errors import UsageError
from metarl.scripts.benchmark import Output
from metarl.scripts.workers import Worker
from metarl.tasks import check_count

WORKER = Path(__file__).with_name("before_worker.py")
SPEEDS = (
    "rollout HalfCheetahVel-v0",
    "rollout AntDir-v0",
    "rollout Walker2dRandParams-v0",
    "rollout ML1-reach-v3",
    "rollout PointNavigation-v0",
    "maml PointNavigation-v0",
)
MEMORY = "memory HumanoidDir-v0"


@dataclass
class Arguments(Output):
    """Compares speed and memory of rollouts, and the speed of a MAML iteration, with another version."""

    python: Annotated[Path | None, tyro.conf.arg(metavar="PYTHON")] = None
    """Interpreter of the other version, such as .venv/bin/python in a checkout of the previous commit."""
    measures: tuple[str, ...] = (*SPEEDS, MEMORY)
    """What to measure: `rollout ID`, `maml ID` or `memory ID`, each in quotes."""
    seconds: float = 2.0
    """Seconds per run."""
    repeats: int = 7
    """Pairs of runs. The result is the median ratio."""
    threads: int = 1
    """Threads of torch."""


def run(arguments: Arguments) -> dict[str, Any]:
    """Measures, prints a table and returns the results.

    Both versions take turns, and the first one of each pair alternates, so that a temporarily slow machine affects both
    alike. Memory is measured in separate processes, because the peak of a process never falls.
    """
    if arguments.python is None:
        raise UsageError("name the other version's interpreter: --python PYTHON")
    if not os.access(arguments.python, os.X_OK):
        raise UsageError(f"--python {arguments.python}: there is no such program")
    check_count("repeats", arguments.repeats)
    rows = {measure: _measure(arguments, measure) for measure in arguments.measures}
    table = Table(title="This version beside the other", caption="medians; memory: peak of the process, MiB")
    for column in ("", "this", "other", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for measure, row in rows.items():
        table.add_row(measure, f"{row['this']:,.0f}", f"{row['other']:,.0f}", f"{row['ratio']:.2f}")
    Console().print(table)
    return {
        "measures": rows,
        "seconds": arguments.seconds,
        "repeats": arguments.repeats,
        "threads": arguments.threads,
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "mujoco", "gymnasium")},
    }


def _measure(arguments: Arguments, measure: str) -> dict[str, Any]:
    """Medians of both versions and of their ratio, this version over the other."""
    pythons = {"this": sys.executable, "other": str(arguments.python)}
    figures: dict[str, list[float]] = {name: [] for name in pythons}
    once = measure.startswith("memory ")
    workers = {} if once else {name: _worker(arguments, python) for name, python in pythons.items()}
    try:
        for worker in workers.values():
            worker.ask([measure, 0.1])  # warm-up
        for repeat in range(min(arguments.repeats, 3) if once else arguments.repeats):
            for name in list(pythons)[:: 1 if repeat % 2 else -1]:
                with closing(_worker(arguments, pythons[name])) if once else nullcontext(workers[name]) as worker:
                    figures[name].append(worker.ask([measure, arguments.seconds])["figure"])
    finally:
        for worker in workers.values():
            worker.close()
    ratios = [this / other for this, other in zip(figures["this"], figures["other"], strict=True)]
    medians = {name: statistics.median(values) for name, values in figures.items()}
    return {**medians, "ratio": statistics.median(ratios), "runs": figures}


def _worker(arguments: Arguments, python: str) -> Worker:
    return Worker(python, WORKER, arguments.threads)
