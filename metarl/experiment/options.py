"""Options by name, as YAML or a caller's dict has them, made into config dataclasses."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from metarl.errors import UsageError
from metarl.registry import near_matches

Config = TypeVar("Config")


def build(cls: type[Config], options: Mapping[str, Any], owner: str, default: Config | None = None) -> Config:
    """The dataclass `cls` from `options`, the rest as in `default` or the class's own defaults.

    Lists become tuples and mappings nested dataclasses where the fields say so, and whole numbers floats. Raises
    `UsageError`, naming `owner`, for an unknown name, a wrong type and a missing option without default.
    """
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values = {}
    for name, value in options.items():
        if name not in known:
            near = near_matches(str(name), known)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
            raise UsageError(f"{owner} has no option {name!r}; {hint}")
        try:
            values[name] = _convert(value, hints[name], f"{owner}, option {name!r}")
        except TypeError:
            wanted = hints[name].__name__ if isinstance(hints[name], type) else str(hints[name])
            raise UsageError(f"{owner}, option {name!r}: want {wanted}, got {value!r}") from None
    if default is not None:
        return dataclasses.replace(default, **values)  # type: ignore[type-var]
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in values and _required(f)]  # type: ignore[arg-type]
    if missing:
        raise UsageError(f"{owner}: option {missing[0]!r} is missing")
    return cls(**values)


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(value: Any, hint: Any, owner: str) -> Any:
    """`value` as `hint` wants it; raises `TypeError` where it does not fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_first(value, arguments, owner)
    if origin is tuple:
        return _convert_tuple(value, arguments, owner)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(typing.cast(type, hint), value, owner)
    if origin is Literal:
        fits = value in arguments
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif hint in (int, float):
        fits = isinstance(value, hint) and not isinstance(value, bool)
    else:
        expected = origin or hint
        fits = not isinstance(expected, type) or isinstance(value, expected)
    if not fits:
        raise TypeError
    return value


def _convert_first(value: Any, candidates: tuple[Any, ...], owner: str) -> Any:
    for candidate in candidates:
        try:
            return _convert(value, candidate, owner)
        except TypeError:
            continue
    raise TypeError


def _convert_tuple(value: Any, items: tuple[Any, ...], owner: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise TypeError
    if items[1:] == (...,):
        items = items[:1] * len(value)
    if len(items) != len(value):
        raise TypeError
    return tuple(_convert(item, wanted, owner) for item, wanted in zip(value, items, strict=True))
