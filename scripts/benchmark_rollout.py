"""`metarl benchmark rollout`: the speed of environments, its breakdown, and the speed of peers in the same run."""

import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.table import Table

import metarl
from metarl.errors import UsageError
from metarl.scripts.arguments import key_values
from metarl.scripts.benchmark import Output, known_versions
from metarl.scripts.contenders import ROLLOUT_STEPS, Contender, OwnContender, PhysicsContender, peers_of
from metarl.tasks import check_count

_PACKAGES = ("torch", "mujoco", "mujoco-warp", "warp-lang", "gymnasium", "envpool")


@dataclass
class Arguments(Output):
    """Measures environment steps per second, beside EnvPool and Gymnasium."""

    env: str = "HalfCheetahVel-v0"
    """Id of the task distribution."""
    env_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Options of the task distribution, such as vectorization=async."""
    backend: str = "auto"
    """Backend that steps it: mujoco, warp, gymnasium, torch or auto."""
    device: str = "cpu"
    """Device: cpu or cuda."""
    num_envs: tuple[int, ...] = (256,)
    """Numbers of environments to measure, one after another."""
    num_tasks: int | None = None
    """Number of tasks that the environments share evenly; up to 40 if none is given."""
    seconds: float = 2.0
    """Seconds per run."""
    repeats: int = 3
    """Runs. The result is their median."""
    peers: bool = True
    """Also run EnvPool and Gymnasium, if they are installed and have the robot; for a set of Meta-World tasks, run its
    single tasks; on CPU threads, run `mj_step` alone."""


def run(arguments: Arguments) -> dict[str, Any]:
    return benchmark_rollout(
        arguments.env,
        arguments.backend,
        arguments.device,
        arguments.num_envs,
        seconds=arguments.seconds,
        repeats=arguments.repeats,
        peers=arguments.peers,
        num_tasks=arguments.num_tasks,
        env_options=key_values(arguments.env_options, "--env-options"),
    )


def benchmark_rollout(
    env: str = "HalfCheetahVel-v0",
    backend: str = "auto",
    device: str = "cpu",
    num_envs: tuple[int, ...] = (256,),
    *,
    seconds: float = 2.0,
    repeats: int = 3,
    peers: bool = True,
    num_tasks: int | None = None,
    env_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Steps the distribution `env` with random actions, prints a table of the costs and returns the results.

    For each of `num_envs`, it measures environment steps per second of `metarl.collect` (the median of `repeats` runs,
    including rewards and resets), and the microseconds per environment step in each part: physics, observation and
    reward (the rest of the environment), policy (drawing actions), and copying (storing trajectories). With `peers`,
    EnvPool and Gymnasium's asynchronous vector environment step the same robot (`contenders`), and on CPU threads
    `mj_step` alone takes the same steps, which is the bound. All take turns in rotating order, and a ratio is the
    median of the ratios within each repeat, so that a temporarily slow machine affects all alike. Raises `UsageError`
    for a bad argument, and if `num_tasks` does not divide one of `num_envs`.
    """
    _check(num_envs, num_tasks, seconds, repeats)
    family = metarl.make(env, **(env_options or {}))
    backend = family.resolve_backend(backend, device)
    console = Console()
    rows = []
    for count in num_envs:
        own = OwnContender(family, backend, device, count, num_tasks)
        contenders: dict[str, Contender] = {"metarl": own}
        try:
            if peers:
                contenders |= peers_of(family, backend, device, count)
            if peers and backend == "mujoco":
                contenders["mj_step"] = PhysicsContender(own, family)
            rows.append({"num_envs": count, **_race(contenders, seconds, repeats)})
        finally:
            for contender in contenders.values():
                contender.close()
        console.print(f"{count:,} environments: {rows[-1]['steps_per_second']['metarl']:,.0f} steps/s")
    figures = {
        "env": env,
        "env_options": dict(env_options or {}),
        "backend": backend,
        "device": device_name(device),
        "versions": known_versions(_PACKAGES),
        "commit": commit(),
        "num_tasks": num_tasks,
        "rollout_steps": ROLLOUT_STEPS,
        "seconds": seconds,
        "repeats": repeats,
        "rows": rows,
    }
    console.print(_table(figures))
    return figures


def _check(num_envs: Sequence[int], num_tasks: int | None, seconds: float, repeats: int) -> None:
    check_count("number of repeats", repeats)
    for count in num_envs:
        check_count("number of environments", count)
        if num_tasks is not None:
            check_count("number of tasks", num_tasks)
            if count % num_tasks:
                raise UsageError(f"{num_tasks} tasks cannot share {count} environments evenly")
    if not 0 < seconds < float("inf"):
        raise UsageError(f"seconds must be a finite number above 0, got {seconds}")


def _race(contenders: dict[str, Contender], seconds: float, repeats: int) -> dict[str, Any]:
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender.rollout()  # warm-up: compiling, first touches of memory
    order = list(contenders)
    for _ in range(repeats):
        for name in order:
            speeds[name].append(contenders[name].run(seconds))
        order = order[1:] + order[:1]
    own = contenders["metarl"]
    assert isinstance(own, OwnContender)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {
        "steps_per_second": medians,
        "runs": speeds,
        "ratios": {
            name: statistics.median(ours / theirs for ours, theirs in zip(speeds["metarl"], values, strict=True))
            for name, values in speeds.items()
            if name != "metarl"
        },
        "microseconds": own.parts(seconds),
        "faults": getattr(own.env, "fault_count", 0),
    }


def _table(figures: dict[str, Any]) -> Table:
    title = f"{figures['env']} · {figures['backend']} · {figures['device']} · commit {figures['commit']}"
    table = Table(title=title, caption="µs per environment step in each part; speeds and ratios are medians")
    names = ["environments", "steps/s", "physics", "obs+reward", "policy", "copying", "physics share"]
    peers = sorted({name for row in figures["rows"] for name in row["ratios"]})
    for name in names + [f"÷ {peer}" for peer in peers]:
        table.add_column(name, justify="right")
    for row in figures["rows"]:
        micro = row["microseconds"]
        parts = [_cell(micro.get(name), ".2f") for name in ("physics", "observation_and_reward", "policy", "copying")]
        ratios = [f"{row['ratios'][peer]:.2f}" if peer in row["ratios"] else "–" for peer in peers]
        speed = f"{row['steps_per_second']['metarl']:,.0f}"
        table.add_row(f"{row['num_envs']:,}", speed, *parts, _cell(micro.get("physics_share"), ".0%"), *ratios)
    return table


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def device_name(device: str) -> str:
    """What `device` is, for people."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def commit() -> str:
    """The measured commit, or "unknown" outside a checkout."""
    place = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(place), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
