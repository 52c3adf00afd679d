"""Ids of task distributions, agents, few-shot learners, data sets and objectives.

Plugins register them through the entry-point group `metarl.plugins`. A plugin is a function without arguments that
calls `register_distribution`, `register_agent` and so on. Its package declares

    [project.entry-points."metarl.plugins"]
    my-package = "my_package:register"

and is found once it is installed. metarl's own families, agents and learners are registered the same way.

Instead of an id, every function and command accepts `module:name` for something that is not registered. It is imported
from the working directory or from the installed packages.
"""

import difflib
import functools
import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from metarl.agent import Agent
from metarl.distribution import TaskDistribution
from metarl.errors import UsageError

GROUP = "metarl.plugins"

Base = TypeVar("Base")

_distributions: dict[str, Any] = {}
_agents: dict[str, Any] = {}
_learners: dict[str, Any] = {}
_data: dict[str, Any] = {}
_objectives: dict[str, Any] = {}
_KINDS = {
    "environment": _distributions,
    "agent": _agents,
    "learner": _learners,
    "data set": _data,
    "objective": _objectives,
}
_plugins_loaded: set[str] = set()


def register_distribution(id: str, factory: Callable[..., TaskDistribution] | str) -> None:
    """Makes `metarl.make(id, **options)` call `factory(**options)`; raises `ValueError` if the id is taken.

    The factory may be given as `"module:name"`; it is imported on first use.

    >>> metarl.register_distribution("ThreeArms-v0", "my_package.bandits:ThreeArms")
    """
    _register("environment", id, factory)


def register_agent(id: str, cls: type | str) -> None:
    """Registers an `Agent` class, which may be given as `"module:Class"`. Raises `ValueError` if the id is taken.

    >>> metarl.register_agent("mine", "my_package.agent:Mine")
    """
    _register("agent", id, cls)


def register_learner(id: str, cls: type | str) -> None:
    """Registers a `metarl.fewshot.Learner` class, as `register_agent` does for agents."""
    _register("learner", id, cls)


def register_data(id: str, cls: type | str) -> None:
    """Registers a `metarl.fewshot.DataSet` class, as `register_agent` does for agents."""
    _register("data set", id, cls)


def register_objective(id: str, cls: type | str) -> None:
    """Registers a class of few-shot objectives, as `register_agent` does for agents."""
    _register("objective", id, cls)


def list_distributions() -> list[str]:
    """The ids that `make` knows, sorted."""
    return _ids("environment")


def list_agents() -> list[str]:
    """The ids of agents, sorted."""
    return _ids("agent")


def list_learners() -> list[str]:
    """The ids of few-shot learners, sorted."""
    return _ids("learner")


def list_data() -> list[str]:
    """The ids of few-shot data sets, sorted."""
    return _ids("data set")


def list_objectives() -> list[str]:
    """The ids of few-shot objectives, sorted."""
    return _ids("objective")


def make(id: str, **options: Any) -> TaskDistribution:
    """Makes the task distribution that `id`, or `module:name`, names.

    `module:name` may name a factory, a class or a distribution. Raises `UsageError` for an unknown id, a missing module
    or name, an unknown option, or anything that is not a `TaskDistribution`.

    >>> metarl.make("PointNavigation-v0", horizon=50).horizon
    50
    """
    found = _find("environment", id)
    if callable(found) and not isinstance(found, TaskDistribution):
        found = _call(id, found, options)
    elif options:
        raise UsageError(f"{id} is not a factory: it takes no options")
    if not isinstance(found, TaskDistribution):
        raise UsageError(f"{id} is no TaskDistribution, nor does it make one")
    return found


def agent_class(id: str) -> type[Agent]:
    """The `Agent` class that `id`, or `module:name`, names; raises `UsageError` if there is none."""
    return find_class("agent", id, Agent)  # type: ignore[type-abstract]


def find_class(kind: str, id: str, base: type[Base]) -> type[Base]:
    """The subclass of `base` that is registered under `kind` as `id`, or that `module:name` names.

    Raises `UsageError` for an unknown id, a missing module or name, or anything that is not such a class.
    """
    found = _find(kind, id)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UsageError(f"{id} is no {kind}: want a subclass of {base.__module__}.{base.__qualname__}")
    return found


def import_named(target: str) -> Any:
    """Imports what `target`, `"module:name"`, names.

    Raises `UsageError` if the module or the name is missing. Errors in the module's own code are passed on.
    """
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise UsageError(f"{target!r} is not of the form MODULE:NAME")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports
        raise UsageError(f"there is no module {module_name!r} here or among the installed ones") from None
    if not hasattr(module, name):
        near = near_matches(name, vars(module))
        raise UsageError(f"{module_name} has no {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    return getattr(module, name)


def near_matches(name: str, known: Iterable[str]) -> list[str]:
    """Up to three of `known` that are most similar to `name`, ignoring case."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]


def _register(kind: str, id: str, target: Any) -> None:
    if id in _KINDS[kind]:
        raise ValueError(f"{kind} {id!r} is registered already")
    _KINDS[kind][id] = target


def _ids(kind: str) -> list[str]:
    _load_plugins()
    return sorted(_KINDS[kind])


def _find(kind: str, id: str) -> Any:
    """What is registered as `id`, imported if it was registered as `"module:name"`, or what `module:name` names."""
    _load_plugins()
    known = _KINDS[kind]
    if id in known:
        return import_named(known[id]) if isinstance(known[id], str) else known[id]
    if ":" in id:
        here = str(Path.cwd())
        if here not in sys.path:  # last, so that no file there hides an installed module
            sys.path.append(here)
        return import_named(id)
    near = near_matches(id, known)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known)[:8])} …, or MODULE:NAME"
    raise UsageError(f"unknown {kind} {id!r}; {hint}")


def _call(id: str, factory: Callable[..., Any], options: dict[str, Any]) -> Any:
    signature = inspect.signature(factory)
    try:
        signature.bind(**options)
    except TypeError as error:
        raise UsageError(f"{id}: {error}; it takes {signature}") from None
    return factory(**options)


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
