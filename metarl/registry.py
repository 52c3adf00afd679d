"""Ids of task distributions and agents, filled by plugins through the entry-point group `metarl.plugins`.

A plugin is a function without arguments that calls `register_distribution` and `register_agent`. Its package declares

    [project.entry-points."metarl.plugins"]
    my-package = "my_package:register"

and installing the package is all that a user does. metarl's own families and agents arrive the same way.
"""

import difflib
import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from metarl.distribution import TaskDistribution
from metarl.errors import UsageError

GROUP = "metarl.plugins"

_distributions: dict[str, Callable[..., TaskDistribution] | str] = {}
_agents: dict[str, str] = {}
_plugins_loaded: set[str] = set()


def register_distribution(id: str, factory: Callable[..., TaskDistribution] | str) -> None:
    """Makes `metarl.make(id, **options)` call `factory(**options)`; raises `ValueError` for an id that is taken.

    A factory may be named by its path, `"module:name"`; it is imported when used.
    """
    if id in _distributions:
        raise ValueError(f"distribution {id!r} is registered already")
    _distributions[id] = factory


def register_agent(id: str, path: str) -> None:
    """Names an `Agent` class by `path`, `"module:Class"`; it is imported when used. Raises `ValueError` if taken."""
    if id in _agents:
        raise ValueError(f"agent {id!r} is registered already")
    _agents[id] = path


def list_distributions() -> list[str]:
    """The ids that `make` knows, sorted."""
    _load_plugins()
    return sorted(_distributions)


def list_agents() -> list[str]:
    """The ids that `agent_class` knows, sorted."""
    _load_plugins()
    return sorted(_agents)


def make(id: str, **options: Any) -> TaskDistribution:
    """The task distribution registered as `id`; raises `UsageError` for an unknown id or option."""
    _load_plugins()
    factory = _imported(_look_up(_distributions, id, "environment"))
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise UsageError(f"{id}: {error}; it takes {inspect.signature(factory)}") from None
    return factory(**options)


def agent_class(id: str) -> type[Any]:
    """The `Agent` class registered as `id`; raises `UsageError` for an unknown id."""
    _load_plugins()
    return _imported(_look_up(_agents, id, "agent"))


def _imported(target: Any) -> Any:
    """What a path `"module:name"` names; anything else is what it is."""
    if not isinstance(target, str):
        return target
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _load_plugins() -> None:
    for entry in _entry_points():
        if entry.value in _plugins_loaded:
            continue
        try:
            register = entry.load()
        except Exception as error:
            raise UsageError(f"plugin {entry.name!r} ({entry.value}) does not load: {error!r}") from error
        _plugins_loaded.add(entry.value)
        register()


@functools.cache
def _entry_points() -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group=GROUP))


def _look_up(known: dict[str, Any], id: str, kind: str) -> Any:
    if id in known:
        return known[id]
    near = near_matches(id, known)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known)[:8])} …"
    raise UsageError(f"unknown {kind} {id!r}; {hint}")


def near_matches(name: str, known: Iterable[str]) -> list[str]:
    """Up to three of `known` that look most like `name`, whatever the case of their letters."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]
