"""Blocks of tasks that are worked on one after the other, or on several threads at once."""

from collections.abc import Callable
from typing import TypeVar

import torch

from metarl.threads import in_threads

CACHED = 2**18
"""Numbers of one intermediate result that a core's cache holds, together with what is computed from them."""
Result = TypeVar("Result")


def task_blocks(num_tasks: int, numbers: int, device: torch.device) -> list[slice]:
    """The tasks in blocks of at least one, with at most `CACHED` numbers where tasks are small enough for that.

    `numbers` is the size of the largest intermediate result for all tasks. Passes over memory that is in no cache cost
    more than the matrix products of small networks. A GPU works best on all tasks at once: there is one block.

    >>> from metarl.nn.blocks import task_blocks
    >>> task_blocks(5, 5 * 100_000, torch.device("cpu"))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    size = num_tasks if device.type != "cpu" else max(1, CACHED * num_tasks // max(numbers, 1))
    return [slice(start, min(start + size, num_tasks)) for start in range(0, num_tasks, size)]


def in_blocks(function: Callable[[slice], Result], num_tasks: int, numbers: int, device: torch.device) -> list[Result]:
    """`function` of each of the `task_blocks`, by `metarl.threads.in_threads`."""
    return in_threads(function, task_blocks(num_tasks, numbers, device), numbers)
