"""How many threads torch computes with: one, except where more pay.

The networks here are small, and the physics has its own threads. On small tensors a second thread gains nothing on an
idle machine, and beside other work it costs most of the speed: OpenMP's threads wait for each other at the end of every
operation, busily, also while one of them is not scheduled.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from metarl.tasks import check_count

LARGE = 1_000_000
"""Numbers in one operand from which more threads pay."""
_scopes: list[bool] = []
"""The scopes that are open, innermost last: whether the number of threads was chosen by the user."""


@contextmanager
def torch_threads(count: int | None = None) -> Iterator[None]:
    """Inside, torch computes with `count` threads, or with one; afterwards, with as many as before.

    A scope without `count` inside another one changes nothing. Raises `UsageError` for a count below one.

    >>> from metarl.threads import torch_threads
    >>> with torch_threads():
    ...     torch.get_num_threads()
    1
    """
    if count is not None:
        check_count("threads", count)
    before = torch.get_num_threads()
    if count is not None or not _scopes:
        torch.set_num_threads(count or 1)
    _scopes.append(count is not None)
    try:
        yield
    finally:
        _scopes.pop()
        torch.set_num_threads(before)


@contextmanager
def more_threads(numbers: int) -> Iterator[None]:
    """Inside, torch uses all CPUs of this process if operands are `LARGE`, unless the user has chosen the threads.

    `numbers` is the size of a typical operand.

    >>> from metarl.threads import more_threads, torch_threads
    >>> with torch_threads(), more_threads(1000):
    ...     torch.get_num_threads()
    1
    """
    if any(_scopes) or numbers < LARGE:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
