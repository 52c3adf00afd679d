"""A replay buffer of many tasks: a batch of rows of each of several tasks is one gather."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl.errors import UsageError
from metarl.replay import ReplayBuffer
from metarl.tasks import check_count

TASK = "task"
"""The field that holds the task of each row."""


class TaskReplay:
    """The last `capacity` transitions of `num_tasks` tasks together, in one `ReplayBuffer`.

    The buffer has the further field `task`, so a run folder stores it as one stream of rows. An index, made anew when
    rows have been added, lists the rows of each task from the oldest to the newest: sampling `n` rows of each of `m`
    tasks is one gather per field, without a loop over tasks.

    >>> from metarl.task_replay import TaskReplay
    >>> replay = TaskReplay(capacity=1000, num_tasks=3)
    >>> replay.append(torch.tensor([0, 0, 2]), {"rewards": torch.tensor([1.0, 2.0, 3.0])})
    >>> replay.counts()
    tensor([2, 0, 1])
    >>> newest = replay.sample(torch.tensor([2, 0]), 2, torch.Generator(), recent=1)
    >>> newest["rewards"]
    tensor([[3., 3.],
            [2., 2.]])
    """

    def __init__(self, capacity: int, num_tasks: int, device: torch.device | str = "cpu"):
        check_count("num_tasks", num_tasks)
        self.num_tasks = num_tasks
        self.buffer = ReplayBuffer(capacity, device)
        self._indexed = -1
        """The rows ever appended when the index was made."""

    def append(self, tasks: Int[Tensor, "n"], rows: Mapping[str, Tensor]) -> None:
        """Appends rows, each tensor `[n, ...]`, of the `tasks` with these numbers, and drops the oldest if full."""
        if tasks.device.type == "cpu" and bool(((tasks < 0) | (tasks >= self.num_tasks)).any()):
            raise UsageError(f"tasks of this buffer are 0 to {self.num_tasks - 1}, got {tasks.unique().tolist()}")
        self.buffer.append({**rows, TASK: tasks})

    def counts(self) -> Int[Tensor, "K"]:
        """The number of rows of each task."""
        self._index()
        return self._counts

    def sample(
        self,
        tasks: Int[Tensor, "m"],
        count: int,
        generator: torch.Generator,
        *,
        recent: int | None = None,
        part: slice = slice(None),
    ) -> dict[str, Tensor]:
        """Draws `count` rows of each of `tasks`, uniformly with replacement, as tensors `[m, count, ...]`.

        Returns those of a `part` of the tasks, if that is asked for; the numbers are drawn for all.

        With `recent`, rows come from the last `recent` ones of their task. Raises `UsageError` for a task without rows
        (a GPU does not wait to see).
        """
        self._index()
        numbers, tasks = len(tasks), tasks[part]
        sizes = self._counts[tasks]
        if sizes.device.type == "cpu" and not bool(sizes.all()):
            raise UsageError(f"task {int(tasks[sizes == 0][0])} has no rows yet: append some before sampling")
        window = (sizes if recent is None else sizes.clamp(max=recent))[:, None]
        share: Float[Tensor, "m n"] = torch.rand(
            numbers, count, generator=generator, device=generator.device, dtype=torch.float64
        )[part]
        age = (share * window).long().minimum(window - 1)
        rows = self.buffer.at(self._numbers[self._ends[tasks][:, None] - 1 - age])
        del rows[TASK]
        return rows

    def _index(self) -> None:
        """Lists the row numbers of each task, oldest first, unless nothing has changed since the last time."""
        buffer = self.buffer
        if self._indexed == buffer.count:
            return
        numbers = torch.arange(buffer.count - len(buffer), buffer.count, device=buffer.device)
        tasks = buffer.at(numbers, TASK)[TASK] if len(buffer) else numbers
        self._numbers = numbers[tasks.argsort(stable=True)]
        self._counts = torch.bincount(tasks, minlength=self.num_tasks)
        self._ends = self._counts.cumsum(0)
        self._indexed = buffer.count
