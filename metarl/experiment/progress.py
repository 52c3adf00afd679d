"""How far training has come, on stderr: a live display on a terminal, plain lines elsewhere."""

import math
import sys
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from metarl.experiment.config import TrainConfig
from metarl.experiment.metrics import Row

PLAIN_INTERVAL = 5.0
"""Seconds between plain lines."""
_ALWAYS_SHOWN = {"iteration", "env_steps", "wall_seconds", "steps_per_second", "return_mean"}


class Progress:
    """Shows each row of metrics. `done` is the share of the run that was done when it began."""

    def __init__(self, config: TrainConfig, done: float, *, enabled: bool = True):
        self._config = config
        self._done = done
        self._began = time.perf_counter()
        self._last_line = -math.inf
        self._pending: str | None = None
        console = Console(stderr=True)
        self._plain = enabled and not console.is_terminal
        # Redirecting would turn what others print into what rich prints.
        self._live = Live(console=console, redirect_stdout=False, redirect_stderr=False, refresh_per_second=8)
        self._live_enabled = enabled and console.is_terminal

    def __enter__(self) -> "Progress":
        if self._live_enabled:
            self._live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._live_enabled:
            self._live.stop()
        if self._pending is not None:
            print(self._pending, file=sys.stderr, flush=True)

    def update(self, row: Row) -> None:
        done = min(1.0, self._config.reached(row["iteration"], row["env_steps"]))
        elapsed = time.perf_counter() - self._began
        left = elapsed * (1 - done) / (done - self._done)
        if self._live_enabled:
            self._live.update(self._picture(row, done, left))
        elif self._plain:
            self._pending = self._line(row, left)
            if time.perf_counter() - self._last_line >= PLAIN_INTERVAL:
                print(self._pending, file=sys.stderr, flush=True)
                self._last_line, self._pending = time.perf_counter(), None

    def _line(self, row: Row, left: float) -> str:
        return (
            f"iteration {self._count(row)}  env steps {row['env_steps']:,}  return {row['return_mean']:.2f}  "
            f"{row['steps_per_second']:,.0f} steps/s  {_duration(left)} left"
        )

    def _picture(self, row: Row, done: float, left: float) -> Group:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            f"{self._config.agent} on {self._config.env}",
            ProgressBar(total=1.0, completed=done, width=30),
            f"{done:4.0%}",
            f"[cyan]{_duration(left)} left",
        )
        more = [f"{name} {value:.4g}" for name, value in row.items() if name not in _ALWAYS_SHOWN]
        return Group(bar, Text(self._line(row, left).rsplit("  ", 1)[0]), Text("  ".join(more), style="dim"))

    def _count(self, row: Row) -> str:
        bound = self._config.iterations
        return str(row["iteration"]) if bound is None else f"{row['iteration']}/{bound}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
