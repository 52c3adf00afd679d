"""MuJoCo's callbacks, of which there is one of a kind in the process, set aside while an engine simulates."""

import ctypes
import threading
from collections.abc import Callable
from pathlib import Path

import mujoco


class SetAside:
    """While entered, MuJoCo neither writes its warnings nor reads the clock.

    Warnings would go to a log file in the user's folder; they show in `Physics.faults`. The clock is that of
    `mjData.timer`, which nobody sees here: it is read some fifty times in a simulated frame, and that takes 5 to 20 %
    of the time. Several engines may simulate at once: the first one in replaces the callbacks, the last one out
    restores them.

    >>> with SetAside():
    ...     mujoco.mj_step(model, data)
    """

    _lock = threading.Lock()
    _inside = 0
    _warn: Callable[[str], None] | None = None
    _clock: int | None = None

    def __enter__(self) -> None:
        with SetAside._lock:
            if not SetAside._inside:
                SetAside._warn = mujoco.get_mju_user_warning()
                mujoco.set_mju_user_warning(_ignore)
                SetAside._clock, _CLOCK.value = _CLOCK.value, None
            SetAside._inside += 1

    def __exit__(self, *_: object) -> None:
        with SetAside._lock:
            SetAside._inside -= 1
            if not SetAside._inside:
                mujoco.set_mju_user_warning(SetAside._warn)
                _CLOCK.value = SetAside._clock


def _ignore(message: str) -> None:
    """Does nothing: `faults` shows the warning."""


def _find_clock() -> ctypes.c_void_p:
    """`mjcb_time` of the C library. `mujoco.set_mjcb_time` cannot take away the one that the package itself sets."""
    for library in Path(mujoco.__file__).parent.glob("*mujoco.*"):
        try:
            return ctypes.c_void_p.in_dll(ctypes.CDLL(str(library)), "mjcb_time")
        except (OSError, ValueError):
            continue  # not a library, or one without the symbol
    return ctypes.c_void_p()  # the clock goes on


_CLOCK = _find_clock()
