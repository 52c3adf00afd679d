"""A function of tensors, recorded once and replayed on the same memory: the operations alone, without torch."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from metarl.envs.metaworld.numpy_operations import Operation, translate
from metarl.errors import UsageError

Answer = TypeVar("Answer")


class Recording(Generic[Answer]):
    """What `function()` computes from tensors on the CPU, to be computed again and again from what they hold by then.

    `inputs` are the tensors that will change, in place. Everything that depends on none of them is computed once. A call
    computes the rest anew and returns the same answer each time, its tensors with new numbers: copy what must outlive
    the next call. A CUDA graph does the same on a GPU.

    Raises `UsageError` for a function that changes a tensor in place, draws random numbers or decides by a tensor's
    value: a recording would always repeat its first decision.

    >>> height = torch.tensor([0.1, 0.2])
    >>> raised = Recording(lambda: height - 0.1 > 0, [height])
    >>> height += 1
    >>> raised()  # tensor([True, True])
    """

    def __init__(self, function: Callable[[], Answer], inputs: Sequence[Tensor]):
        recorder = _Recorder(inputs)
        with torch.no_grad(), recorder:
            self._answer = function()
        self.operations = recorder.operations

    def __call__(self) -> Answer:
        with np.errstate(all="ignore"):  # as in torch, what is not a number passes on
            for function, inputs, out in self.operations:
                function(*inputs, out=out)
        return self._answer


class _Recorder(TorchDispatchMode):
    """Runs a function's operations and notes those whose results will change with the inputs.

    An operation that has been run with the same arguments is not run again: what it made is returned.
    """

    def __init__(self, inputs: Sequence[Tensor]):
        super().__init__()
        self.operations: list[Operation] = []
        self._changing = {_memory(tensor) for tensor in inputs}
        self._known: dict[Any, Tensor] = {}
        self._alive: list[Any] = []
        """All results, so that no two have the same memory."""

    def __torch_dispatch__(
        self, function: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        _check(function)
        key = (function, _identity((args, *sorted(kwargs.items()))))
        if key in self._known:
            return self._known[key]
        result = function(*args, **kwargs)
        self._alive.append(result)
        given = {_memory(tensor) for tensor in _tensors((*args, *kwargs.values()))}
        if all(_memory(tensor) in given for tensor in _tensors([result])):
            return result  # views
        if not isinstance(result, Tensor):
            raise UsageError(f"cannot record {function}: it computes several tensors at once")
        self._known[key] = result
        if given & self._changing and function.overloadpacket not in _FILLED:
            self.operations.append(translate(function, args, kwargs, result))
            self._changing.add(_memory(result))
        return result


aten = torch.ops.aten
_FILLED = (aten.zeros_like, aten.ones_like, aten.full_like, aten.new_zeros, aten.new_ones, aten.new_full)
"""What takes a tensor's shape and type, not its numbers."""
_UNFIT = {
    torch.Tag.data_dependent_output: "decides by a tensor's value",
    torch.Tag.dynamic_output_shape: "decides by a tensor's value",
    torch.Tag.nondeterministic_seeded: "draws random numbers",
}


def _check(function: OpOverload) -> None:
    reasons = [reason for tag, reason in _UNFIT.items() if tag in function.tags]
    if function._schema.is_mutable:
        reasons = ["changes a tensor in place"]
    if reasons:
        raise UsageError(f"cannot record {function}: it {reasons[0]}")


def _memory(tensor: Tensor) -> int:
    """Tells memory apart. Views share that of the tensor they show."""
    return tensor.untyped_storage().data_ptr()


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    parts = [part for value in values for part in (value if isinstance(value, list | tuple) else [value])]
    return [part for part in parts if isinstance(part, Tensor)]


def _identity(value: Any) -> Any:
    """Equal for tensors that show the same memory in the same way, and for equal numbers of the same type."""
    if isinstance(value, list | tuple):
        return tuple(_identity(part) for part in value)
    if isinstance(value, Tensor):
        return value.data_ptr(), value.shape, value.stride(), value.dtype
    return type(value), value
