"""One process at a time trains a run folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from metarl.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Raises `UsageError` if another process, or this one, is training `run`. The lock ends with the process.

    A file system without locks, as some networks have, is used without one.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{run} is being trained by another process: wait for its end, or stop it") from None
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)
