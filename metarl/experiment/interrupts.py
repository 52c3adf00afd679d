"""Ctrl-C and SIGTERM as exceptions that never split an atomic block, and that no long computation can hold up."""

import multiprocessing
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130
"""Exit code of a process that was interrupted."""
GRACE = 5.0
"""Seconds from a signal to the end of the block, after which the process ends by other means."""
SAVING = 30.0
"""Seconds for the last resort."""


class Interrupts:
    """Makes both signals raise `KeyboardInterrupt`: at once, or at the end of a `held` block.

    Python runs signal handlers between two of its own operations: one long solve in C delays them for as long. With
    `last_resort`, a thread waits for the signal too. If the block has not ended `GRACE` seconds after it, the thread
    calls `last_resort` and ends the process. It needs Python's lock, which torch, NumPy, MuJoCo and pipes release while
    they work; code that keeps it delays the thread as well.

    Signal handlers belong to the main thread: in other threads this has no effect.
    """

    def __init__(self, last_resort: Callable[[], None] | None = None) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._holding = False
        self._came = False
        self._last_resort = last_resort
        self._waker: _Waker | None = None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            if self._last_resort is not None:
                self._waker = _Waker(self._last_resort)
            self._before = {number: signal.signal(number, self._interrupt) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._waker is not None:
            self._waker.close()

    def held(self) -> "_Held":
        """Delays signals until the end of the block."""
        return _Held(self)

    def answered(self) -> None:
        """Says that the signal was heard and what follows ends by itself: the last resort is not needed."""
        if self._waker is not None:
            self._waker.answered.set()

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


class _Waker:
    """A thread that learns of a signal as soon as it comes: the interpreter then writes its number to a socket."""

    def __init__(self, last_resort: Callable[[], None]):
        self.answered = threading.Event()
        self._last_resort = last_resort
        self._near, self._far = socket.socketpair()
        self._far.setblocking(False)
        self._before = signal.set_wakeup_fd(self._far.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._wait, name="metarl interrupts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.answered.set()
        signal.set_wakeup_fd(self._before)
        self._far.close()  # which ends the thread's wait
        self._thread.join()
        self._near.close()

    def _wait(self) -> None:
        while number := self._near.recv(1):
            if number[0] in SIGNALS and not self.answered.wait(GRACE):
                self._end()

    def _end(self) -> None:
        """Calls the last resort, and ends the process even if that does not end."""
        saver = threading.Thread(target=self._last_resort, daemon=True)
        saver.start()
        saver.join(SAVING)
        for child in multiprocessing.active_children():
            child.kill()
        sys.stderr.flush()
        os._exit(INTERRUPTED)


def say_how_to_go_on(run: Path, stopped: str) -> None:
    """Prints to stderr when a run was `stopped`, and the command to resume it."""
    print(f"stopped {stopped}; go on with: metarl resume {shlex.quote(str(run))}", file=sys.stderr)
