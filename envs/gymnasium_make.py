"""Making one Gymnasium environment from an id, a specification or a factory, here and in worker processes."""

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cloudpickle
import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, parse_env_id

from metarl.envs.gymnasium_answers import describe, layers
from metarl.envs.gymnasium_traits import name_of, readable
from metarl.errors import UsageError

Source: TypeAlias = str | EnvSpec | Callable[..., gym.Env]
"""An id as `gymnasium.make` takes it, a specification, or a function that makes an environment."""
Wrap: TypeAlias = Callable[[gym.Env], gym.Env]


@dataclass(frozen=True)
class Maker:
    """Makes environments without their id's time limit: the family keeps the time.

    Unknown ids, missing packages and wrong arguments are a `UsageError` of one line, which starts with `id`. Whatever
    else a constructor raises comes out as it is.

    >>> Maker("Poles-v0", "CartPole-v1")()
    <OrderEnforcing<CartPoleEnv<CartPole-v1>>>
    """

    id: str
    source: Source
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    wrappers: Sequence[Wrap] = ()
    render_mode: str | None = None

    def __call__(self) -> gym.Env:
        kwargs = dict(self.kwargs)
        if self.render_mode is not None:  # some constructors take none, or refuse None
            kwargs["render_mode"] = self.render_mode
        env = self._register(kwargs) if isinstance(self.source, str | EnvSpec) else self._call(self.source, kwargs)
        for wrap in self.wrappers:
            env = self._wrap(env, wrap)
        for name in ("observation_space", "action_space"):
            space = getattr(env, name, None)
            if not isinstance(space, gym.Space):
                what = "no space" if space is None else f"{describe(space)}, which is no gymnasium.Space,"
                raise UsageError(f"{self.id}: {type(env.unwrapped).__name__} has {what} as its {name}")
        return env

    @property
    def traits(self) -> dict[str, Any]:
        """Names of what makes the environments, for people: `environment`, `env_kwargs`, `wrappers`."""
        spec = self.source if isinstance(self.source, EnvSpec) else None
        outer = [] if spec is None else [wrapper.name for wrapper in spec.additional_wrappers]
        return {
            "environment": name_of(self.source),
            "env_kwargs": readable({**({} if spec is None else spec.kwargs), **self.kwargs}),
            "wrappers": outer + [name_of(wrap) for wrap in self.wrappers],
        }

    def rendering(self, render_mode: str | None) -> "Maker":
        return dataclasses.replace(self, render_mode=render_mode)

    def resolved(self) -> "Maker":
        """This maker with the specification in the place of an id.

        Raises `UsageError` for an unknown id, and for what makes no environments, such as an environment.
        """
        if isinstance(self.source, gym.Env | gym.vector.VectorEnv):
            raise UsageError(
                f"{self.id}: pass a class or a function that makes an environment, not an environment "
                f"({type(self.source).__name__}): each of a batch is made anew"
            )
        if not (isinstance(self.source, str | EnvSpec) or callable(self.source)):
            wanted = "an id, an EnvSpec, or a class or function that makes an environment"
            raise UsageError(f"{self.id}: pass {wanted}, not {describe(self.source)}")
        if not isinstance(self.source, str):
            return self
        try:
            return dataclasses.replace(self, source=find_spec(self.source))
        except (gym.error.Error, ImportError) as error:
            raise UsageError(f"{self.id}: {in_a_line(error)}") from error

    def _register(self, kwargs: dict[str, Any]) -> gym.Env:
        source = self.source
        assert isinstance(source, str | EnvSpec)
        try:
            return gym.make(source, **({"max_episode_steps": -1, "disable_env_checker": True} | kwargs))
        except (gym.error.Error, ImportError, TypeError) as error:
            line = in_a_line(error)
            if "unexpected keyword argument 'render_mode'" in line:
                line = "this environment cannot be rendered: its constructor takes no render_mode"
            raise UsageError(f"{self.id}: {line}") from error

    def _wrap(self, env: gym.Env, wrap: Wrap) -> gym.Env:
        try:
            wrapped = wrap(env)
        except Exception as error:  # wrappers refuse with whatever comes to their authors' minds
            name = name_of(wrap)
            hint = f"; if it wants arguments, pass lambda env: {name}(env, …)" if isinstance(wrap, type) else ""
            found = f"raised {type(error).__name__}: {in_a_line(error)}{hint}"
            raise UsageError(f"{self.id}: the wrapper {name} {found}") from error
        if not isinstance(wrapped, gym.Env):
            found = f"wrappers= returned {wrapped!r}, which is no gymnasium.Env"
            raise UsageError(f"{self.id}: the function {name_of(wrap)} of {found}")
        return wrapped

    def _call(self, factory: Callable[..., gym.Env], kwargs: dict[str, Any]) -> gym.Env:
        name = getattr(factory, "__qualname__", repr(factory))
        try:
            parameters = inspect.signature(factory)
        except (TypeError, ValueError):  # built into the interpreter
            return factory(**kwargs)
        try:
            parameters.bind(**kwargs)
        except TypeError as error:
            if "render_mode" in str(error):
                raise UsageError(
                    f"{self.id}: this environment cannot be rendered: its factory takes no render_mode"
                ) from None
            raise UsageError(f"{self.id}: {name}: {error}: pass its arguments as env_kwargs={{…}}") from None
        try:
            env = factory(**kwargs)
        except (gym.error.Error, ImportError) as error:
            raise UsageError(f"{self.id}: {in_a_line(error)}") from error
        if not isinstance(env, gym.Env):
            raise UsageError(f"{self.id}: {name} made a {type(env).__name__}, which is no gymnasium.Env")
        return env


def find_spec(id: str) -> EnvSpec:
    """The specification that `gymnasium.make(id)` would use; `module:Id` imports the module, as there."""
    module, _, name = id.rpartition(":")
    if module:
        importlib.import_module(module)
    if name not in gym.registry:
        namespace, base, version = parse_env_id(name)
        latest = find_highest_version(namespace, base) if version is None else None
        name = name if latest is None else get_env_id(namespace, base, latest)
    return gym.spec(name)


def time_limit(env: gym.Env, source: Source) -> int | None:
    """The steps after which an episode of `env` is truncated: the specification's, or those of a wrapper."""
    limits = [layer._max_episode_steps for layer in layers(env) if isinstance(layer, gym.wrappers.TimeLimit)]
    if isinstance(source, EnvSpec) and source.max_episode_steps is not None:
        limits.append(source.max_episode_steps)
    if not limits and env.spec is not None and env.spec.max_episode_steps is not None:
        limits.append(env.spec.max_episode_steps)
    return min(limits, default=None)


def in_a_line(error: BaseException) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


# The registry of Gymnasium in worker processes ------------------------------------------------------------------------


@dataclass(frozen=True)
class Registry:
    """What is registered with Gymnasium in this process, for another one.

    Specifications that cannot be pickled are left out. If they name something of `__main__`, it goes along, because the
    `__main__` of a worker is another module.
    """

    specs: Mapping[str, bytes]
    names: bytes

    @classmethod
    def read(cls) -> "Registry":
        specs, names, main = {}, {}, sys.modules["__main__"]
        for id, spec in gym.registry.items():
            wrappers = (wrapper.entry_point for wrapper in spec.additional_wrappers)
            for entry in (spec.entry_point, *wrappers):
                module, _, name = entry.partition(":") if isinstance(entry, str) else ("", "", "")
                if module == "__main__" and hasattr(main, name):
                    names[name] = getattr(main, name)
            data = _pickled_or_none(spec)
            if data is not None:
                specs[id] = data
        pickled = {name: data for name, value in names.items() if (data := _pickled_or_none(value)) is not None}
        return cls(specs, cloudpickle.dumps(pickled))


def _pickled_or_none(value: Any) -> bytes | None:
    try:
        return cloudpickle.dumps(value)
    except Exception:  # whatever the user's objects raise
        return None
