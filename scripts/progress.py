"""Progress of a long benchmark, on stderr: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

INTERVAL = 5.0
"""Seconds between lines where stderr is no terminal."""


@contextmanager
def bar() -> Iterator[Callable[[str, int, int, str], None]]:
    """A function that shows what is being done, the step, how many there are, and a text."""
    console = Console(stderr=True)
    if not console.is_terminal:
        last = time.perf_counter()

        def line(title: str, step: int, total: int, text: str) -> None:
            nonlocal last
            if step == total or time.perf_counter() - last >= INTERVAL:
                print(f"{title}: step {step}/{total}  {text}", file=sys.stderr, flush=True)
                last = time.perf_counter()

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[text]}"), console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def move(title: str, step: int, total: int, text: str) -> None:
            if title not in tasks:
                tasks[title] = progress.add_task(title, total=total, text="")
            progress.update(tasks[title], completed=step, text=text)

        yield move
