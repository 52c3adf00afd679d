"""`metarl benchmark learn`: training iterations by their parts, beside their bounds, neighbours and peers."""

import contextlib
import dataclasses
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from metarl.devices import num_cpus
from metarl.errors import UsageError
from metarl.importing import near_matches
from metarl.scripts import learn_peer as peer
from metarl.scripts.benchmark import Output, known_versions
from metarl.scripts.learn_bounds import RecurrentShapes, physics_speed, products_seconds
from metarl.scripts.learn_worker import AGENT_PARTS, FEWSHOT_PARTS, UPDATE, Request, experiment_of
from metarl.scripts.workers import Worker, neighbours
from metarl.tasks import check_count

WORKER, PEER_WORKER = (Path(__file__).with_name(f"learn_{name}.py") for name in ("worker", "peer"))
PEER_PACKAGE = "sb3-contrib"
THIS, OTHER, PEER = "this", "other", f"{PEER_PACKAGE} RecurrentPPO"
Answer = Mapping[str, Any]
"""What a worker says of one measurement."""


@dataclass(frozen=True)
class Setting:
    """A training whose iterations are measured: `who` is an agent or a few-shot learner, `on` a family or data set."""

    who: str
    on: str
    options: Mapping[str, Any] = field(default_factory=dict)
    env_options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "agent"
    count: int = 1
    """Iterations in one measurement: some take a millisecond."""
    peer: bool = False
    """Whether sb3-contrib's RecurrentPPO can be trained in the same way."""

    def request(self, threads: int | None, folder: str) -> Request:
        return Request(self.kind, self.who, self.on, self.options, self.env_options, self.count, threads, folder)


_ROBOTS = {"num_tasks": 40, "envs_per_task": 20}
SETTINGS = {
    "rl2-cheetah": Setting("rl2", "HalfCheetahVel-v0", {"num_tasks": 50, "episodes_per_trial": 2}, peer=True),
    "rl2-reach": Setting("rl2", "ML1-reach-v3", {"num_tasks": 100, "episodes_per_trial": 2}, {"horizon": 150}),
    "rl2-ml10": Setting("rl2", "ML10-v3", {"num_tasks": 100, "episodes_per_trial": 2}, {"horizon": 150}),
    "maml-cheetah-quarter": Setting("maml", "HalfCheetahDir-v0", {**_ROBOTS, "curvature_fraction": 0.25}),
    "maml-cheetah": Setting("maml", "HalfCheetahDir-v0", _ROBOTS),
    "maml-point": Setting("maml", "PointNavigation-v0"),
    "maml-sines": Setting("maml", "sinusoid", kind="few-shot", count=500),
    "maml-glyphs": Setting("maml", "glyphs", kind="few-shot", count=5),
}
"""Name of a setting → what it trains. Sizes that are not given are the defaults of the agent or learner."""


@dataclass
class Arguments(Output):
    """Measures training iterations by their parts, as `metarl train` and `metarl fewshot` run them."""

    settings: tuple[str, ...] = tuple(SETTINGS)
    """What to train."""
    repeats: int = 5
    """Measurements. The results are medians."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Threads that torch computes with; what metarl chooses, if not given."""
    neighbours: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Also measure beside this number of processes that are always busy."""
    together: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Also measure this number of trainings side by side."""
    python: Annotated[Path | None, tyro.conf.arg(metavar="PYTHON")] = None
    """Also measure another version, by its interpreter: .venv/bin/python in a checkout of the previous commit."""
    bounds: bool = True
    """Also measure the physics alone, and the matrix products of RL²'s update alone."""
    peers: bool = True
    """Also train RecurrentPPO of sb3-contrib beside rl2-cheetah, if it is installed."""


def run(arguments: Arguments) -> dict[str, Any]:
    """Measures, prints tables and returns the results.

    Each setting runs in a process of its own, another version's in a second one. All take turns, and the first of each
    round alternates, so that a temporarily slow machine affects all alike. A ratio is the median of the ratios within
    each round. Memory is the peak of the process. All processes end with the benchmark, also if it is interrupted.
    Raises `UsageError` for a bad argument.
    """
    _check(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = {}
        for name in arguments.settings:
            rows[name] = _measure(arguments, SETTINGS[name], folder)
            Console(stderr=True).print(f"{name}: {rows[name]['per_second']:,.0f} {rows[name]['unit']}/s")
    _print(rows)
    return {
        "settings": rows,
        "repeats": arguments.repeats,
        "machine": {
            "cpus": num_cpus(),
            "processor": platform.processor() or platform.machine(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "versions": known_versions(("torch", "mujoco", "gymnasium", PEER_PACKAGE)),
    }


def _check(arguments: Arguments) -> None:
    for name in arguments.settings:
        if name not in SETTINGS:
            near = near_matches(name, SETTINGS) or list(SETTINGS)
            raise UsageError(f"unknown setting {name!r}; did you mean {' or '.join(near)}?")
    if not arguments.settings:
        raise UsageError(f"--settings names none of {', '.join(SETTINGS)}")
    check_count("repeats", arguments.repeats)
    for name in ("threads", "neighbours"):
        if getattr(arguments, name) is not None:
            check_count(name, getattr(arguments, name))
    if arguments.together is not None and arguments.together < 2:
        raise UsageError(f"--together takes 2 trainings or more, got {arguments.together}")
    if arguments.python is not None and not os.access(arguments.python, os.X_OK):
        raise UsageError(f"--python {arguments.python}: there is no such program")


def _measure(arguments: Arguments, setting: Setting, folder: str) -> dict[str, Any]:
    """All figures of one setting."""
    request = setting.request(arguments.threads, folder)
    with contextlib.ExitStack() as stack:

        def start(python: str = sys.executable, script: Path = WORKER, first: Any = request) -> Worker:
            worker = stack.enter_context(contextlib.closing(Worker(python, script, arguments.threads)))
            worker.ask(dataclasses.asdict(first))  # warms up
            return worker

        workers = {THIS: start()}
        if arguments.python is not None:
            workers[OTHER] = start(str(arguments.python))
        if arguments.peers and setting.peer and PEER_PACKAGE in known_versions((PEER_PACKAGE,)):
            workers[PEER] = start(script=PEER_WORKER, first=_peer_request(setting, request))
        crowd = [workers[THIS], *(start() for _ in range((arguments.together or 1) - 1))]
        row = _race(arguments, workers, crowd)
    row |= {"unit": "env steps" if setting.kind == "agent" else "tasks"}
    return row | ({"bounds": _bounds(setting, request, arguments.repeats, row)} if arguments.bounds else {})


def _race(arguments: Arguments, workers: Mapping[str, Worker], crowd: Sequence[Worker]) -> dict[str, Any]:
    """All workers take turns; the `crowd`, which starts with this version's own, also runs side by side."""
    alone: dict[str, list[Answer]] = {name: [] for name in workers}
    beside: dict[str, list[Answer]] = {name: [] for name in workers if name != PEER}
    together: list[float] = []
    for repeat in range(arguments.repeats):
        order = list(workers)[:: -1 if repeat % 2 else 1]
        for name in order:
            alone[name].append(workers[name].ask(None))
        if arguments.neighbours is not None:
            for name in [name for name in order if name in beside]:
                with neighbours(arguments.neighbours):
                    beside[name].append(workers[name].ask(None))
        if arguments.together is not None:
            together.append(_side_by_side(crowd))
    row = _summary(alone[THIS])
    if OTHER in alone:
        row["other"] = _comparison(alone[THIS], alone[OTHER])
    if PEER in alone:
        ratio = median_ratio(_speeds(alone[THIS]), _speeds(alone[PEER]))
        row["peers"] = {PEER: {"per_second": statistics.median(_speeds(alone[PEER])), "ratio": ratio}}
        row["peers"][PEER]["vectorization"] = alone[PEER][0]["vectorization"]
    if arguments.neighbours is not None:
        row["neighbours"] = {"count": arguments.neighbours} | {
            name: {
                "per_second": statistics.median(_speeds(answers)),
                "ratio": median_ratio(_speeds(answers), _speeds(alone[name])),
            }
            for name, answers in beside.items()
        }
    if together:
        ratio = median_ratio(together, _speeds(alone[THIS]))
        row["together"] = {"count": len(crowd), "per_second": statistics.median(together), "ratio": ratio}
    return row | {"runs": alone | ({"neighbours": beside} if arguments.neighbours else {})}


def _side_by_side(crowd: Sequence[Worker]) -> float:
    """Steps or tasks per second of all together, until the last one has finished its measurement."""
    start = time.perf_counter()
    for worker in crowd:
        worker.send(None)
    answers = [worker.receive() for worker in crowd]
    return sum(answer["amount"] * answer["count"] for answer in answers) / (time.perf_counter() - start)


def _summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """Medians of one version; the parts are those of the iteration of median length, so that they add up to it."""
    middle = sorted(answers, key=lambda answer: answer["seconds"])[(len(answers) - 1) // 2]
    return {
        "seconds": middle["seconds"],
        "parts": middle["parts"],
        "per_second": middle["amount"] / middle["seconds"],
        "memory_mib": answers[-1]["memory_mib"],
        "threads": middle["threads"],
    }


def _comparison(ours: Sequence[Answer], theirs: Sequence[Answer]) -> dict[str, Any]:
    """The other version's medians, and how many times as fast this one is, and as large."""
    times_faster = {
        "iteration": median_ratio(_speeds(ours), _speeds(theirs)),
        "update": median_ratio([a["parts"][UPDATE] for a in theirs], [a["parts"][UPDATE] for a in ours]),
    }
    memory = ours[-1]["memory_mib"] / theirs[-1]["memory_mib"]
    return _summary(theirs) | {"times_faster": times_faster, "memory_ratio": memory}


def _bounds(setting: Setting, request: Request, repeats: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """The speed of the physics alone, and for RL² the time of its products alone and the update as a multiple of it."""
    if setting.kind != "agent":
        return {}
    experiment = experiment_of(request)
    family, options = experiment.distribution, experiment.options
    physics = physics_speed(family, options.num_tasks, options.envs_per_task, repeats)
    bounds: dict[str, Any] = {}
    if physics is not None:
        bounds |= {"physics_per_second": physics, "share_of_physics": row["per_second"] / physics}
    if setting.who == "rl2":
        products = products_seconds(RecurrentShapes.of(family, options), request.threads, repeats)
        bounds |= {"products_seconds": products, "update_over_products": row["parts"][UPDATE] / products}
    return bounds


def _peer_request(setting: Setting, request: Request) -> peer.Request:
    experiment = experiment_of(request)
    options, horizon = experiment.options, experiment.distribution.horizon
    return peer.Request(
        environments=options.num_tasks * options.envs_per_task,
        steps=options.episodes_per_trial * horizon,
        horizon=horizon,
        hidden=options.hidden,
        epochs=options.epochs,
        minibatches=options.minibatches,
        threads=request.threads or 1,
    )


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return statistics.median(n / d for n, d in zip(numerators, denominators, strict=True))


def _speeds(answers: Sequence[Answer]) -> list[float]:
    """Environment steps or tasks per second."""
    return [answer["amount"] / answer["seconds"] for answer in answers]


def _print(rows: Mapping[str, dict[str, Any]]) -> None:
    console = Console()
    for parts in (AGENT_PARTS, FEWSHOT_PARTS):
        found = {name: row for name, row in rows.items() if set(row["parts"]) == set(parts)}
        if not found:
            continue
        table = Table(title="One iteration of training", caption="parts in % of the iteration")
        table.add_column("")
        for name in found:
            table.add_column(name.replace("-", "\n"), justify="right")
        for part in parts:
            table.add_row(part, *(f"{100 * row['parts'][part] / row['seconds']:.1f}" for row in found.values()))
        table.add_section()
        table.add_row("seconds", *(f"{row['seconds']:.4g}" for row in found.values()))
        table.add_row(
            f"{next(iter(found.values()))['unit']}/s", *(f"{row['per_second']:,.0f}" for row in found.values())
        )
        table.add_row("peak memory, MiB", *(f"{row['memory_mib']:,.0f}" for row in found.values()))
        table.add_row("threads of torch", *(str(row["threads"]) for row in found.values()))
        console.print(table)
    comparisons = [(name, what, *figures) for name, row in rows.items() for what, *figures in _comparisons(row)]
    if comparisons:
        table = Table(title="Beside others")
        for column in ("", "beside", "there", "ratio"):
            table.add_column(column, justify="left" if column in ("", "beside") else "right")
        for cells in comparisons:
            table.add_row(*cells)
        console.print(table)


def _comparisons(row: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What else was measured: with what, the figure there, and the ratio."""
    if "other" in row:
        other = row["other"]
        yield "other version", f"{other['per_second']:,.0f}/s", f"{other['times_faster']['iteration']:.2f} × as fast"
        update = other["parts"][UPDATE]
        yield "its update", f"{update:.4g} s", f"{other['times_faster']['update']:.2f} × as fast"
        yield "its memory", f"{other['memory_mib']:,.0f} MiB", f"{other['memory_ratio']:.2f} × as large"
    for name, figures in row.get("peers", {}).items():
        yield name, f"{figures['per_second']:,.0f}/s", f"{figures['ratio']:.2f} × as fast"
    bounds = row.get("bounds", {})
    if "physics_per_second" in bounds:
        yield (
            "physics alone",
            f"{bounds['physics_per_second']:,.0f}/s",
            f"{bounds['share_of_physics']:.2f} of its speed",
        )
    if "products_seconds" in bounds:
        ratio = f"update {bounds['update_over_products']:.2f} × as long"
        yield "products alone", f"{bounds['products_seconds']:.3f} s", ratio
    for name in (THIS, OTHER):
        if name in row.get("neighbours", {}):
            figures, count = row["neighbours"][name], row["neighbours"]["count"]
            whose = "" if name == THIS else " (other version)"
            yield f"{count} neighbours{whose}", f"{figures['per_second']:,.0f}/s", f"{figures['ratio']:.2f} of alone"
    if "together" in row:
        figures = row["together"]
        text = f"{figures['ratio']:.2f} of one alone"
        yield f"{figures['count']} trainings together", f"{figures['per_second']:,.0f}/s", text
