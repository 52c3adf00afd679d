"""How many threads torch computes with: one, except where more pay.

The networks here are small, and the physics has its own threads. On small tensors a second thread gains nothing on an
idle machine, and beside other work it costs most of the speed: OpenMP's threads wait for each other at the end of every
operation, busily, also while one of them is not scheduled.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

from metarl.tasks import check_count

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGE = 1_000_000
"""Numbers in one operand from which more threads pay."""
_scopes: list[tuple[int, bool]] = []
"""The scopes that are open, outermost first: the threads before it, and whether the user chose those inside."""


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
    threads = count or (before if _scopes else 1)
    _scopes.append((before, count is not None))
    try:
        with _threads(threads):
            yield
    finally:
        _scopes.pop()


@contextmanager
def more_threads(numbers: int) -> Iterator[None]:
    """Inside, if operands are `LARGE`, torch computes with as many threads as it has outside of all scopes.

    That is its own number, or what the user set by `OMP_NUM_THREADS` or `torch.set_num_threads`. If the user chose the
    number of a scope, it stays. `numbers` is the size of a typical operand.

    >>> from metarl.threads import more_threads, torch_threads
    >>> with torch_threads(), more_threads(1000):
    ...     torch.get_num_threads()
    1
    """
    if numbers < LARGE or not _scopes or any(chosen for _, chosen in _scopes):
        yield
    else:
        with _threads(_scopes[0][0]):
            yield


def in_threads(function: Callable[[Item], Result], items: Sequence[Item], size: int) -> list[Result]:
    """`[function(item) for item in items]`, on as many threads at once as torch has in `more_threads(size)`.

    Each of them computes with one thread of torch's: they wait for each other at the end alone, and not busily. So this
    is better than `more_threads` wherever work falls into independent parts, and parts can be small enough to stay in a
    core's cache. The results do not depend on the number of threads. Gradients are recorded if the caller's are.

    >>> from metarl.threads import in_threads
    >>> in_threads(torch.linalg.norm, [torch.ones(4), torch.ones(9)], size=13)
    [tensor(2.), tensor(3.)]
    """
    with more_threads(size):
        workers = min(torch.get_num_threads(), len(items)) if size >= LARGE else 1
        if workers <= 1:
            return [function(item) for item in items]
    with _threads(1), ThreadPoolExecutor(workers - 1) as pool:
        return by_turns(function, items, pool, workers - 1)


def by_turns(function: Callable[[Item], Result], items: Sequence[Item], pool: Executor, helpers: int) -> list[Result]:
    """`[function(item) for item in items]`: this thread and `helpers` of the pool's take one item after the other.

    This thread works, too, because beside busy processes the others may not be scheduled for a while. Returns, or
    raises what one of them has raised, when all have stopped. Gradients are recorded if the caller's are.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from metarl.threads import by_turns
    >>> with ThreadPoolExecutor(1) as pool:
    ...     by_turns(abs, [-1, 2, -3], pool, helpers=1)
    [1, 2, 3]
    """
    recorded, numbers, results = torch.is_grad_enabled(), iter(range(len(items))), dict[int, Result]()

    def work() -> None:
        with torch.set_grad_enabled(recorded):  # each thread has its own mode
            while (number := next(numbers, None)) is not None:  # `next` is atomic
                results[number] = function(items[number])

    others = [pool.submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        wait(others)
    for other in others:
        other.result()
    return [results[number] for number in range(len(items))]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
