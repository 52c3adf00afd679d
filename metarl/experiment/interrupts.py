"""Ctrl-C and SIGTERM, raised between what must not be torn apart."""

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Makes both signals raise `KeyboardInterrupt`: at once, or at the end of a `held` block.

    Signal handlers belong to the main thread: in any other one nothing changes.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._holding = False
        self._came = False

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._interrupt) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal waits for the end of what is inside."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._came:
            raise KeyboardInterrupt

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        if not self._holding:
            raise KeyboardInterrupt


def say_how_to_go_on(run: Path, stopped: str) -> None:
    """Says on stderr where a run was `stopped` and the command that goes on with it."""
    print(f"stopped {stopped}; go on with: metarl resume {shlex.quote(str(run))}", file=sys.stderr)
