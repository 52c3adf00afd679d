"""What a step of an environment reads and changes: the tensors and plain values that hang on it, found by walking."""

import enum
import functools
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metarl.devices import Constant

Path = tuple[tuple[str, Any], ...]
"""The way from the root to a value: pairs ("attribute", name) and ("item", key)."""

_ATTRIBUTE, _ITEM = "attribute", "item"
_PLAIN = (bool, int, float, str, bytes, type(None), enum.Enum)
_FOREIGN = {"gymnasium", "mujoco", "mujoco_warp", "numpy", "torch", "warp"}
"""Packages whose objects are not looked into. Nor are those of the standard library."""


@dataclass
class StepState:
    """Tensors and plain values by their paths.

    A value of another kind is represented by the name of its type.
    """

    tensors: dict[Path, Tensor] = field(default_factory=dict)
    values: dict[Path, Any] = field(default_factory=dict)


def find_state(root: object, outside: Collection[str] = ()) -> StepState:
    """All that can be reached from `root` by attributes, keys and indices, but for attributes named in `outside`.

    Each object is entered once. `Constant`s never change and are left out.

    >>> from types import SimpleNamespace
    >>> from metarl.envs.step_state import find_state
    >>> class Walker:
    ...     def __init__(self):
    ...         self.clock, self.numbers = 3, {"height": torch.ones(2)}
    >>> state = find_state(Walker())
    >>> [describe(path) for path in state.tensors]
    ["numbers['height']"]
    """
    found = StepState()
    _walk(root, (), found, frozenset(outside), {})
    return found


def _walk(value: Any, path: Path, found: StepState, outside: frozenset[str], seen: dict[int, Any]) -> None:
    if isinstance(value, Tensor):
        found.tensors[path] = value
        return
    if isinstance(value, _PLAIN):
        found.values[path] = value
        return
    if isinstance(value, Constant) or id(value) in seen:
        return
    seen[id(value)] = value
    found.values[path] = type(value).__qualname__
    for step, part in _parts(value, outside):
        _walk(part, (*path, step), found, outside, seen)


def _parts(value: Any, outside: frozenset[str]) -> Iterator[tuple[tuple[str, Any], Any]]:
    """What hangs on a value, and how it is reached from there."""
    if isinstance(value, Mapping):
        yield from (((_ITEM, key), value[key]) for key in value)
    elif isinstance(value, list | tuple):
        yield from (((_ITEM, number), part) for number, part in enumerate(value))
    elif isinstance(value, functools.partial):
        yield (_ATTRIBUTE, "args"), value.args
        yield (_ATTRIBUTE, "keywords"), value.keywords
    elif _is_ours(value):
        yield from (((_ATTRIBUTE, name), part) for name, part in list(vars(value).items()) if name not in outside)


def _is_ours(value: Any) -> bool:
    """Whether a value is an object of this package or of a user's, which may hold what steps need."""
    if isinstance(value, type) or not hasattr(value, "__dict__"):
        return False
    package = type(value).__module__.partition(".")[0]
    return package not in _FOREIGN and package not in sys.stdlib_module_names


def get(root: object, path: Path) -> Any:
    """The value at `path`; raises `AttributeError`, `LookupError` or `TypeError` if there is none."""
    value: Any = root
    for kind, key in path:
        value = getattr(value, key) if kind == _ATTRIBUTE else value[key]
    return value


def can_be_put(root: object, path: Path) -> bool:
    """Whether what holds the value at `path` can be given another one: not a tuple, for instance."""
    return path[-1][0] == _ATTRIBUTE or isinstance(get(root, path[:-1]), dict | list)


def put(root: object, path: Path, value: Tensor) -> bool:
    """Puts a tensor where `path` leads; False if what holds it cannot be changed."""
    if not can_be_put(root, path):
        return False
    holder, (kind, key) = get(root, path[:-1]), path[-1]
    if kind == _ATTRIBUTE:
        object.__setattr__(holder, key, value)  # frozen dataclasses too
    else:
        holder[key] = value
    return True


def describe(path: Path) -> str:
    """A path as Python writes it."""
    return "".join(f".{key}" if kind == _ATTRIBUTE else f"[{key!r}]" for kind, key in path).removeprefix(".")


def same_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same numbers at the same place."""
    return one is other or (
        one.data_ptr() == other.data_ptr()
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
    )


def can_be_written(tensor: Tensor) -> bool:
    """False for an expanded tensor, several of whose entries are one number."""
    return all(stride or size <= 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def storage_of(tensor: Tensor) -> int:
    """The address of the memory that a tensor is a view of."""
    return tensor.untyped_storage().data_ptr()


def sole_owner(tensor: Tensor, storages: Mapping[int, int]) -> bool:
    """Whether nothing else among those counted in `storages` is a view of the tensor's memory, nor it of more."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return whole and tensor.is_contiguous() and storages[storage_of(tensor)] == 1


def copy_values(state: StepState) -> dict[Path, Tensor]:
    """Copies of all tensors; one for those that are the same memory."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    values = {}
    for path, tensor in state.tensors.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else (path,)
        if key not in copies:
            copies[key] = tensor.detach().clone(memory_format=torch.contiguous_format)
        values[path] = copies[key]
    return values
