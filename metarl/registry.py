"""Ids of task distributions, agents, few-shot learners, data sets and objectives.

Plugins register them through the entry-point group `metarl.plugins`. A plugin is a function without arguments that
calls `register_distribution`, `register_agent` and so on. Its package declares

    [project.entry-points."metarl.plugins"]
    my-package = "my_package:register"

and is found once it is installed. metarl's own families, agents and learners are registered the same way.

Instead of an id, every function and command accepts `module:name` for something that is not registered. It is imported
from the working directory or from the installed packages. Functions accept the thing itself as well: a distribution, or
a class or function that makes one. `name_of` says by which name it can be found again.
"""

import functools
import importlib.metadata
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import gymnasium as gym

from metarl.agent import Agent
from metarl.distribution import Origin, TaskDistribution
from metarl.errors import UsageError
from metarl.gymnasium_ids import register_id
from metarl.importing import import_from_file, import_named, importable_name, near_matches
from metarl.presets import Preset

GROUP = "metarl.plugins"

Base = TypeVar("Base")
Family: TypeAlias = str | TaskDistribution | Callable[..., TaskDistribution]
"""A task distribution, or what makes one: an id, `"module:name"`, a class or a function."""

_distributions: dict[str, Any] = {}
_agents: dict[str, Any] = {}
_learners: dict[str, Any] = {}
_data: dict[str, Any] = {}
_objectives: dict[str, Any] = {}
_presets: dict[str, Any] = {}
_KINDS = {
    "environment": _distributions,
    "agent": _agents,
    "learner": _learners,
    "data set": _data,
    "objective": _objectives,
    "preset": _presets,
}
_plugins_loaded: set[str] = set()


def register_distribution(id: str, factory: Callable[..., TaskDistribution] | str) -> None:
    """Makes `metarl.make(id, **options)` call `factory(**options)`; raises `ValueError` if the id is taken.

    The factory may be given as `"module:name"`; it is imported on first use. Gymnasium makes the family's environments
    by the id `metarl/ID`, if it allows such an id.

    >>> metarl.register_distribution("ThreeArms-v0", "my_package.bandits:ThreeArms")
    """
    _register("environment", id, factory)
    register_id(id)


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


def register_presets(agent: str, presets: tuple[Preset, ...] | str) -> None:
    """Registers the presets of the agent with this id, which may be given as `"module:NAME"`.

    Raises `ValueError` if the agent has presets already.

    >>> from metarl.registry import register_presets
    >>> register_presets("mine", "my_package.presets:PRESETS")
    """
    _register("preset", agent, presets)


def presets_of(agent: str) -> tuple[Preset, ...]:
    """The presets of the agent with this id; none if it has none."""
    return _find("preset", agent) if agent in _ids("preset") else ()


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


def make(family: Family, **options: Any) -> TaskDistribution:
    """Makes the task distribution that `family` names or makes; one that exists already is returned as it is.

    `family` is an id, `"module:name"`, a class or function that makes a distribution of `options`, or a distribution;
    `module:name` may name any of these. Raises `UsageError` for an unknown id, a missing module or name, an unknown
    option, or anything that is not a `TaskDistribution`.

    >>> metarl.make("PointNavigation-v0", horizon=50).horizon
    50
    """
    found = _find("environment", family) if isinstance(family, str) else family
    shown = family if isinstance(family, str) else _shown(family)
    if isinstance(found, TaskDistribution):
        if options:
            raise UsageError(f"{shown} is not a factory: it takes no options")
        return _with_origin(found, family, options)
    if not callable(found) or isinstance(found, gym.Env):
        raise UsageError(f"{shown} is no TaskDistribution, nor does it make one{_way_out(found)}")
    made = _call(shown, found, options)
    if not isinstance(made, TaskDistribution):
        raise UsageError(f"{shown} is no TaskDistribution, nor does it make one{_way_out(made)}")
    return _with_origin(made, family, options)


def name_of(kind: str, thing: Any) -> str | None:
    """The id under which `thing` is registered, or its `module:name`; None if neither gives it again.

    >>> from metarl.registry import agent_class, name_of
    >>> name_of("agent", agent_class("maml")), name_of("agent", lambda: None)
    ('maml', None)
    """
    _load_plugins()
    name = importable_name(thing)
    for id, target in _KINDS[kind].items():
        if target is thing or (name is not None and target == name):
            return id
    return name


def agent_class(agent: str | type[Agent]) -> type[Agent]:
    """The `Agent` class that an id, or `module:name`, names, or a class itself; raises `UsageError` otherwise."""
    return find_class("agent", agent, Agent)  # type: ignore[type-abstract]


def check_named_in_file(kind: str, id: Any, base: type, owner: str, way_out: str) -> None:
    """Raises `UsageError` unless the file `owner` may name the part: it is registered, or `import_from_file` takes it.

    A name of the wrong form is left to those who look for it.
    """
    _load_plugins()
    if isinstance(id, str) and id not in _KINDS[kind] and ":" in id:
        import_from_file(id, base, owner, way_out)


def find_class(kind: str, named: str | type[Base], base: type[Base]) -> type[Base]:
    """The subclass of `base` that `named`, an id of `kind` or `module:name`, names, or `named` itself if it is one.

    Raises `UsageError` for an unknown id, a missing module or name, or anything that is not such a class.
    """
    found = _find(kind, named) if isinstance(named, str) else named
    if not (isinstance(found, type) and issubclass(found, base)):
        shown = named if isinstance(named, str) else _shown(named)
        raise UsageError(f"{shown} is no {kind}: want a subclass of {base.__module__}.{base.__qualname__}")
    return found


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
        return import_named(id)
    if kind == "environment" and id in gym.registry:
        raise UsageError(f"{id} is an environment of Gymnasium, not a family of tasks{_way_out(None)}")
    near = near_matches(id, known)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(known)[:8])} …, or MODULE:NAME"
    raise UsageError(f"unknown {kind} {id!r}; {hint}")


def _with_origin(family: TaskDistribution, made_of: Family, options: Mapping[str, Any]) -> TaskDistribution:
    """Notes on `family` how it can be made again, if it can; an instance given as such keeps what was noted before."""
    if made_of is not family:
        name = made_of if isinstance(made_of, str) else name_of("environment", made_of)
        origin = None if name is None else Origin(name, dict(options))
        vars(family)["origin"] = origin  # not by assignment, which a frozen dataclass forbids
    return family


def _call(shown: str, factory: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some of Python's own classes have none
        return factory(**options)
    try:
        signature.bind(**options)
    except TypeError as error:
        raise UsageError(f"{shown}: {error}; it takes {signature}") from None
    return factory(**options)


def _shown(thing: Any) -> str:
    if isinstance(thing, TaskDistribution):
        return thing.id
    return getattr(thing, "__qualname__", None) or f"{thing!r:.60}"


def _way_out(thing: Any) -> str:
    gymnasium = thing is None or isinstance(thing, gym.Env)
    return ": make one with metarl.GymnasiumDistribution" if gymnasium else ""


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
