"""`metarl benchmark rollout`: how fast environments step, part by part, and how fast others' step beside them."""

import importlib.util
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import metarl
from metarl.agents.random import RandomPolicy
from metarl.envs.locomotion.family import LocomotionDistribution
from metarl.errors import UsageError
from metarl.randomness import make_generator
from metarl.scripts.benchmark import Output
from metarl.tasks import TaskDistribution, check_count

PEERS = ("envpool", "gymnasium")
GYMNASIUM_WORKERS = 16
ROLLOUT_STEPS = 50
_PACKAGES = ("torch", "mujoco", "mujoco-warp", "warp-lang", "gymnasium", "envpool")


@dataclass
class Arguments(Output):
    """What is stepped, where, and for how long."""

    env: str = "HalfCheetahVel-v0"
    """Id of the task distribution."""
    backend: str = "auto"
    """What steps it: mujoco, warp, gymnasium, torch or auto."""
    device: str = "cpu"
    """Where: cpu or cuda."""
    num_envs: tuple[int, ...] = (256,)
    """Numbers of environments to measure, one after another."""
    seconds: float = 2.0
    """Length of a run."""
    repeats: int = 3
    """Runs, of which the median counts."""
    peers: bool = True
    """Run EnvPool and Gymnasium beside it, where they are installed and know the robot."""


def run(arguments: Arguments) -> dict[str, Any]:
    return benchmark_rollout(
        arguments.env,
        arguments.backend,
        arguments.device,
        arguments.num_envs,
        seconds=arguments.seconds,
        repeats=arguments.repeats,
        peers=arguments.peers,
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
) -> dict[str, Any]:
    """Steps the distribution `env` with random actions and prints what it costs; returns the figures.

    For each of `num_envs`: environment steps per second of `metarl.collect` (the median of `repeats` runs, task rewards
    and resets included), and the microseconds per environment step that go into its parts: physics, observation and
    reward (all else that the environment does), policy (drawing the actions), and copying (storing the trajectories).
    With `peers`, EnvPool and Gymnasium's asynchronous vector environment step the same robot from the same kind of
    start for as many steps. Runs alternate, so that all see the same machine. Raises `UsageError` for a bad argument.
    """
    check_count("number of repeats", repeats)
    for count in num_envs:
        check_count("number of environments", count)
    if not 0 < seconds < float("inf"):
        raise UsageError(f"seconds must be a finite number above 0, got {seconds}")
    family = metarl.make(env)
    backend = family.resolve_backend(backend, device)
    console = Console()
    rows = []
    for count in num_envs:
        contenders: dict[str, Contender] = {"metarl": OwnContender(family, backend, device, count)}
        try:
            if peers:
                contenders |= _peers(family, count)
            rows.append({"num_envs": count, **_race(contenders, seconds, repeats)})
        finally:
            for contender in contenders.values():
                contender.close()
        console.print(f"{count:,} environments: {rows[-1]['steps_per_second']['metarl']:,.0f} steps/s")
    figures = {
        "env": env,
        "backend": backend,
        "device": _device_name(device),
        "versions": _versions(),
        "commit": _commit(),
        "rollout_steps": ROLLOUT_STEPS,
        "seconds": seconds,
        "repeats": repeats,
        "rows": rows,
    }
    console.print(_table(figures))
    return figures


class Contender:
    """Something that takes random actions in `num_envs` environments."""

    def __init__(self, num_envs: int):
        self.num_envs = num_envs

    def rollout(self) -> None:
        """A reset and `ROLLOUT_STEPS` steps of every environment; returns when they are done."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends its threads and processes."""

    def run(self, seconds: float) -> float:
        """Environment steps per second over about `seconds`."""
        start, rollouts = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            self.rollout()
            rollouts += 1
        return rollouts * ROLLOUT_STEPS * self.num_envs / (time.perf_counter() - start)


class OwnContender(Contender):
    """`metarl.collect`, with as many tasks as fit."""

    def __init__(self, family: TaskDistribution, backend: str, device: str, num_envs: int):
        super().__init__(num_envs)
        num_tasks = next(tasks for tasks in (40, 32, 20, 16, 10, 8, 4, 2, 1) if num_envs % tasks == 0)
        self.env = family.make_env(num_tasks, num_envs // num_tasks, backend=backend, device=device)
        self.env.set_tasks(family.sample(num_tasks, seed=0))
        self._policy = RandomPolicy(family.action_space, make_generator("benchmark", device=self.env.device))

    def rollout(self) -> None:
        metarl.collect(self.env, self._policy, ROLLOUT_STEPS)
        self._wait()

    def close(self) -> None:
        self.env.close()

    def parts(self, seconds: float) -> dict[str, float]:
        """Microseconds per environment step in each part of a rollout.

        On a GPU each part is waited for, so their sum exceeds what a free run takes.
        """
        spent: dict[str, float] = {}
        owners: list[tuple[Any, str, str]] = [(self.env, "step", "step"), (self._policy, "act", "policy")]
        if hasattr(self.env, "physics"):
            owners.append((self.env.physics, "step", "physics"))
        for owner, method, name in owners:
            setattr(owner, method, self._timed(getattr(owner, method), spent, name))
        start, rollouts = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            self.rollout()
            rollouts += 1
        total = time.perf_counter() - start
        for owner, method, _ in owners:
            delattr(owner, method)  # the class's own shows again
        scale = 1e6 / (rollouts * ROLLOUT_STEPS * self.num_envs)
        physics = spent.get("physics", 0.0)
        return {
            "physics": physics * scale,
            "observation_and_reward": (spent["step"] - physics) * scale,
            "policy": spent["policy"] * scale,
            "copying": (total - spent["step"] - spent["policy"]) * scale,
            "physics_share": physics / spent["step"],
        }

    def _timed(self, function: Callable, spent: dict[str, float], name: str) -> Callable:
        def timed(*arguments: Any) -> Any:
            self._wait()
            start = time.perf_counter()
            answer = function(*arguments)
            self._wait()
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
            return answer

        return timed

    def _wait(self) -> None:
        if self.env.device.type == "cuda":
            torch.cuda.synchronize(self.env.device)


class EnvPoolContender(Contender):
    """EnvPool's C++ environments, as many threads as CPUs."""

    def __init__(self, gymnasium_id: str, num_envs: int, options: dict[str, Any]):
        import envpool

        super().__init__(num_envs)
        self._env = envpool.make_gymnasium(gymnasium_id, num_envs=num_envs, **options)
        self._space, self._rng = self._env.action_space, np.random.default_rng(0)

    def rollout(self) -> None:
        shape = (self.num_envs, *self._space.shape)
        self._env.reset()
        for _ in range(ROLLOUT_STEPS):
            self._env.send(self._rng.uniform(self._space.low, self._space.high, shape))
            self._env.recv()

    def close(self) -> None:
        self._env.close()


class GymnasiumContender(Contender):
    """Gymnasium's own environments in 16 worker processes, each with its share of them."""

    def __init__(self, gymnasium_id: str, num_envs: int, options: dict[str, Any]):
        import gymnasium

        super().__init__(num_envs)
        self._workers = min(GYMNASIUM_WORKERS, num_envs)
        makers = [lambda: gymnasium.make(gymnasium_id, **options)] * self._workers
        self._env = gymnasium.vector.AsyncVectorEnv(makers)
        self._space, self._rng = self._env.action_space, np.random.default_rng(0)

    def rollout(self) -> None:
        """As many rounds of the workers as `num_envs` environments take."""
        for _ in range(-(-self.num_envs // self._workers)):
            self._env.reset()
            for _ in range(ROLLOUT_STEPS):
                self._env.step_async(self._rng.uniform(self._space.low, self._space.high).astype(np.float32))
                self._env.step_wait()

    def close(self) -> None:
        self._env.close()


def _peers(family: TaskDistribution, num_envs: int) -> dict[str, Contender]:
    """The peers that know the family's robot and are installed; their episodes end where the family's do."""
    if not isinstance(family, LocomotionDistribution):
        return {}
    makers = {"envpool": EnvPoolContender, "gymnasium": GymnasiumContender}
    installed = [name for name in PEERS if importlib.util.find_spec(name) is not None]
    options = {"max_episode_steps": family.horizon}
    if family.robot.falls:
        options["terminate_when_unhealthy"] = family.terminates
    return {name: makers[name](family.robot.gymnasium_id, num_envs, options) for name in installed}


def _race(contenders: dict[str, Contender], seconds: float, repeats: int) -> dict[str, Any]:
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for contender in contenders.values():
        contender.rollout()  # warm-up: compiling, first touches of memory
    for _ in range(repeats):
        for name, contender in contenders.items():
            speeds[name].append(contender.run(seconds))
    own = contenders["metarl"]
    assert isinstance(own, OwnContender)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {
        "steps_per_second": medians,
        "runs": speeds,
        "ratios": {name: medians["metarl"] / value for name, value in medians.items() if name != "metarl"},
        "microseconds": own.parts(seconds),
        "faults": getattr(own.env, "fault_count", 0),
    }


def _table(figures: dict[str, Any]) -> Table:
    title = f"{figures['env']} · {figures['backend']} · {figures['device']} · commit {figures['commit']}"
    table = Table(title=title, caption="µs per environment step in each part; the speeds are medians")
    names = ["environments", "steps/s", "physics", "obs+reward", "policy", "copying", "physics share"]
    peers = sorted({name for row in figures["rows"] for name in row["ratios"]})
    for name in names + [f"÷ {peer}" for peer in peers]:
        table.add_column(name, justify="right")
    for row in figures["rows"]:
        micro = row["microseconds"]
        parts = [f"{micro[name]:.2f}" for name in ("physics", "observation_and_reward", "policy", "copying")]
        ratios = [f"{row['ratios'][peer]:.2f}" if peer in row["ratios"] else "–" for peer in peers]
        speed = f"{row['steps_per_second']['metarl']:,.0f}"
        table.add_row(f"{row['num_envs']:,}", speed, *parts, f"{micro['physics_share']:.0%}", *ratios)
    return table


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The commit that is measured, or "unknown" outside a checkout."""
    place = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(place), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
