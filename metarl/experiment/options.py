"""Conversion of options by name, from YAML or a caller's dict, to config dataclasses."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from metarl.errors import UsageError
from metarl.importing import near_matches
from metarl.parsing import printable

Config = TypeVar("Config")
LATER: Mapping[str, Any] = {"later": True}
"""Metadata of a config's field that run folders of earlier versions lack."""


def build(cls: type[Config], options: Mapping[str, Any], owner: str, default: Config | None = None) -> Config:
    """Makes the dataclass `cls` from `options`; other fields come from `default` or the class's defaults, at any depth.

    If the types of fields require it, lists become tuples, mappings nested dataclasses, integers floats and strings
    paths. Raises `UsageError`, naming `owner`, for an unknown name, a wrong type or a missing option without default.
    """
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    known, values = list(fields), {}
    for name, value in options.items():
        if name not in known:
            near = near_matches(str(name), known)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
            raise UsageError(f"{owner} has no option {name!r}; {hint}")
        try:
            usual = _default_value(fields[name]) if default is None else getattr(default, name)
            values[name] = _convert(value, hints[name], f"{owner}, option {name!r}", usual)
        except TypeError:
            wanted = hints[name].__name__ if isinstance(hints[name], type) else str(hints[name])
            raise UsageError(f"{owner}, option {name!r}: want {wanted}, got {printable(repr(value))}") from None
    if default is not None:
        return dataclasses.replace(default, **values)  # type: ignore[type-var]
    missing = [f.name for f in fields.values() if f.name not in values and _required(f)]
    if missing:
        raise UsageError(f"{owner}: option {missing[0]!r} is missing")
    return cls(**values)


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default_value(field: dataclasses.Field) -> Any:
    """The default of the field; None if it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _convert(value: Any, hint: Any, owner: str, usual: Any = None) -> Any:
    """Converts `value` to the type `hint`; missing options of a nested dataclass come from `usual`.

    Raises `TypeError` if `value` does not fit.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_first(value, arguments, owner, usual)
    if origin is tuple:
        return _convert_tuple(value, arguments, owner)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        hint = typing.cast(type, hint)
        return build(type(usual), value, owner, usual) if isinstance(usual, hint) else build(hint, value, owner)
    if origin is Literal:
        fits = value in arguments
    elif hint is Path and isinstance(value, str):
        return Path(value)
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


def _convert_first(value: Any, candidates: tuple[Any, ...], owner: str, usual: Any) -> Any:
    for candidate in candidates:
        try:
            return _convert(value, candidate, owner, usual)
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


def read_config(cls: type[Config], path: Path, entries: Mapping[str, Any]) -> Config:
    """The config dataclass in the entries of a run folder's config.yaml, without its `output`.

    Raises `UsageError` if an entry is missing or wrong.
    """
    file = path / "config.yaml"
    fields = [f for f in dataclasses.fields(cls) if f.name != "output"]  # type: ignore[arg-type]
    for f in fields:
        if f.name not in entries and "later" not in f.metadata:
            raise UsageError(f"{file} is damaged: {f.name} is missing")
    return build(cls, {f.name: entries[f.name] for f in fields if f.name in entries}, f"{file}")


def plain(config: Any) -> dict[str, Any]:
    """A config dataclass as plain values for config.yaml, without its `output`; tuples become lists.

    Raises `UsageError` if an option is not a plain value.
    """
    entries = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "output"}
    for name, value in entries.items():
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            entries[name] = dataclasses.asdict(value)
    try:
        return json.loads(_plain_text(entries))
    except (TypeError, ValueError) as error:
        raise UsageError(f"options must be plain values to be written to config.yaml: {error}") from None


def is_plain(options: Mapping[str, Any]) -> bool:
    """Whether `plain` could write these options."""
    try:
        _plain_text(options)
    except (TypeError, ValueError):
        return False
    return True


def option_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """The options that `now` has instead of `then`: name → words. A tuple equals the list that config.yaml makes of it.

    >>> from metarl.experiment.options import option_differences
    >>> list(option_differences({"horizon": 10, "reward": "v1"}, {"horizon": 20}).values())
    ['horizon 20 instead of 10', "reward the default instead of 'v1'"]
    """
    found: dict[str, str] = {}
    for name in [*then, *(name for name in now if name not in then)]:
        old, new = (repr(_listed(options[name])) if name in options else "the default" for options in (then, now))
        if old != new:
            found[name] = f"{name} {new} instead of {old}"
    return found


def check_seed(seed: int) -> None:
    """Raises `UsageError` unless `seed` is a whole number of at least 0."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed must be a whole number of at least 0, got {seed!r}")


def check_max_faults(max_faults: int | None) -> None:
    """Raises `UsageError` unless `max_faults` is None or a whole number of at least 0."""
    if max_faults is not None and (isinstance(max_faults, bool) or not isinstance(max_faults, int) or max_faults < 0):
        raise UsageError(f"max_faults must be a whole number of at least 0, got {max_faults!r}")


def _path_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def _plain_text(value: Any) -> str:
    """`value` as JSON text; raises `TypeError` if it would not come back as it was, tuples as lists excepted."""
    _check_keys(value)
    return json.dumps(value, default=_path_text)


def _check_keys(value: Any) -> None:
    """JSON would make text of keys that are numbers."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is a {type(key).__name__}, not text")
            _check_keys(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            _check_keys(entry)


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(entry) for key, entry in value.items()}
    return [_listed(entry) for entry in value] if isinstance(value, (list, tuple)) else value
