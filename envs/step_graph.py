"""Whole steps of an environment as one CUDA graph, each with its uncaptured twin."""

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.capture import Capture, Work
from metarl.envs.step_state import (
    Path,
    StepState,
    can_be_put,
    can_be_written,
    copy_values,
    describe,
    find_state,
    get,
    put,
    same_memory,
    sole_owner,
    storage_of,
)
from metarl.vector_env import StepResult

CHECKS = 2
"""Steps that are compared with the twin's after each capture. The second one shows that state is carried over."""
TOLERANCE = 1e-3
"""How far numbers of graph and twin may be apart, relative to the largest number of their kind or to 1. Physics on a
GPU adds up contacts in any order."""
OF_STATE = 10
"""How many times as far numbers of the state may be apart: forces and velocities that nobody observes."""
SPREAD = 10
"""The same in units of the difference between two runs of the twin, if that allows more."""
LEAST_AGREEMENT = 0.98
"""Share of rows that have to agree within the tolerance: a contact may be on in one run and off in the other."""
_RESULT = "result "
_ALIGNMENT = 16  # bytes


class NotCapturableError(Exception):
    """A step does something that a graph would not repeat."""


class StepGraph:
    """Calls of `step`, a function of actions and of what hangs on `root`, as replays of one graph.

    A graph repeats launches on fixed addresses, and nothing of what Python does in between. So the first call runs the
    step itself and looks at what it does to `root` (`find_state`, without the attributes named in `outside`):

    - Tensors that a step replaces by new ones are carried over: they get memory of their own, into which the graph
      copies what it computed.
    - Plain values that a step changes cannot be captured.
    - Everything else has to stay where it is. If `stale` is called, or if a carried tensor has been replaced in the
      meantime (by a reset, for instance), all of it is looked at again before the next step: new numbers are copied to
      where the graph reads them, and anything of another shape or value than before leads to a new capture.

    Results of different calls have memory of their own. The first `CHECKS` calls after a capture run `step` as well,
    from the same state, and compare all results and the state reached: bit by bit if `exact`, else as `TOLERANCE`,
    `SPREAD` and `LEAST_AGREEMENT` say, but for attributes named in `uncompared`. If capturing fails or
    the two differ, one warning says why, and `step` itself runs from then on.

    >>> graph = StepGraph(env, env._run, torch.device("cuda"), capture_torch, exact=True, name="PointNavigation-v0")
    >>> observations, rewards, terminated, truncated, info = graph(actions)
    """

    def __init__(
        self,
        root: object,
        step: Callable[[Tensor], StepResult],
        device: torch.device,
        capture: Capture,
        *,
        exact: bool,
        name: str,
        outside: Collection[str] = (),
        uncompared: Collection[str] = (),
    ):
        self._root, self._step, self._device, self._capture = root, step, device, capture
        self._exact, self._name = exact, name
        self._outside, self._uncompared = frozenset(outside), frozenset(uncompared)
        self._replay: Work | None = None
        self._stale = False
        self._checks = 0
        self.refusal: str | None = None
        """Why steps are not captured; None if they are, or are going to be."""
        self.captures = 0

    @torch.no_grad()
    def __call__(self, actions: Tensor) -> StepResult:
        if self.refusal is not None or not (self._is_current() or self._begin(actions)):
            return self._step(actions)
        assert self._replay is not None
        self._actions.copy_(actions)
        if self._checks > 0:
            return self._check(actions)
        self._replay()
        return self._results.copy()

    def stale(self) -> None:
        """To be called after whatever may have replaced something that steps read."""
        self._stale = True

    def _find(self) -> StepState:
        return find_state(self._root, self._outside)

    def _is_current(self) -> bool:
        """Whether there is a graph, and it reads what the next step is to read."""
        if self._replay is None:
            return False
        try:
            carried = all(get(self._root, path) is buffer for path, buffer in self._carried.items())
        except (AttributeError, LookupError, TypeError):
            carried = False
        if carried and not self._stale:
            return True
        self._stale = False
        return self._refresh()

    def _refresh(self) -> bool:
        """Copies what has been replaced to where the graph reads it; False if only a new graph would do."""
        now, known = self._find(), self._known
        if now.values != known.values or now.tensors.keys() != known.tensors.keys():
            return False
        changed = {path: new for path, new in now.tensors.items() if not same_memory(new, known.tensors[path])}
        for path, new in changed.items():
            old = known.tensors[path]
            if (old.shape, old.dtype, old.device) != (new.shape, new.dtype, new.device) or not can_be_written(old):
                return False
            if path in self._written and not can_be_put(self._root, path):
                return False  # the graph would write to its own, and everybody else read the other
        for path, new in {path: new.clone() for path, new in changed.items()}.items():
            known.tensors[path].copy_(new)
            put(self._root, path, known.tensors[path])
        return True

    def _begin(self, actions: Tensor) -> bool:
        """Captures a step; False, after a warning, if that cannot be done."""
        self._replay = None  # frees the graph before
        try:
            self._capture_step(actions)
        except Exception as error:  # torch's, Warp's or the driver's
            reason = str(error) if isinstance(error, NotCapturableError) else f"{type(error).__name__}: {error}"
            self._refuse(reason)
        return self._replay is not None

    def _capture_step(self, actions: Tensor) -> None:
        start = self._find()
        values = copy_values(start)
        try:
            # The first run compiles kernels and fills caches. What the second one changes, all later ones do.
            first = self._outcome(_Results(self._step(actions)).copy())
            self._restore(start, values)
            start = self._find()
            values, versions = copy_values(start), {path: value._version for path, value in start.tensors.items()}
            result = self._step(actions)
            after = self._find()
            written = {path for path, version in versions.items() if start.tensors[path]._version != version}
            second = self._outcome(result)
        finally:
            self._restore(start, values)
        replaced = _replaced(start, after)
        self._written = written
        self._spread = {name: _apart(first[name], value) for name, value in second.items() if name in first}
        self._results = _Results(result)
        self._actions = torch.empty_like(actions, memory_format=torch.contiguous_format).copy_(actions)
        self._give_memory(start, replaced)
        self._known = self._find()
        try:
            replay = self._capture(self._work, self._device)
        finally:
            self._restore(self._known, values)
        self._replay, self._checks = replay, CHECKS
        self.captures += 1

    def _give_memory(self, start: StepState, replaced: Collection[Path]) -> None:
        """Memory that nobody else has for the carried tensors, and for others that may have to be rewritten later."""
        storages = Counter(storage_of(tensor) for tensor in {id(t): t for t in start.tensors.values()}.values())
        self._carried: dict[Path, Tensor] = {}
        own: dict[int, Tensor] = {}
        for path, tensor in start.tensors.items():
            if path in replaced:
                self._carried[path] = tensor.detach().clone(memory_format=torch.contiguous_format)
                if not put(self._root, path, self._carried[path]):
                    raise NotCapturableError(f"a step replaces {describe(path)}, which cannot be set")
            elif sole_owner(tensor, storages) and not _has_fixed_memory(self._root, path):
                own.setdefault(id(tensor), tensor.detach().clone())
                put(self._root, path, own[id(tensor)])

    def _work(self) -> None:
        """What is captured: a step, then its results and what it replaced, copied to where they stay."""
        result = self._step(self._actions)
        self._results.write(result)
        own = {storage_of(buffer) for buffer in self._carried.values()}
        new = {path: get(self._root, path) for path in self._carried}
        new = {path: value.clone() if storage_of(value) in own else value for path, value in new.items()}
        for path, buffer in self._carried.items():
            buffer.copy_(new[path])
            put(self._root, path, buffer)

    def _restore(self, state: StepState, values: dict[Path, Tensor]) -> None:
        """Puts everything back to where it was, with the numbers that it had."""
        now = self._find().tensors
        for path, tensor in state.tensors.items():
            if now.get(path) is not tensor:
                put(self._root, path, tensor)
            if can_be_written(tensor):
                tensor.copy_(values[path])

    def _check(self, actions: Tensor) -> StepResult:
        """A step of both, from the same state. Waits for the GPU."""
        assert self._replay is not None
        self._checks -= 1
        values = copy_values(self._known)
        expected = _Results(self._step(actions)).copy()
        reached, outcome = copy_values(self._find()), self._outcome(expected)
        self._restore(self._known, values)
        try:
            self._replay()
            results = self._results.copy()
            problem = self._difference(outcome, self._outcome(results))
        except Exception as error:  # the driver's
            problem = f"{type(error).__name__}: {error}"
        if problem is None:
            return results
        self._restore(self._known, reached)
        self._refuse(problem)
        return expected

    def _outcome(self, result: StepResult) -> dict[str, Tensor]:
        """Copies of all that a step returned, and of the state that it reached, by names."""
        values = copy_values(self._find())
        state = {describe(path): value for path, value in values.items() if path[-1][1] not in self._uncompared}
        return state | {f"{_RESULT}{name}": value.clone() for name, value in _named(result)}

    def _difference(self, expected: dict[str, Tensor], found: dict[str, Tensor]) -> str | None:
        """What graph and twin disagree on, in words; None if they agree."""
        for name in expected.keys() | found.keys():
            if name not in expected or name not in found:
                return f"only one of the captured step and the step itself has {name}"
            one, other = expected[name], found[name]
            tolerance = TOLERANCE if name.startswith(_RESULT) else OF_STATE * TOLERANCE
            if not (_equal(one, other) if self._exact else _agree(one, other, tolerance, self._spread.get(name))):
                return f"the captured step and the step itself differ in {name}"
        return None

    def _refuse(self, reason: str) -> None:
        self.refusal, self._replay = " ".join(reason.split()), None
        warnings.warn(
            f"{self._name}: steps are launched piece by piece, not as one CUDA graph, because {self.refusal}",
            RuntimeWarning,
            stacklevel=2,
        )


class _Results:
    """Static memory for what a step returns: one block, so that one launch copies it all for the caller."""

    def __init__(self, like: StepResult):
        self._like = _map(lambda value: None, like)
        given = list(_tensors(like))
        self._shapes = [(value.shape, value.dtype) for value in given]
        sizes = [value.numel() * value.element_size() for value in given]
        self._sizes = [size + -size % _ALIGNMENT for size in sizes]
        self._used = sizes
        self._block = torch.zeros(sum(self._sizes), dtype=torch.uint8, device=given[0].device)
        self._views = self._open(self._block)
        self.write(like)

    def write(self, result: StepResult) -> None:
        given = list(_tensors(result))
        if [(value.shape, value.dtype) for value in given] != self._shapes:
            raise NotCapturableError("a step returns tensors of other shapes than the one before")
        for view, value in zip(self._views, given, strict=True):
            view.copy_(value)

    def copy(self) -> StepResult:
        """The results in memory of their own."""
        views = iter(self._open(self._block.clone()))
        return _map(lambda _: next(views), self._like)

    def _open(self, block: Tensor) -> list[Tensor]:
        parts = block.split(self._sizes)
        known = zip(parts, self._used, self._shapes, strict=True)
        return [part[:used].view(dtype).view(shape) for part, used, (shape, dtype) in known]


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    """Tuples and dictionaries of `function` of their leaves."""
    if isinstance(value, tuple):
        return tuple(_map(function, part) for part in value)
    if isinstance(value, dict):
        return {name: _map(function, part) for name, part in value.items()}
    return function(value)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)
    elif isinstance(value, Tensor):
        yield value
    else:
        raise NotCapturableError(f"a step returns a {type(value).__name__} among its tensors")


def _named(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, tuple | dict):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _named(value[key], f"{name}[{key!r}]")
    else:
        yield name, value


def _replaced(before: StepState, after: StepState) -> set[Path]:
    """The tensors that a step replaced. Raises `NotCapturableError` if it changed anything but numbers in tensors."""
    for path in before.values.keys() | after.values.keys():
        if path not in before.values or path not in after.values or before.values[path] != after.values[path]:
            raise NotCapturableError(f"a step changes {describe(path)} on the host")
    if before.tensors.keys() != after.tensors.keys():
        path = next(iter(before.tensors.keys() ^ after.tensors.keys()))
        raise NotCapturableError(f"a step adds or removes {describe(path)}")
    replaced = set()
    for path, old in before.tensors.items():
        new = after.tensors[path]
        if old is new:
            continue
        if (old.shape, old.dtype, old.device) != (new.shape, new.dtype, new.device):
            raise NotCapturableError(f"a step changes the shape, type or device of {describe(path)}")
        replaced.add(path)
    return replaced


def _has_fixed_memory(root: object, path: Path) -> bool:
    """Whether a tensor hangs on an object whose tensors are views of memory that others write to."""
    return any(getattr(get(root, path[:length]), "fixed_memory", False) for length in range(len(path)))


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(*(value.nan_to_num() if value.is_floating_point() else value for value in (one, other)))


def _agree(one: Tensor, other: Tensor, tolerance: float, spread: Float[Tensor, "_"] | None) -> bool:
    """Whether nearly all rows agree: numbers within the tolerance, all else exactly."""
    if not one.numel():
        return True
    rows, others = _rows(one), _rows(other)
    allowed = torch.zeros_like(rows[0])
    if one.is_floating_point():
        allowed = tolerance * rows.abs().amax(0).clamp(min=1)
        if spread is not None:
            allowed = torch.maximum(allowed, SPREAD * spread)
    agreeing = ((rows - others).abs() <= allowed).all(1)
    return bool(agreeing.double().mean() >= LEAST_AGREEMENT)


def _apart(one: Tensor, other: Tensor) -> Float[Tensor, "_"]:
    """The largest difference in each column."""
    if not one.numel():
        return torch.zeros(0, device=one.device)
    return (_rows(one) - _rows(other)).abs().amax(0)


def _rows(values: Tensor) -> Float[Tensor, "R K"]:
    return values.nan_to_num().double().reshape(len(values) if values.ndim else 1, -1)
