"""`metarl benchmark soak`: whether a long training with evaluations keeps its memory and its open files."""

import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from metarl.errors import UsageError
from metarl.evaluation import evaluate
from metarl.experiment import TrainConfig, load_run, resume, train
from metarl.experiment.agent_run import AgentRun
from metarl.experiment.named_presets import preset
from metarl.scripts.benchmark import Output, known_versions

PAGE = 4096
MB = 1e6


@dataclass
class Arguments(Output):
    """Trains an agent, stops for an evaluation every now and then, and watches the process.

    Reports the slope of resident memory after the warm-up, in MB a minute, and the number of open files.
    """

    agent: str = "maml"
    """Agent to train."""
    env: str = "PointNavigation-v0"
    """Task distribution."""
    preset: str | None = None
    """Preset of the agent for it, which `metarl presets` lists; the agent's defaults if not given."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Run folder to keep; thrown away if not given."""

    minutes: float = 120.0
    """Minutes to run."""
    warm_up: float = 10.0
    """Minutes before the slope is taken; a quarter of the run if that is less."""
    evaluate_every: float = 3.0
    """Minutes between evaluations."""


def run(arguments: Arguments) -> dict[str, Any]:
    """Runs it and prints the table; returns the figures."""
    if not sys.platform.startswith("linux"):
        raise UsageError("metarl benchmark soak reads /proc, which only Linux has")
    if not 0 < arguments.evaluate_every <= arguments.minutes:
        raise UsageError("--evaluate-every must be above 0 and at most --minutes")
    with tempfile.TemporaryDirectory() as folder:
        samples = _soak(arguments, arguments.output or Path(folder) / "run")
    figures = {
        "agent": arguments.agent,
        "env": arguments.env,
        "preset": arguments.preset,
        **summary(samples, min(arguments.warm_up, arguments.minutes / 4)),
        "minutes": samples[-1][0],
    }
    table = Table("minutes", "rows", "resident MB", "MB a minute", "open files")
    handles = f"{figures['fewest_handles']} to {figures['most_handles']}"
    sizes = f"{figures['resident_mb']:.0f}", f"{figures['mb_per_minute']:+.3f}"
    table.add_row(f"{figures['minutes']:.1f}", str(len(samples)), *sizes, handles)
    Console().print(table)
    machine = {"cpus": os.cpu_count(), "system": platform.platform()}
    return {**figures, "machine": machine, "versions": known_versions(("metarl-kit", "torch", "numpy", "mujoco"))}


def summary(samples: list[tuple[float, float, int]], warm_up: float) -> dict[str, Any]:
    """The figures of samples (minutes, MB, handles): the slope by least squares after `warm_up` minutes.

    >>> from metarl.scripts.benchmark_soak import summary
    >>> summary([(0.0, 90.0, 7), (1.0, 100.0, 8), (2.0, 102.0, 8)], warm_up=0.5)["mb_per_minute"]
    2.0
    """
    kept = [sample for sample in samples if sample[0] >= warm_up]
    if len(kept) < 2:
        raise UsageError("the run is too short to tell a slope: raise --minutes or lower --evaluate-every")
    minutes, sizes, handles = (np.array(column) for column in zip(*kept, strict=True))
    slope = float(np.polyfit(minutes, sizes, 1)[0])
    return {
        "mb_per_minute": round(slope, 4),
        "resident_mb": float(sizes[-1]),
        "fewest_handles": int(handles.min()),
        "most_handles": int(handles.max()),
        "samples": [{"minutes": m, "resident_mb": s, "handles": h} for m, s, h in kept],
    }


def _soak(arguments: Arguments, path: Path) -> list[tuple[float, float, int]]:
    """Trains and evaluates in turns until the time is over; a sample after each turn."""
    agent, env = arguments.agent, arguments.env
    config = preset(agent, env, arguments.preset) if arguments.preset else TrainConfig(agent, env)
    config = replace(config, iterations=10**9, steps=None, output=path)
    hours = arguments.evaluate_every / 60
    samples: list[tuple[float, float, int]] = []
    began = time.monotonic()
    train(config, progress=False, max_hours=hours)
    while True:
        opened = cast(AgentRun, load_run(path))
        evaluate(opened.agent, opened.distribution, num_tasks=10, episodes=10)
        del opened
        samples.append(((time.monotonic() - began) / 60, _resident() / MB, len(os.listdir("/proc/self/fd"))))
        if samples[-1][0] >= arguments.minutes:
            return samples
        resume(path, progress=False, max_hours=hours)


def _resident() -> int:
    """Bytes of memory that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
