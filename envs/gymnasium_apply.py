"""Giving one Gymnasium environment its task, so that a task that reaches nothing is noticed."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np

from metarl.envs.gymnasium_answers import layers
from metarl.errors import UsageError

ALIKE = 0.8
"""Names are nearly the same if this share of their letters is, by difflib's measure."""
Apply: TypeAlias = Callable[[gym.Env, Mapping[str, Any]], None]
"""Gives an environment its task: numbers by name, or arrays where a parameter has a shape."""


def apply_task(apply: Apply, env: gym.Env, values: Mapping[str, Any], id: str) -> None:
    """Calls `apply(env, values)`; raises `UsageError`, which starts with `id`, if that set an attribute that is lost.

    `env.g = 5` on an environment from `gymnasium.make` makes a new attribute of Gymnasium's outermost wrapper, and the
    environment goes on with its own `g`: all tasks are the same one, and training on them looks like any other. A
    misspelt name, of which the environment has nearly the same, does so too.

    >>> from metarl.envs.gymnasium_apply import apply_task
    >>> env = gym.make("Pendulum-v1")
    >>> apply_task(lambda env, task: setattr(env.unwrapped, "g", task["g"]), env, {"g": 5.0}, "Gravity-v0")
    >>> env.unwrapped.g
    5.0
    """
    around = [layer for layer in layers(env) if _is_of_gymnasium(layer)]
    before = [set(vars(layer)) for layer in around]
    own = set(vars(env.unwrapped))
    apply(env, values)
    for name in vars(env.unwrapped).keys() - own:
        _check_spelling(env.unwrapped, name, own, id)
    for layer, known in zip(around, before, strict=True):
        for name in vars(layer).keys() - known:
            if not hasattr(type(layer), name):
                _check_reached(layer, name, id)


def _check_spelling(env: gym.Env, name: str, known: set[str], id: str) -> None:
    """Raises `UsageError` if `env` has a new attribute `name` and one of nearly the same name."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=ALIKE)
    if near and not hasattr(type(env), name):
        raise UsageError(
            f"{id}: apply= sets {name!r} on {type(env).__name__}, which has had no such attribute: did you mean "
            f"{near[0]!r}? If not, give it {name!r} when it is made"
        )


def _is_of_gymnasium(layer: gym.Env) -> bool:
    """Whether it is one of Gymnasium's own wrappers, which read no attributes but their own."""
    return isinstance(layer, gym.Wrapper) and type(layer).__module__.startswith("gymnasium.wrappers")


def _check_reached(layer: gym.Env, name: str, id: str) -> None:
    """Raises `UsageError` if something inside of `layer` has an attribute `name` with another value."""
    value = getattr(layer, name)
    for inner in list(layers(layer))[1:]:
        if hasattr(inner, name) and not np.array_equal(getattr(inner, name), value):
            place = "env.unwrapped" if inner is layer.unwrapped else f"the wrapper {type(inner).__name__}"
            raise UsageError(
                f"{id}: apply= sets {name!r} on {type(layer).__name__}, a wrapper of Gymnasium around "
                f"{type(inner).__name__}, which keeps its own: set it on {place}"
            )
