"""`metarl benchmark ranks`: iterations of two ranks, beside those of one process and of two independent ones."""

import contextlib
import os
import socket
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from metarl.devices import num_cpus
from metarl.errors import UsageError
from metarl.experiment.progress import Progress
from metarl.scripts.benchmark import Output, known_versions
from metarl.scripts.evaluate import print_table
from metarl.scripts.workers import Worker

SETTINGS: dict[str, dict[str, Any]] = {
    "maml-cheetah": {
        "agent": "maml",
        "env": "HalfCheetahVel-v0",
        "agent_options": {"num_tasks": 40, "envs_per_task": 20, "curvature_fraction": 0.25},
    },
    "rl2-reach": {
        "agent": "rl2",
        "env": "ML1-reach-v3",
        "env_options": {"horizon": 150},
        "agent_options": {"num_tasks": 100, "hidden": 128},
    },
}
"""The trainings that are measured."""
RANKS = 2


@dataclass
class Arguments(Output):
    """Measures environment steps per second of whole iterations, in turns and with one thread a process.

    `one`: a process with all tasks. `ranks`: two ranks with half of them each. `independent`: two processes with half
    of the tasks each that never wait for each other, which bounds what ranks can reach on this machine.
    """

    rounds: int = 3
    """Iterations of each, after one that does not count."""
    settings: tuple[str, ...] = tuple(SETTINGS)
    """Trainings to measure."""
    shrink: int = 1
    """Divide the number of tasks by this, for a short measurement."""


def run(arguments: Arguments) -> dict[str, Any]:
    """Measures, prints a table and returns the results."""
    unknown = [name for name in arguments.settings if name not in SETTINGS]
    if unknown:
        raise UsageError(f"no training {unknown[0]!r} to measure: there are {', '.join(SETTINGS)}")
    with Progress("ranks") as bar:
        results = {}
        for done, name in enumerate(arguments.settings):
            results[name] = measure(SETTINGS[name], arguments.rounds, arguments.shrink)
            bar.update((done + 1) / len(arguments.settings), name)
    table = Table()
    for title in ("", "one", "2 ranks", "2 independent", "ranks / one", "bound", "sums", "MB", "seconds in sums"):
        table.add_column(title, justify="right" if title else "left")
    for name, result in results.items():
        speeds = (f"{result['steps_per_second'][kind]:,.0f}" for kind in ("one", "ranks", "independent"))
        traffic = result["traffic"]
        table.add_row(
            name,
            *speeds,
            f"{result['speedup']:.2f}",
            f"{result['bound']:.2f}",
            f"{traffic['sums']}",
            f"{traffic['bytes'] / 1e6:.2f}",
            f"{traffic['seconds']:.3f}",
        )
    print_table("Environment steps per second of whole iterations, one thread a process", table)
    versions = known_versions(("metarl-kit", "torch", "mujoco"))
    return {"results": results, "cpus": num_cpus(), "rounds": arguments.rounds, "versions": versions}


def measure(setting: dict[str, Any], rounds: int, shrink: int) -> dict[str, Any]:
    """Speeds, medians of the ratios within a round, and what a rank sums in an iteration."""
    share = max(1, round(setting["agent_options"]["num_tasks"] / shrink / RANKS))
    half, whole = _with_tasks(setting, share), _with_tasks(setting, RANKS * share)
    speeds: dict[str, list[float]] = {"one": [], "independent": [], "ranks": []}
    traffic: dict[str, float] = {}
    with contextlib.ExitStack() as running:
        groups = {
            "one": _start(running, [whole], ranks=False),
            "independent": _start(running, [half] * RANKS, ranks=False),
            "ranks": _start(running, [whole] * RANKS, ranks=True),
        }
        for number in range(rounds + 1):
            for kind, group in groups.items():
                answers = _iterate(group)
                if number:
                    steps = sum(answer["env_steps"] for answer in answers)
                    speeds[kind].append(steps / max(answer["seconds"] for answer in answers))
                if kind == "ranks":
                    traffic = answers[0]["traffic"]

    def ratio(kind: str) -> float:
        return statistics.median(own / one for own, one in zip(speeds[kind], speeds["one"], strict=True))

    medians = {kind: statistics.median(values) for kind, values in speeds.items()}
    result = {"setting": whole, "steps_per_second": medians, "rounds": speeds, "traffic": traffic}
    return result | {"speedup": ratio("ranks"), "bound": ratio("independent")}


def _with_tasks(setting: dict[str, Any], tasks: int) -> dict[str, Any]:
    return {**setting, "agent_options": {**setting["agent_options"], "num_tasks": tasks}}


def _start(running: contextlib.ExitStack, settings: Sequence[dict[str, Any]], *, ranks: bool) -> list[Worker]:
    """The processes of a group, each with one thread."""
    script = Path(__file__).parent / "ranks_worker.py"
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    workers = []
    for rank, setting in enumerate(settings):
        # A machine that is shared out among as many processes: each steps its worlds with its share of the threads.
        environment = {**os.environ, "LOCAL_WORLD_SIZE": str(num_cpus())}
        if ranks:
            numbers = {"WORLD_SIZE": len(settings), "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
            environment |= {name: str(value) for name, value in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}
        worker = running.enter_context(contextlib.closing(Worker(sys.executable, script, 1, environment)))
        worker.send(setting)
        workers.append(worker)
    return workers


def _iterate(workers: Sequence[Worker]) -> list[dict[str, Any]]:
    """An iteration of all processes of a group at once."""
    for worker in workers:
        worker.send("iterate")
    return [worker.receive() for worker in workers]
