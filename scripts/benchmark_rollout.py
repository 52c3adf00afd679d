"""`metarl benchmark rollout`: how fast environments step, part by part, and how fast others' step beside them."""

import importlib.util
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import metarl
from metarl.errors import UsageError
from metarl.randomness import make_generator
from metarl.tasks import check_count
from metarl.vector_env import TaskVectorEnv

PEERS = ("envpool", "gymnasium")
GYMNASIUM_WORKERS = 16
_PACKAGES = ("torch", "mujoco", "mujoco-warp", "warp-lang", "gymnasium", "envpool")


def benchmark_rollout(
    distribution: str = "HalfCheetahVel-v0",
    backend: str = "auto",
    device: str = "cpu",
    num_envs: Sequence[int] = (256,),
    seconds: float = 2.0,
    repeats: int = 3,
    peers: bool = True,
    json_path: str | Path | None = None,
) -> dict[str, Any]:
    """Steps `distribution` with random actions and prints what it costs; returns the figures.

    For each of `num_envs`: environment steps per second (the median of `repeats` runs of `seconds` each, task rewards
    and resets included), and microseconds per environment step spent in the parts of a step: physics, observation and
    reward (all else in the environment), policy (drawing the actions), copying (to the device and back). With `peers`,
    EnvPool and Gymnasium's asynchronous vector environment step the same robot in the same numbers, where they are
    installed and know it; runs alternate, so that all see the same machine. Raises `UsageError` for a bad argument.
    """
    check_count("number of repeats", repeats)
    for count in num_envs:
        check_count("number of environments", count)
    if not 0 < seconds < float("inf"):
        raise UsageError(f"seconds must be a finite number above 0, got {seconds}")
    family = metarl.make(distribution)
    backend = family.resolve_backend(backend, device)
    console = Console()
    rows = []
    for count in num_envs:
        contenders: dict[str, Contender] = {"metarl": OwnContender(family, backend, device, count)}
        if peers:
            contenders |= _peers(family, count)
        row = _race(contenders, seconds, repeats)
        rows.append({"num_envs": count, **row})
        console.print(_line(rows[-1]))
    result = {
        "distribution": distribution,
        "backend": backend,
        "device": _device_name(device),
        "versions": _versions(),
        "commit": _commit(),
        "seconds": seconds,
        "repeats": repeats,
        "rows": rows,
    }
    console.print(_table(result))
    if json_path is not None:
        Path(json_path).parent.mkdir(parents=True, exist_ok=True)
        Path(json_path).write_text(json.dumps(result, indent=2) + "\n")
    return result


class Contender:
    """Something that steps `num_envs` environments with random actions."""

    def __init__(self, num_envs: int):
        self.num_envs = num_envs

    def step(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Waits for what is under way."""

    def close(self) -> None:
        """Ends its threads and processes."""

    def run(self, seconds: float) -> float:
        """Environment steps per second over about `seconds`."""
        self.finish()
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            for _ in range(5):
                self.step()
            steps += 5
        self.finish()
        return steps * self.num_envs / (time.perf_counter() - start)


class OwnContender(Contender):
    """Our environments, one task each where there are enough."""

    def __init__(self, family: metarl.TaskDistribution, backend: str, device: str, num_envs: int):
        super().__init__(num_envs)
        num_tasks = next(tasks for tasks in (40, 20, 10, 8, 4, 2, 1) if num_envs % tasks == 0)
        self.env: TaskVectorEnv = family.make_env(num_tasks, num_envs // num_tasks, backend=backend, device=device)
        self.env.set_tasks(family.sample(num_tasks, seed=0))
        self.env.reset(seed=0)
        self._generator = make_generator("benchmark", device=self.env.device)
        space = self.env.single_action_space
        self._low = torch.as_tensor(space.low, device=self.env.device)
        self._range = torch.as_tensor(space.high - space.low, device=self.env.device)

    def actions(self) -> Tensor:
        shape = (self.num_envs, len(self._low))
        return self._low + self._range * torch.rand(shape, generator=self._generator, device=self.env.device)

    def step(self) -> None:
        self.env.step(self.actions())

    def finish(self) -> None:
        if self.env.device.type == "cuda":
            torch.cuda.synchronize(self.env.device)

    def close(self) -> None:
        self.env.close()

    def parts(self, seconds: float) -> dict[str, float]:
        """Microseconds per environment step in each part; each is waited for, so their sum exceeds a free run's."""
        spent = dict.fromkeys(("step", "physics", "policy", "copying"), 0.0)
        physics = getattr(self.env, "physics", None)
        original = None if physics is None else physics.step
        if physics is not None:
            physics.step = self._timed(original, spent, "physics")
        policy, step = self._timed(self.actions, spent, "policy"), self._timed(self.env.step, spent, "step")
        copy = self._timed(lambda values: values.cpu().to(self.env.device), spent, "copying")
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            observations, *_ = step(policy())
            copy(observations)
            steps += 1
        if physics is not None:
            physics.step = original
        scale = 1e6 / (steps * self.num_envs)
        return {
            "physics": spent["physics"] * scale,
            "observation_and_reward": (spent["step"] - spent["physics"]) * scale,
            "policy": spent["policy"] * scale,
            "copying": spent["copying"] * scale,
            "physics_share": spent["physics"] / spent["step"],
        }

    def _timed(self, function: Callable, spent: dict[str, float], name: str) -> Callable:
        def timed(*arguments: Any) -> Any:
            self.finish()
            start = time.perf_counter()
            answer = function(*arguments)
            self.finish()
            spent[name] += time.perf_counter() - start
            return answer

        return timed


class EnvPoolContender(Contender):
    """EnvPool's C++ environments, as many threads as CPUs."""

    def __init__(self, gymnasium_id: str, num_envs: int, options: dict[str, Any]):
        import envpool

        super().__init__(num_envs)
        self._env = envpool.make_gymnasium(gymnasium_id, num_envs=num_envs, **options)
        self._env.reset()
        self._space, self._rng = self._env.action_space, np.random.default_rng(0)

    def step(self) -> None:
        shape = (self.num_envs, *self._space.shape)
        self._env.step(self._rng.uniform(self._space.low, self._space.high, shape))

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
        self._env.reset(seed=0)
        self._space, self._rng = self._env.action_space, np.random.default_rng(0)

    def step(self) -> None:
        """`num_envs` environment steps: as many rounds of the workers as it takes."""
        for _ in range(-(-self.num_envs // self._workers)):
            self._env.step(self._rng.uniform(self._space.low, self._space.high).astype(np.float32))

    def close(self) -> None:
        self._env.close()


def _peers(family: metarl.TaskDistribution, num_envs: int) -> dict[str, Contender]:
    """The peers that know the family's robot and are installed; their episodes end where the family's do."""
    robot = getattr(family, "robot", None)
    if robot is None:
        return {}
    makers = {"envpool": EnvPoolContender, "gymnasium": GymnasiumContender}
    installed = [name for name in PEERS if importlib.util.find_spec(name) is not None]
    options = {"max_episode_steps": family.horizon}
    if robot.falls:
        options["terminate_when_unhealthy"] = family.terminates
    return {name: makers[name](robot.gymnasium_id, num_envs, options) for name in installed}


def _race(contenders: dict[str, Contender], seconds: float, repeats: int) -> dict[str, Any]:
    try:
        speeds: dict[str, list[float]] = {name: [] for name in contenders}
        for contender in contenders.values():
            contender.run(min(seconds, 1.0))  # warm-up: compiling, first touches of memory
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
    finally:
        for contender in contenders.values():
            contender.close()


def _line(row: dict[str, Any]) -> str:
    return f"{row['num_envs']:,} environments: {row['steps_per_second']['metarl']:,.0f} steps/s"


def _table(result: dict[str, Any]) -> Table:
    title = f"{result['distribution']} · {result['backend']} · {result['device']} · commit {result['commit']}"
    table = Table(title=title, caption="µs per environment step in each part; the speeds are medians")
    names = ["environments", "steps/s", "physics", "obs+reward", "policy", "copying", "physics share"]
    peers = sorted({name for row in result["rows"] for name in row["ratios"]})
    for name in names + [f"÷ {peer}" for peer in peers]:
        table.add_column(name, justify="right")
    for row in result["rows"]:
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
