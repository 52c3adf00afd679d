"""The parameters of a family's tasks in one spelling: ranges, lists of values, whole tasks, splits, a sampler."""

import inspect
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from metarl.errors import UsageError
from metarl.task_spaces import (
    INTEGERS,
    Choice,
    bounds,
    decode,
    describe,
    encode,
    exact_text,
    grid,
    is_bounded,
    is_number,
    num_values,
    outside,
    row_key,
    uniform,
)
from metarl.tasks import SPLITS, Tasks, draw_evenly

Sampler: TypeAlias = Callable[[np.random.Generator, str], Mapping[str, Any]]
"""`sample(rng, split)` gives the values of one task by name, drawn from `rng` alone."""

Parameters: TypeAlias = Mapping[Any, Any] | Sequence[Any]
"""What `TaskParameters` takes, and checks: spellings by name, or whole tasks."""

MOST_LISTED = 10_000
"""The most combinations of independent parameters that are listed one by one."""
STORED = tuple(map(np.dtype, ("float32", "float64", "int64", "int32", "int16", "int8", "uint8")))
"""The dtypes that tensors compute with."""
WANTED = (
    "want a range (low, high), a list of values, a range() of whole numbers, a bounded space of Gymnasium, "
    "a metarl.LogUniform or {'train': ..., 'test': ...}"
)


class TaskParameters(Mapping[str, gym.Space]):
    """Name and space of each task parameter, and how tasks of both splits are drawn: a family's `task_space`.

    `parameters` maps a name to one of these:

    - `(low, high)`: a real number (float64), uniform in the range, whether the bounds are written as 1 or as 1.0;
    - `[0.5, 1.0, 2.0]`: one of these values, which may be numbers, arrays of one shape, truth values or names;
    - `range(1, 5)`: a whole number, here from 1 to 4;
    - a bounded `Box`, uniform; `Discrete`, `MultiDiscrete`, `MultiBinary`; `metarl.LogUniform(low, high)`;
    - `{"train": …, "test": …}`: one of the above for each split, of the same kind on both sides.

    Instead, `parameters` may list whole tasks: `[{"x": 1, "y": 2}, …]`, or `{"train": [{…}, …], "test": [{…}, …]}`.

    Independent parameters without a continuous range have finitely many combinations. Up to 10,000 of them are listed
    (`all_tasks`) in the order of `itertools.product`, as whole tasks are, and `sample` repeats none before each has
    come once. If both splits then have tasks in common without your saying so, a `UserWarning` tells you.

    `sample(rng, split)`, a function of your own, draws the values of one task instead, as a dict; `parameters` then
    gives the values that are allowed, and bounds may be infinite. It is called twice here to see that it is a function
    of its generator. Raises `UsageError`, one line that names the parameter, for anything else.

    >>> space = metarl.TaskParameters({"planet": {"train": ["moon", "earth"], "test": ["mars"]}, "gravity": (5, 15)})
    >>> space["planet"], space["gravity"].dtype
    (Choice(['moon', 'earth', 'mars']), dtype('float64'))
    >>> space.sample(3, "test", torch.Generator().manual_seed(0))["planet"]
    tensor([2, 2, 2])
    """

    def __init__(self, parameters: Parameters, *, sample: Sampler | None = None):
        if not isinstance(parameters, (Mapping, list, tuple)):
            raise UsageError(f"task parameters: want a dict of names or a list of tasks, got {parameters!r}")
        if not parameters:
            raise UsageError("a family needs at least one task parameter")
        self._sampler = sample
        # By split: the space of each parameter, and the listed tasks if they can be listed.
        self._sides: Mapping[str, Mapping[str, gym.Space]]
        self._tables: Mapping[str, Tasks] | None
        whole = _whole_tasks(parameters)
        self._whole = whole is not None
        if whole is not None:
            self._spaces, self._tables = _read_whole_tasks(whole)
            self._sides = dict.fromkeys(SPLITS, self._spaces)
            separate = isinstance(parameters, Mapping)
        else:
            given = {_checked_name(name): value for name, value in dict(parameters).items()}
            pairs = {name: _read_parameter(name, value, sample is None) for name, value in given.items()}
            self._sides = {split: {name: pair[i] for name, pair in pairs.items()} for i, split in enumerate(SPLITS)}
            self._spaces = {name: _union(name, *pair) for name, pair in pairs.items()}
            self._rows = {split: self._choice_rows(split) for split in SPLITS}
            self._tables = self._products()
            separate = any(_is_split(value) for value in given.values())
        self._listed = {split: set(_keys(tasks, list(self))) for split, tasks in (self._tables or {}).items()}
        if sample is not None:
            self._try_sampler(sample)
        elif self._tables is not None:
            self._warn_of_shared_tasks(separate)

    @classmethod
    def of(cls, parameters: Parameters, *, sample: Sampler | None = None) -> "TaskParameters":
        """`parameters` itself if it is a `TaskParameters` already."""
        if not isinstance(parameters, cls):
            return cls(parameters, sample=sample)
        if sample is not None:
            raise UsageError("give sample= to TaskParameters, together with its parameters")
        return parameters

    def __getitem__(self, name: str) -> gym.Space:
        return self._spaces[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._spaces)

    def __len__(self) -> int:
        return len(self._spaces)

    def __repr__(self) -> str:
        """A text that differs if what is drawn differs: both splits, whole tasks, the sampler's name."""
        shown: Any = {}
        if self._whole and self._tables is not None:
            shown = {split: decode_tasks(self, tasks) for split, tasks in self._tables.items()}
        else:
            for name in self:
                train, test = (exact_text(self._sides[split][name]) for split in SPLITS)
                shown[name] = train if train == test else {"train": train, "test": test}
        sampler = getattr(self._sampler, "__qualname__", type(self._sampler).__qualname__)
        return f"TaskParameters({shown}" + (")" if self._sampler is None else f", sample={sampler})")

    def sample(self, num_tasks: int, split: str, generator: torch.Generator) -> Mapping[str, Tensor]:
        """The parameters of `num_tasks` tasks of `split`, each `[num_tasks, ...]`, drawn with `generator` alone."""
        if self._sampler is not None:
            rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))
            rows = [self._read_sample(self._sampler(rng, split), split) for _ in range(num_tasks)]
            return {name: torch.as_tensor(np.stack([row[name] for row in rows])) for name in self}
        if self._tables is not None:
            return draw_evenly(self._tables[split], num_tasks, generator).parameters
        return {name: self._draw(name, num_tasks, split, generator) for name in self}

    def spaces(self, split: str) -> Mapping[str, gym.Space]:
        """The space of each parameter in `split` alone."""
        return self._sides[split]

    def all_tasks(self, split: str) -> Tasks | None:
        """Every task of `split` in a fixed order; None if they are not listed or a sampler draws them."""
        return None if self._tables is None or self._sampler is not None else self._tables[split]

    def check(self, tasks: Tasks) -> None:
        """Raises `UsageError` for a task that is not in the list, if whole tasks are listed.

        `TaskDistribution.validate` has compared each parameter with its space before.
        """
        if not self._whole:
            return
        listed = set().union(*self._listed.values())
        for task, key in enumerate(_keys(tasks, list(self))):
            if key not in listed:
                raise UsageError(f"{decode_tasks(self, tasks[task])[0]} is none of the {len(listed)} listed tasks")

    def _choice_rows(self, split: str) -> dict[str, np.ndarray]:
        """The values of each `Choice` of `split` as `Tasks` store them, `[n, ...]`."""
        choices = {name: side for name, side in self._sides[split].items() if isinstance(side, Choice)}
        return {name: np.stack([encode(self[name], v) for v in side.values]) for name, side in choices.items()}

    def _products(self) -> dict[str, Tasks] | None:
        """All combinations of both splits; None if there are infinitely or too many."""
        counts = {split: [num_values(space) for space in side.values()] for split, side in self._sides.items()}
        if any(math.prod(sizes) > MOST_LISTED for sizes in counts.values()):
            return None
        tables = {}
        for split, side in self._sides.items():
            rows = self._rows[split]
            columns = {name: rows[name] if name in rows else grid(space) for name, space in side.items()}
            chosen = np.array(list(itertools.product(*(range(len(column)) for column in columns.values()))))
            tables[split] = Tasks({n: torch.as_tensor(v[chosen[:, i]]) for i, (n, v) in enumerate(columns.items())})
        return tables

    def _draw(self, name: str, count: int, split: str, generator: torch.Generator) -> Tensor:
        if name not in self._rows[split]:
            return uniform(self._sides[split][name], count, generator)
        rows = torch.as_tensor(self._rows[split][name])
        return rows[torch.randint(len(rows), (count,), generator=generator)]

    def _read_sample(self, drawn: Any, split: str) -> dict[str, np.ndarray]:
        """What the sampler returned as a row of `Tasks`; raises `UsageError` for what `split` does not have."""
        if not isinstance(drawn, Mapping) or drawn.keys() != self.keys():
            raise UsageError(f"sample: want a dict with the task parameters {', '.join(self)}, got {drawn!r}")
        rows = {}
        for name in self:
            side, value = self._sides[split][name], drawn[name]
            try:
                row = encode(side, value)
            except UsageError as error:
                raise UsageError(f"sample: {split} task parameter {name!r}: {error}") from None
            if row.shape != side.shape or outside(side, row[None]) is not None:
                raise UsageError(f"sample: {split} task parameter {name!r}: want {describe(side)}, got {value!r}")
            rows[name] = encode(self[name], value)
        if self._whole and tuple(map(row_key, rows.values())) not in self._listed[split]:
            raise UsageError(f"sample: {drawn!r} is none of the listed {split} tasks")
        return rows

    def _try_sampler(self, sample: Sampler) -> None:
        """Raises `UsageError` if the sampler's tasks are not valid or not a function of its generator."""
        try:
            inspect.signature(sample).bind(None, "train")
        except TypeError:
            raise UsageError("sample: want a function that is called as sample(rng, split)") from None
        except ValueError:  # a built-in that does not tell its signature
            pass
        for split in SPLITS:
            once, again = (self.sample(2, split, torch.Generator().manual_seed(0)) for _ in range(2))
            if Tasks(once) != Tasks(again):
                raise UsageError("sample: gives other tasks for the same seed: draw from the generator it is given")

    def _warn_of_shared_tasks(self, separate: bool) -> None:
        """Warns of test tasks that are training tasks, unless both splits are written out and are the same."""
        train, test = (self._listed[split] for split in SPLITS)
        if not train & test or (separate and train == test):
            return
        warnings.warn(
            f"{len(train & test)} of {len(test)} test tasks ({', '.join(self)}) are training tasks too: write "
            "{'train': [...], 'test': [...]} with other values for test, or with equal ones if that is meant",
            stacklevel=3,
        )


def decode_tasks(spaces: Mapping[str, gym.Space], tasks: Tasks) -> list[dict[str, Any]]:
    """The values of each task as users and JSON write them: names, numbers, and lists for arrays."""
    columns = {name: value.cpu().numpy() for name, value in tasks.parameters.items()}
    rows = [decode(spaces, {name: column[i] for name, column in columns.items()}) for i in range(len(tasks))]
    return [{n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in row.items()} for row in rows]


def _keys(tasks: Tasks, names: list[str]) -> list[tuple]:
    """Each task as a hashable value."""
    columns = [[row_key(row) for row in tasks.parameters[name].cpu().numpy()] for name in names]
    return list(zip(*columns, strict=True))


def _whole_tasks(parameters: Any) -> dict[str, Sequence[Any]] | None:
    """The lists of tasks of both splits; None if `parameters` maps names to values."""
    if not isinstance(parameters, Mapping):
        return dict.fromkeys(SPLITS, parameters)
    lists = [value for value in parameters.values() if isinstance(value, (list, tuple))]
    holds_tasks = any(isinstance(task, Mapping) for value in lists for task in value)
    if not holds_tasks:
        if set(parameters) == set(SPLITS):
            raise UsageError(
                "'train' and 'test' are splits, not parameters: write {'name': {'train': ..., 'test': ...}}"
            )
        return None
    if set(parameters) != set(SPLITS) or len(lists) != len(SPLITS):
        raise UsageError(
            f"lists of tasks: want {{'train': [...], 'test': [...]}}, got the keys {', '.join(map(str, parameters))}"
        )
    return dict(parameters)


def _read_whole_tasks(lists: Mapping[str, Sequence[Any]]) -> tuple[dict[str, gym.Space], dict[str, Tasks]]:
    """The space of each parameter of listed tasks, and the tasks of each split."""
    for split, tasks in lists.items():
        if not tasks:
            raise UsageError(f"the list of {split} tasks is empty")
    every = [task for split in SPLITS for task in lists[split]]
    for task in every:
        if not isinstance(task, Mapping) or not task:
            raise UsageError(f"a list of tasks: want a dict of values for each, such as {{'x': 1}}, got {task!r}")
        if task.keys() != every[0].keys():
            raise UsageError(f"a list of tasks: want the same names in each, got {list(every[0])} and {list(task)}")
    spaces: dict[str, gym.Space] = {}
    for name in every[0]:
        spaces[_checked_name(name)] = _choice(name, [task[name] for task in every])
    tables = {}
    for split in SPLITS:
        columns = {name: [encode(space, task[name]) for task in lists[split]] for name, space in spaces.items()}
        tables[split] = Tasks({name: torch.as_tensor(np.stack(column)) for name, column in columns.items()})
        keys = _keys(tables[split], list(spaces))
        if len(set(keys)) < len(keys):
            twice = next(task for task, key in zip(lists[split], keys, strict=True) if keys.count(key) > 1)
            raise UsageError(f"a list of tasks: the {split} task {twice!r} is listed twice")
    return spaces, tables


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise UsageError(f"task parameters have names, got {name!r}")
    return name


def _is_split(value: Any) -> bool:
    return isinstance(value, Mapping) and not isinstance(value, gym.Space)


def _read_parameter(name: str, value: Any, bounded: bool) -> tuple[gym.Space, gym.Space]:
    """The spaces of the parameter in train and in test."""
    if not _is_split(value):
        space = _read_space(name, value, bounded)
        return space, space
    if set(value) != set(SPLITS):
        raise UsageError(f"task parameter {name!r}: the splits are train and test, got {', '.join(map(str, value))}")
    train, test = (_read_space(name, value[split], bounded) for split in SPLITS)
    return train, test


def _read_space(name: str, value: Any, bounded: bool) -> gym.Space:
    if isinstance(value, Choice | INTEGERS | gym.spaces.Box):
        return _checked_space(name, value, value, bounded)
    if isinstance(value, tuple):
        if len(value) != 2 or not all(map(is_number, value)):
            raise UsageError(f"task parameter {name!r}: want two numbers (low, high) or a list [...], got {value!r}")
        try:
            low, high = map(float, value)
        except OverflowError:
            raise UsageError(f"task parameter {name!r}: want finite bounds low <= high, got {value!r}") from None
        if not low <= high:  # False for NaN
            raise UsageError(f"task parameter {name!r}: want low <= high, got {value!r}")
        return _checked_space(name, gym.spaces.Box(low, high, (), np.float64), value, bounded)
    if isinstance(value, range):
        return _read_whole_numbers(name, value)
    if isinstance(value, list) or (isinstance(value, (np.ndarray, Tensor)) and value.ndim):
        return _choice(name, list(value), distinct=True)
    if callable(value):
        raise UsageError(f"task parameter {name!r}: write the range here and give the function as sample=")
    if isinstance(value, (set, frozenset)):
        raise UsageError(f"task parameter {name!r}: a set has no order, write a list")
    raise UsageError(f"task parameter {name!r}: {WANTED}, got {value!r}")


def _read_whole_numbers(name: str, numbers: range) -> gym.Space:
    if numbers and max(abs(numbers[0]), abs(numbers[-1])) >= 2**62:
        raise UsageError(f"task parameter {name!r}: want whole numbers below 2**62, got {numbers!r}")
    if numbers and numbers.step == 1:
        return gym.spaces.Discrete(len(numbers), start=numbers.start)
    if len(numbers) > MOST_LISTED:
        raise UsageError(f"task parameter {name!r}: want at most {MOST_LISTED} numbers with steps, got {numbers!r}")
    return _choice(name, list(numbers))


def _choice(name: str, values: list[Any], distinct: bool = False) -> Choice:
    try:
        choice = Choice(values)
    except UsageError as error:
        raise UsageError(f"task parameter {name!r}: {error}") from None
    if distinct and len(choice.values) < len(values):
        raise UsageError(f"task parameter {name!r}: a value is listed twice in {values!r}")
    return choice


def _checked_space(name: str, space: gym.Space, given: Any, bounded: bool) -> gym.Space:
    """`space`, if its values can be drawn and stored in a tensor; without `bounded`, its bounds may be infinite."""
    if isinstance(space, Choice):
        return space
    if space.dtype not in STORED:
        raise UsageError(f"task parameter {name!r}: want a dtype among {', '.join(map(str, STORED))}, got {given!r}")
    low, high = bounds(space)
    if not (low <= high).all():  # False for NaN
        raise UsageError(f"task parameter {name!r}: want low <= high, got {given!r}")
    if bounded and not is_bounded(space):
        raise UsageError(f"task parameter {name!r}: want finite bounds low <= high, got {given!r}")
    return space


def _union(name: str, train: gym.Space, test: gym.Space) -> gym.Space:
    """The space of a parameter in both splits: all values of lists, or from the lower to the higher bound."""
    if exact_text(train) == exact_text(test):
        return train
    if isinstance(train, Choice) and isinstance(test, Choice):
        return _choice(name, [*train.values, *test.values])
    listed = isinstance(train, Choice) or isinstance(test, Choice)
    if listed or train.dtype != test.dtype or train.shape != test.shape:
        raise UsageError(f"task parameter {name!r}: want the same kind in both splits, got {train} and {test}")
    lows, highs = zip(bounds(train), bounds(test), strict=True)
    return gym.spaces.Box(np.minimum(*lows), np.maximum(*highs), train.shape, train.dtype)
