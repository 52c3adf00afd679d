"""A function of a batch's rows, compiled for the CPU: written in torch, run by one call of machine code."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from metarl.envs.metaworld.scalar_program import ROWS, ScalarProgram
from metarl.envs.warp_runtime import start_warp
from metarl.errors import UsageError

Tensors = Mapping[str, Tensor]


class CompiledRows:
    """A function of tensors `[R]` or `[R, K]` on the CPU whose rows have nothing to do with each other.

    The function is run once, on `ROWS` rows of zeros, and its operations are recorded. What they do to one row becomes
    a Warp kernel in float64, compiled when it is first bound (some tenths of a second; later processes find it in
    Warp's cache). Results are torch's up to rounding.

    `shapes`: name, number of columns (None: `[R]`) and type of each input. Raises `UsageError` for a function that
    changes a tensor in place, draws random numbers, decides by a tensor's value or uses an operation without a rule.

    >>> compiled = CompiledRows("raised", lambda at: {"raised": at["hand"][:, 2] - 0.1}, [("hand", 3, torch.float64)])
    >>> hand = torch.zeros(16, 3, dtype=torch.float64)
    >>> raised = compiled.bind({"hand": hand})
    >>> hand += 1
    >>> raised()["raised"]  # [16]: 0.9
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Tensors], Tensors],
        shapes: Sequence[tuple[str, int | None, torch.dtype]],
    ):
        start_warp()
        inputs = {
            key: torch.zeros(ROWS if columns is None else (ROWS, columns), dtype=dtype)
            for key, columns, dtype in shapes
        }
        program = ScalarProgram()
        for number, tensor in enumerate(inputs.values()):
            program.define(tensor, lambda column, number=number: f"i{number}[row, {column}]")  # type: ignore[misc]
        with torch.no_grad(), _Recorder(program):
            results = function(inputs)
        self._inputs = list(inputs)
        self._results = {key: (value.shape[1:], value.dtype) for key, value in results.items()}
        self._constants: wp.array = wp.array(program.constants or [0.0], dtype=wp.float64, device="cpu")
        body = list(program.lines)
        for number, value in enumerate(results.values()):
            body += [f"o{number}[row, {column}] = {name}" for column, name in enumerate(program.values(value))]
        types = {f"i{number}": tensor.dtype for number, tensor in enumerate(inputs.values())}
        types |= {f"o{number}": value.dtype for number, value in enumerate(results.values())}
        self._kernel = _kernel(name, types, body)

    def bind(self, inputs: Tensors, results: Tensors | None = None) -> Callable[[], Tensors]:
        """A call that computes the results from what these inputs hold by then: the same tensors each time.

        `results`: tensors to write into, by name; they may be inputs, too. A result without one gets one of its own.
        Raises `UsageError` for one of a wrong shape or type.
        """
        rows = len(next(iter(inputs.values())))
        made = {key: torch.zeros(rows, *shape, dtype=dtype) for key, (shape, dtype) in self._results.items()}
        found = {key: (results or {}).get(key, own) for key, own in made.items()}
        for key, own in made.items():
            if found[key].shape != own.shape or found[key].dtype != own.dtype:
                raise UsageError(f"{key!r} is {_type(own)}: cannot write it into {_type(found[key])}")
        memory = [inputs[key] for key in self._inputs] + list(found.values())
        arrays = [wp.from_torch(tensor if tensor.ndim > 1 else tensor[:, None]) for tensor in memory]
        launch = wp.launch(self._kernel, rows, [self._constants, *arrays], device="cpu", record_cmd=True)

        def run() -> Tensors:
            launch.launch()
            return found

        run.memory = memory  # type: ignore[attr-defined]  # Warp knows its address only: it must outlive the call
        return run


def _type(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def _kernel(name: str, types: Mapping[str, torch.dtype], body: Sequence[str]) -> wp.Kernel:
    kinds = {torch.float64: "wp.float64", torch.bool: "wp.bool"}
    parameters = [f"{key}: wp.array2d(dtype={kinds[dtype]})" for key, dtype in types.items()]
    lines = ["row = wp.tid()", *body]
    source = f"def kernel(c: wp.array(dtype=wp.float64), {', '.join(parameters)}):\n"
    source += "".join(f"    {line}\n" for line in lines)
    scope: dict[str, Any] = {"wp": wp, "__name__": f"{__name__}.{name}"}
    exec(source, scope)
    module = wp.get_module(scope["__name__"])
    return wp.Kernel(scope["kernel"], module=module, options={"enable_backward": False}, source=source)


class _Recorder(TorchDispatchMode):
    """Runs operations and adds to the program those whose results depend on its inputs."""

    def __init__(self, program: ScalarProgram):
        super().__init__()
        self._program = program
        self._alive: list[Any] = []
        """All results, so that no two have the same memory."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch compiles nothing here, and to guard against it would import its compiler, which takes a second."""
        return False

    def __torch_dispatch__(
        self, function: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        _check(function)
        result = function(*args, **kwargs)
        self._alive.append(result)
        given = _tensors((*args, *kwargs.values()))
        memory = {tensor.untyped_storage().data_ptr() for tensor in given}
        if all(tensor.untyped_storage().data_ptr() in memory for tensor in _tensors([result])):
            return result  # views
        if function.overloadpacket not in _FILLED and any(self._program.changes(tensor) for tensor in given):
            self._program.add(function, args, kwargs, result)
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
        raise UsageError(f"cannot compile {function}: it {reasons[0]}")


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    parts = [part for value in values for part in (value if isinstance(value, list | tuple) else [value])]
    return [part for part in parts if isinstance(part, Tensor)]
