"""Ctrl-C and SIGTERM as exceptions that never split an atomic block."""

import shlex
import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Makes both signals raise `KeyboardInterrupt`: at once, or at the end of a `held` block.

    Signal handlers belong to the main thread: in other threads this has no effect.
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

    def held(self) -> "_Held":
        """Delays signals until the end of the block."""
        return _Held(self)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        if not self._holding:
            raise KeyboardInterrupt


class _Held:
    """The block of `Interrupts.held`. A generator would take a microsecond more in each step of a few-shot learner."""

    def __init__(self, interrupts: Interrupts):
        self._interrupts = interrupts

    def __enter__(self) -> None:
        self._interrupts._holding = True

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._interrupts._holding = False
        if kind is None and self._interrupts._came:
            raise KeyboardInterrupt


def say_how_to_go_on(run: Path, stopped: str) -> None:
    """Prints to stderr when a run was `stopped`, and the command to resume it."""
    print(f"stopped {stopped}; go on with: metarl resume {shlex.quote(str(run))}", file=sys.stderr)
