"""Tasks, which are what differs between related environments, and sources of training tasks."""

import abc
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.errors import UsageError
from metarl.parsing import in_a_line, parse_json
from metarl.randomness import make_generator

SPLITS = ("train", "test")
_NUMBERS = ("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool")
DTYPES = {name: getattr(torch, name) for name in _NUMBERS}
"""The dtypes that task parameters may have, by name."""


@dataclass(frozen=True, eq=False)
class Tasks:
    """An immutable batch of `M` tasks: `parameters` maps each name to a tensor `[M, ...]`, one row per task.

    `ids` `[M]` (int64) are the indices of the tasks in a fixed list if they come from one (`TaskList`), so that an
    agent can store something for each task. Equality of tasks ignores them.

    >>> tasks = metarl.Tasks({"goal": torch.tensor([[0.1, 0.2], [0.3, 0.4]])})
    >>> len(tasks), tasks[0].parameters["goal"].shape
    (2, torch.Size([1, 2]))
    """

    parameters: Mapping[str, Tensor]
    ids: Tensor | None = None

    def __post_init__(self) -> None:
        # Copies, so that a caller who changes its tensors changes no task.
        parameters = {name: torch.as_tensor(value).clone() for name, value in self.parameters.items()}
        if not parameters:
            raise UsageError("a batch of tasks needs at least one parameter")
        lengths = {name: (value.shape[0] if value.ndim else None) for name, value in parameters.items()}
        if None in lengths.values() or len(set(lengths.values())) != 1:
            raise UsageError(f"all task parameters need the same leading size [M, ...], got {lengths}")
        object.__setattr__(self, "parameters", MappingProxyType(parameters))
        if self.ids is not None:
            ids = torch.as_tensor(self.ids, dtype=torch.int64).clone()
            if ids.shape != (len(self),):
                raise UsageError(f"{len(self)} tasks need as many ids, got shape {list(ids.shape)}")
            object.__setattr__(self, "ids", ids)

    def __reduce__(self) -> tuple:
        """Copies and pickles as its tensors: a mapping proxy does neither."""
        return Tasks, (dict(self.parameters), self.ids)

    def __len__(self) -> int:
        return int(next(iter(self.parameters.values())).shape[0])

    def __getitem__(self, index: Any) -> "Tasks":
        """Selects tasks by whole number (of Python, NumPy or torch), slice, list of numbers or boolean mask.

        A whole number gives a batch of one. Raises `IndexError` if it is out of range and `UsageError` for any other
        kind of index.
        """
        if not isinstance(index, slice):
            index = _task_index(index, len(self))
        ids = None if self.ids is None else self.ids[index]
        return Tasks({name: value[index] for name, value in self.parameters.items()}, ids)

    def __iter__(self) -> Iterator["Tasks"]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tasks) or self.parameters.keys() != other.parameters.keys():
            return False
        return all(
            value.dtype == other.parameters[name].dtype and torch.equal(value.cpu(), other.parameters[name].cpu())
            for name, value in self.parameters.items()
        )

    def to(self, device: torch.device | str) -> "Tasks":
        ids = None if self.ids is None else self.ids.to(device)
        return Tasks({name: value.to(device) for name, value in self.parameters.items()}, ids)

    def repeat_interleave(self, repeats: int) -> "Tasks":
        """Each task `repeats` times in a row: `[M, ...]` becomes `[M * repeats, ...]`, task-major."""
        ids = None if self.ids is None else self.ids.repeat_interleave(repeats)
        return Tasks({name: value.repeat_interleave(repeats, dim=0) for name, value in self.parameters.items()}, ids)

    def to_json(self) -> str:
        """JSON text that `from_json` reads back to equal tasks, with exact values and dtypes."""
        return json.dumps(
            {
                "parameters": {name: value.tolist() for name, value in self.parameters.items()},
                "dtypes": {name: str(value.dtype).removeprefix("torch.") for name, value in self.parameters.items()},
            }
        )

    @classmethod
    def from_json(cls, text: str | Mapping[str, Any]) -> "Tasks":
        """The tasks from `to_json`'s text, or from the mapping that it decodes to."""
        try:
            data = parse_json(text, "the text") if isinstance(text, str) else text
            dtypes = data.get("dtypes", {})
            parameters = {
                name: torch.tensor(value, dtype=DTYPES[dtypes[name]] if name in dtypes else None)
                for name, value in data["parameters"].items()
            }
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
            raise UsageError(f"not the JSON of tasks, {{'parameters': {{name: rows}}}}: {in_a_line(error)}") from None
        if not all(isinstance(name, str) and name.isprintable() for name in parameters):
            raise UsageError("not the JSON of tasks: a parameter's name has characters that cannot be shown")
        return cls(parameters)


class TaskSource(abc.ABC):
    """A source of training tasks. The agent chooses it (`Agent.task_source`).

    >>> class SameTask(metarl.TaskSource):
    ...     def draw(self, num_tasks, *, seed):
    ...         return metarl.make("PointNavigation-v0").task(goal=[0.3, 0.1]).repeat_interleave(num_tasks)
    >>> len(SameTask().draw(20, seed=0))
    20
    """

    @abc.abstractmethod
    def draw(self, num_tasks: int, *, seed: int) -> Tasks:
        """Draws the tasks of one iteration: a pure function of the source and the arguments."""


class FreshTasks(TaskSource):
    """New tasks in every iteration, drawn by `sample(num_tasks, seed=seed)`.

    >>> source = metarl.FreshTasks(metarl.make("PointNavigation-v0").sample)
    >>> source.draw(20, seed=1) == source.draw(20, seed=2)
    False
    """

    def __init__(self, sample: Callable[..., Tasks]):
        self._sample = sample

    def draw(self, num_tasks: int, *, seed: int) -> Tasks:
        return self._sample(num_tasks, seed=seed)


class TaskList(TaskSource):
    """A fixed list of tasks. Drawn tasks carry their indices in the list as `ids`.

    Within one draw, no task is repeated before each has been drawn once.

    >>> source = metarl.TaskList(metarl.make("PointNavigation-v0").sample(100, seed=0))
    >>> source.draw(20, seed=1).ids.shape
    torch.Size([20])
    """

    def __init__(self, tasks: Tasks):
        self.tasks = Tasks(tasks.parameters, torch.arange(len(tasks)))

    def draw(self, num_tasks: int, *, seed: int) -> Tasks:
        check_count("number of tasks", num_tasks)
        return draw_evenly(self.tasks, num_tasks, make_generator("task list", seed))


def draw_evenly(tasks: Tasks, count: int, generator: torch.Generator) -> Tasks:
    """`count` of `tasks` in random order; none comes twice before each has come once."""
    rounds = -(-count // len(tasks))
    order = torch.cat([torch.randperm(len(tasks), generator=generator) for _ in range(rounds)])
    return tasks[order[:count]]


def _task_index(index: Any, count: int) -> slice | Tensor:
    """`index` as something that selects rows of tensors `[M, ...]` and keeps their leading axis."""
    try:
        chosen = torch.as_tensor(index)
    except (TypeError, ValueError, RuntimeError):
        chosen = torch.zeros(0)
    if not chosen.numel() and isinstance(index, list | tuple):
        chosen = chosen.long()  # an empty list has no type of its own
    if chosen.ndim > 1 or chosen.dtype.is_floating_point or chosen.dtype.is_complex:
        raise UsageError(f"tasks are chosen by a whole number, a slice, a list of numbers or a mask, got {index!r}")
    if chosen.ndim == 0:
        if chosen.dtype == torch.bool:
            raise UsageError(f"a mask of tasks has one value for each of them, got {index!r}")
        place = int(chosen)
        if not -count <= place < count:
            raise IndexError(f"task {place} of {count}")
        return slice(place % count, place % count + 1)
    return chosen.long() if chosen.dtype not in (torch.bool, torch.int64) else chosen


def check_count(what: str, value: int) -> None:
    """Raises `UsageError` unless `value` is a whole number of at least one."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise UsageError(f"{what} must be a whole number of at least 1, got {value!r}")


def check_split(split: str) -> None:
    """Raises `UsageError` unless `split` is "train" or "test"."""
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}: choose from {', '.join(SPLITS)}")
