"""What torch's operations do to one row of a batch, as a straight line of statements about scalars."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from metarl.errors import UsageError

ROWS = 13
"""Rows of the batch on which a function is recorded: a size that no other axis of a tensor has."""

aten = torch.ops.aten


class ScalarProgram:
    """Statements `v7 = v3 - v5` that compute from one row of some inputs what recorded operations make of the batch.

    A number is known by its address in the memory of the tensor that holds it, so a view costs nothing. `v…` are
    numbers, `b…` are truth values. Constants stand in a table, `c[k]`, because a literal would lose half of its digits.

    >>> program = ScalarProgram()
    >>> program.define(state, lambda column: f"state[row, {column}]")
    >>> program.add(torch.ops.aten.sub.Tensor, (state, 1.0), {}, difference)
    >>> program.lines  # ["v1 = state[row, 0]", "v2 = v1 - c[0]"]
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: list[float] = []
        self._names: dict[int, str] = {}
        """Names of the numbers that change, by address."""
        self._changing: set[int] = set()
        """The memory that they are in."""
        self._known: dict[str, str] = {}
        """Names of expressions computed before."""

    def define(self, tensor: Tensor, expression: Callable[[int], str]) -> None:
        """Names the numbers of a row of an input `[ROWS]` or `[ROWS, K]`: what `expression` says of each column."""
        self._put(tensor, [expression(column) for column in range(tensor[0].numel())])

    def changes(self, tensor: Tensor) -> bool:
        """Whether the tensor's numbers depend on an input."""
        return tensor.untyped_storage().data_ptr() in self._changing

    def values(self, tensor: Tensor) -> list[str]:
        """What the numbers of the tensor's row are called. Raises `UsageError` if other rows have to do with it."""
        row, addresses = _row(tensor), _addresses(tensor)
        if self.changes(tensor):
            steps = [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size == ROWS]
            if not any(steps) or any(address not in self._names for address in addresses):
                raise UsageError("cannot compile what takes some of the batch's rows: rows must not meet")
            return [self._names[address] for address in addresses]
        if not torch.equal(row.unsqueeze(_row_axis(tensor) or 0).expand_as(tensor), tensor):
            raise UsageError("cannot compile a constant that differs between the batch's rows")
        return [self._constant(number, tensor.dtype) for number in row.flatten().tolist()]

    def add(self, function: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Tensor) -> None:
        """The statements of one operation. Raises `UsageError` if it is none of those that are known here."""
        rule = _RULES.get(function)
        if rule is None:
            raise UsageError(f"cannot compile {function}: scalar_program.py has no rule for it")
        if kwargs and rule is not _copy:
            raise UsageError(f"cannot compile {function} with options: {', '.join(kwargs)}")
        if result.dtype not in (torch.float64, torch.int64, torch.bool):
            raise UsageError(f"cannot compile {function}: it returns {result.dtype}")
        self._put(result, rule(self, result, *args))

    def operands(self, values: Sequence[Any], like: Tensor) -> Iterator[tuple[str, ...]]:
        """The names of the operands for each number of `like`'s row, which the values are expanded to."""
        columns = []
        for value in values:
            if isinstance(value, Tensor):
                columns.append(self.values(value.expand(like.shape)))
            else:
                columns.append([self._constant(value, torch.float64)] * len(_addresses(like)))
        return zip(*columns, strict=True)

    def last_axis(self, tensor: Tensor, axis: Sequence[int] | int) -> Iterator[list[str]]:
        """The names along the last axis, for each of the other axes' indices."""
        axes = [axis] if isinstance(axis, int) else list(axis)
        if axes not in ([-1], [tensor.ndim - 1]) or tensor.shape[-1] == ROWS:
            raise UsageError("cannot compile a reduction over another axis than the last one, or over the batch")
        names, size = self.values(tensor), tensor.shape[-1]
        return (names[first : first + size] for first in range(0, len(names), size))

    def local(self, expression: str) -> str:
        """The name of a number that no tensor holds."""
        return self._name(expression, torch.float64)

    def _put(self, tensor: Tensor, expressions: Sequence[str]) -> None:
        self._changing.add(tensor.untyped_storage().data_ptr())
        for address, expression in zip(_addresses(tensor), expressions, strict=True):
            self._names[address] = self._name(expression, tensor.dtype)

    def _name(self, expression: str, dtype: torch.dtype) -> str:
        if expression not in self._known:
            self._known[expression] = f"{'b' if dtype == torch.bool else 'v'}{len(self._known)}"
            self.lines.append(f"{self._known[expression]} = {expression}")
        return self._known[expression]

    def _constant(self, number: float | int, dtype: torch.dtype) -> str:
        if dtype == torch.bool:
            return self._name("True" if number else "False", dtype)
        if number not in self.constants:
            self.constants.append(float(number))
        return self._name(f"c[{self.constants.index(number)}]", dtype)


def _row_axis(tensor: Tensor) -> int | None:
    """Which axis counts the batch's rows."""
    axes = [axis for axis, size in enumerate(tensor.shape) if size == ROWS]
    if len(axes) > 1:
        raise UsageError(f"cannot compile a tensor of shape {list(tensor.shape)}: rows must not meet")
    return axes[0] if axes else None


def _row(tensor: Tensor) -> Tensor:
    """The first row of the batch; the tensor itself if it has no axis of rows."""
    axis = _row_axis(tensor)
    return tensor if axis is None else tensor.select(axis, 0)


def _addresses(tensor: Tensor) -> list[int]:
    row = _row(tensor)
    offsets = torch.zeros(row.shape, dtype=torch.int64)
    for axis, (size, stride) in enumerate(zip(row.shape, row.stride(), strict=True)):
        steps = torch.arange(size) * stride * row.element_size()
        offsets += steps.view(-1, *[1] * (row.ndim - axis - 1))
    return [row.data_ptr() + offset for offset in offsets.flatten().tolist()]


def _number(name: str) -> str:
    """A truth value as 0 or 1."""
    return f"wp.where({name}, wp.float64(1.0), wp.float64(0.0))" if name.startswith("b") else name


def _elementwise(template: str, *, marks: bool = False) -> Callable[..., list[str]]:
    """An expression about numbers, `{0}`, `{1}`, … the operands; `marks`: that is true or false."""

    def rule(program: ScalarProgram, result: Tensor, *values: Any) -> list[str]:
        if len(values) != 1 + max(int(mark) for mark in "01" if f"{{{mark}}}" in template):
            raise UsageError(f"cannot compile {template!r} with options")
        if marks != (result.dtype == torch.bool):
            raise UsageError(f"cannot compile {template!r} for truth values")
        rows = program.operands(values, result)
        return [template.format(*(_number(name) for name in names)) for names in rows]

    return rule


def _logical(template: str) -> Callable[..., list[str]]:
    """An expression about truth values."""

    def rule(program: ScalarProgram, result: Tensor, *values: Any) -> list[str]:
        if any(value.dtype != torch.bool for value in values):
            raise UsageError("cannot compile a bitwise operation on numbers")
        return [template.format(*names) for names in program.operands(values, result)]

    return rule


def _where(program: ScalarProgram, result: Tensor, mask: Tensor, yes: Tensor, no: Tensor) -> list[str]:
    as_is = result.dtype == torch.bool
    rows = program.operands((mask, yes, no), result)
    return [f"wp.where({m}, {a if as_is else _number(a)}, {b if as_is else _number(b)})" for m, a, b in rows]


def _clamp(program: ScalarProgram, result: Tensor, x: Tensor, low: Any = None, high: Any = None) -> list[str]:
    """What is not a number stays so."""
    names = [name for (name,) in program.operands((x,), result)]
    for bound, sign in ((low, "<"), (high, ">")):
        if bound is not None:
            limits = [limit for (limit,) in program.operands((bound,), result)]
            pairs = zip(names, limits, strict=True)
            names = [program.local(f"wp.where({name} {sign} {limit}, {limit}, {name})") for name, limit in pairs]
    return names


def _norm(program: ScalarProgram, result: Tensor, x: Tensor, order: Any, axis: Any) -> list[str]:
    if order != 2:
        raise UsageError(f"cannot compile a norm of order {order}")
    return [f"wp.sqrt({' + '.join(f'{name} * {name}' for name in names)})" for names in program.last_axis(x, axis)]


def _power(program: ScalarProgram, result: Tensor, x: Tensor, power: Any) -> list[str]:
    if power != 2:
        raise UsageError(f"cannot compile a power of {power}")
    return [f"{name} * {name}" for (name,) in program.operands((x,), result)]


def _reduction(operator: str) -> Callable[..., list[str]]:
    return lambda program, result, x, axis: [f" {operator} ".join(names) for names in program.last_axis(x, axis)]


def _copy(program: ScalarProgram, result: Tensor, x: Tensor) -> list[str]:
    if x.dtype != result.dtype and (x.is_floating_point() or result.dtype == torch.bool):
        raise UsageError(f"cannot compile {result.dtype} made from {x.dtype}")
    return [name if result.dtype == torch.bool else _number(name) for (name,) in program.operands((x,), result)]


def _joined(join: Callable[..., Tensor]) -> Callable[..., list[str]]:
    """Concatenates names as `join` concatenates numbers."""

    def rule(program: ScalarProgram, result: Tensor, parts: Sequence[Tensor], axis: int = 0) -> list[str]:
        names = [name for part in parts for name in program.values(part)]
        numbers, first = [], 0
        for part in parts:  # the numbers of the names, where the numbers were
            row = _row(part)
            own = torch.arange(first, first + row.numel()).view(row.shape)
            first += row.numel()
            rows = _row_axis(part)
            numbers.append(own if rows is None else own.unsqueeze(rows).expand(part.shape))
        order = _row(join(numbers, axis)).flatten().tolist()
        return [names[number] if result.dtype == torch.bool else _number(names[number]) for number in order]

    return rule


def _argmax(program: ScalarProgram, result: Tensor, x: Tensor, axis: int, keepdim: bool = False) -> list[str]:
    found = []
    for names in program.last_axis(x, axis):
        best, index = names[0], "wp.float64(0.0)"
        for number, name in enumerate(names[1:], 1):
            index = program.local(f"wp.where({name} > {best}, wp.float64({number}.0), {index})")
            best = program.local(f"wp.where({name} > {best}, {name}, {best})")
        found.append(index)
    return found


def _gather(program: ScalarProgram, result: Tensor, x: Tensor, axis: int, index: Tensor) -> list[str]:
    (names,) = program.last_axis(x, axis)
    found = []
    for (which,) in program.operands((index,), result):
        value = names[0]
        for number, name in enumerate(names[1:], 1):
            value = program.local(f"wp.where({which} == wp.float64({number}.0), {name}, {value})")
        found.append(value)
    return found


_RULES: dict[OpOverload, Callable[..., list[str]]] = {
    aten.abs.default: _elementwise("wp.abs({0})"),
    aten.add.Tensor: _elementwise("{0} + {1}"),
    aten.cos.default: _elementwise("wp.cos({0})"),
    aten.div.Tensor: _elementwise("{0} / {1}"),
    aten.exp.default: _elementwise("wp.exp({0})"),
    aten.hypot.default: _elementwise(
        "wp.where(wp.isinf({0}) or wp.isinf({1}), wp.float64(wp.inf), wp.sqrt({0} * {0} + {1} * {1}))"
    ),
    aten.log.default: _elementwise("wp.log({0})"),
    # What is not a number passes on.
    aten.maximum.default: _elementwise("wp.where({0} < {1} or {1} != {1}, {1}, {0})"),
    aten.minimum.default: _elementwise("wp.where({0} > {1} or {1} != {1}, {1}, {0})"),
    aten.mul.Tensor: _elementwise("{0} * {1}"),
    aten.neg.default: _elementwise("-{0}"),
    aten.reciprocal.default: _elementwise("wp.float64(1.0) / {0}"),
    aten.rsub.Scalar: _elementwise("{1} - {0}"),
    aten.sin.default: _elementwise("wp.sin({0})"),
    aten.sub.Tensor: _elementwise("{0} - {1}"),
    aten.ge.Scalar: _elementwise("{0} >= {1}", marks=True),
    aten.ge.Tensor: _elementwise("{0} >= {1}", marks=True),
    aten.gt.Scalar: _elementwise("{0} > {1}", marks=True),
    aten.gt.Tensor: _elementwise("{0} > {1}", marks=True),
    aten.le.Scalar: _elementwise("{0} <= {1}", marks=True),
    aten.le.Tensor: _elementwise("{0} <= {1}", marks=True),
    aten.lt.Scalar: _elementwise("{0} < {1}", marks=True),
    aten.lt.Tensor: _elementwise("{0} < {1}", marks=True),
    aten.bitwise_and.Tensor: _logical("{0} and {1}"),
    aten.bitwise_or.Tensor: _logical("{0} or {1}"),
    aten.bitwise_not.default: _logical("not {0}"),
    aten.all.dim: _reduction("and"),
    aten.any.dim: _reduction("or"),
    aten.prod.dim_int: _reduction("*"),
    aten._to_copy.default: _copy,
    aten.clone.default: _copy,
    aten.argmax.default: _argmax,
    aten.gather.default: _gather,
    aten.cat.default: _joined(torch.cat),
    aten.stack.default: _joined(torch.stack),
    aten.clamp.default: _clamp,
    aten.clamp.Tensor: _clamp,
    aten.linalg_vector_norm.default: _norm,
    aten.pow.Tensor_Scalar: _power,
    aten.where.self: _where,
}
