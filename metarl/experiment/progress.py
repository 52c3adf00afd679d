"""Progress on stderr: a live display on a terminal, plain lines elsewhere."""

import math
import sys
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_INTERVAL = 5.0
"""Seconds between plain lines."""


class Progress:
    """Shows the share of some work that is done. `done` is the share at the beginning."""

    def __init__(self, title: str, *, done: float = 0.0, enabled: bool = True):
        self._title = title
        self._done = done
        self._began = time.perf_counter()
        self._last_line = -math.inf
        self._pending: str | None = None
        console = Console(stderr=True)
        self._plain = enabled and not console.is_terminal
        # Redirecting would send the output of other code through rich.
        self._live = Live(console=console, redirect_stdout=False, redirect_stderr=False, refresh_per_second=4)
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

    def update(self, done: float, text: str, details: str = "") -> None:
        """Shows the share `done` with `text`, and on a terminal `details` below it."""
        elapsed = time.perf_counter() - self._began
        left = _duration(elapsed * (1 - done) / (done - self._done))
        if self._live_enabled:
            self._live.update(self._picture(done, left, text, details))
        elif self._plain:
            self._pending = f"{text}  {left} left"
            if time.perf_counter() - self._last_line >= PLAIN_INTERVAL:
                print(self._pending, file=sys.stderr, flush=True)
                self._last_line, self._pending = time.perf_counter(), None

    def _picture(self, done: float, left: str, text: str, details: str) -> Group:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(self._title, ProgressBar(total=1.0, completed=done, width=30), f"{done:4.0%}", f"[cyan]{left} left")
        return Group(bar, Text(text), Text(details, style="dim"))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
