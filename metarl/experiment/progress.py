"""Progress on stderr: a live display on a terminal, plain lines elsewhere."""

import contextlib
import math
import os
import sys
import time
from types import TracebackType
from typing import Any, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_INTERVAL = 5.0
"""Seconds between plain lines."""
_LONGEST = 10_000


class Progress:
    """Shows the share of some work that is done. `done` is the share at the beginning."""

    def __init__(self, title: str, *, done: float = 0.0, enabled: bool = True):
        self._title = title
        self._done = done
        self._began = time.perf_counter()
        self._last_line = -math.inf
        self._pending: str | None = None
        console = Console(file=sys.stderr)
        self._plain = enabled and not console.is_terminal
        # Rich's own redirecting would read markup in the output of other code.
        self._live = Live(console=console, redirect_stdout=False, redirect_stderr=False, refresh_per_second=4)
        self._live_enabled = enabled and console.is_terminal
        self._redirected = contextlib.ExitStack()

    def __enter__(self) -> "Progress":
        if self._live_enabled:
            console, out, errors = self._live.console, sys.stdout, sys.stderr
            self._live.start()
            self._redirected.enter_context(contextlib.redirect_stderr(cast(TextIO, _Above(console, errors))))
            if _is_one_file(out, errors):
                self._redirected.enter_context(contextlib.redirect_stdout(cast(TextIO, _Above(console, out))))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._live_enabled:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, _Above):
                    stream.close_line()
            self._redirected.close()
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


class _Above:
    """A stream whose lines stay above the live display, which would write over what goes to `file` directly."""

    def __init__(self, console: Console, file: TextIO):
        self._console, self._file = console, file
        self._rest = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        lines, end, rest = (self._rest + text).rpartition("\n")
        self._rest = rest[-_LONGEST:]  # a bar of another library never ends its line
        if end:
            self._console.print(lines, markup=False, emoji=False, highlight=False, soft_wrap=True)
        return len(text)

    def close_line(self) -> None:
        """Shows a last line without an end."""
        if self._rest:
            self.write("\n")


def _is_one_file(one: TextIO, other: TextIO) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a stream of memory has no file
        return os.path.sameopenfile(one.fileno(), other.fileno())
    return False


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
