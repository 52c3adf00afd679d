"""What a Gymnasium environment returns from `reset` and `step`, checked before anyone computes with it."""

import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

LARGEST = float(np.finfo(np.float32).max)
"""Rewards beyond float32 are no better than infinite ones."""
_BOOLEANS = ("bool", "torch.bool")


class WrongAnswer(Exception):
    """An environment returned something else than Gymnasium's interface asks for; the message continues its name."""


def check_reset(answer: Any) -> tuple[Any, Mapping[str, Any]]:
    """Observation and info of a reset. Raises `WrongAnswer` for anything else, such as the bare observation of gym."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise WrongAnswer(f"reset returned {describe(answer)} instead of (observation, info)")
    observation, info = answer
    if not isinstance(info, Mapping):
        raise WrongAnswer(f"reset returned {describe(info)} as info, which has to be a dict: return observation, {{}}")
    return observation, info


def check_step(answer: Any) -> tuple[Any, float, bool, bool, Mapping[str, Any]]:
    """Observation, reward, terminated, truncated and info of a step. Raises `WrongAnswer` for anything else.

    The reward may be any real number, also an array without dimensions; a number that is not finite passes. Flags are
    True or False, also those of NumPy.
    """
    if not (type(answer) is tuple or isinstance(answer, list)) or len(answer) != 5:
        old = " (gym before 0.26 returned 4 values: split done)" if _length(answer) == 4 else ""
        wanted = "(observation, reward, terminated, truncated, info)"
        raise WrongAnswer(f"step returned {describe(answer)} instead of {wanted}{old}")
    observation, reward, terminated, truncated, info = answer
    if type(reward) is not float:
        reward = _real(reward, "reward")
    if type(terminated) is not bool:
        terminated = _flag(terminated, "terminated")
    if type(truncated) is not bool:
        truncated = _flag(truncated, "truncated")
    if type(info) is not dict and not isinstance(info, Mapping):
        raise WrongAnswer(f"step returned {describe(info)} as info, which has to be a dict")
    return observation, reward, terminated, truncated, info


def find_success(info: Mapping[str, Any], keys: tuple[str, ...]) -> bool | None:
    """Whether `info` reports success under the first of `keys` that it has; None if it has none of them.

    Raises `WrongAnswer` for a share of success, NaN and whatever else is neither true nor false.
    """
    for key in keys:
        if key in info:
            success = _truth(info[key])
            if success is None:
                what = f"info[{key!r}], which has to be True or False, or 1 or 0"
                raise WrongAnswer(f"step returned {describe(info[key])} as {what}")
            return success
    return None


def tells_success(info: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    """Whether `info` has something under one of `keys` that can be read as success."""
    return any(key in info and _truth(info[key]) is not None for key in keys)


def is_bad(reward: float) -> bool:
    """Whether a reward is not finite in float32."""
    return not -LARGEST <= reward <= LARGEST


def describe(value: Any) -> str:
    """A few words about a value, for messages."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape) > 0:
        return f"an array of {value.dtype} {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(repr, value))}" if value else "an empty dict"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value) if len(repr(value)) <= 40 else f"a {type(value).__name__}"


def other_space(name: str, found: gym.Space, wanted: gym.Space) -> str:
    """The words for an environment that has not the space of its family."""
    own, given = (" ".join(str(space).split()) for space in (found, wanted))  # the bounds of large boxes fill lines
    return f"the {name} space {own}, but its family, from spaces= or the first environment made, has {given}"


def require_keyword(env: gym.Env, name: str) -> None:
    """Raises `WrongAnswer` unless `reset` of the environment and of its wrappers takes the keyword `name`."""
    for layer in layers(env):
        try:
            parameters = inspect.signature(layer.reset).parameters
        except ValueError:  # compiled
            continue
        if name not in parameters and all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            raise WrongAnswer(f"reset takes no {name}: define it as reset(self, *, seed=None, options=None)")


def layers(env: gym.Env) -> list[gym.Env]:
    """The wrappers of an environment from the outermost on, and the environment itself."""
    found = [env]
    while isinstance(found[-1], gym.Wrapper):
        found.append(found[-1].env)
    return found


def _real(value: Any, name: str) -> float:
    number = _number(value)
    if number is None:
        raise WrongAnswer(f"step returned {describe(value)} as {name}, which has to be a single number")
    return number


def _number(value: Any) -> float | None:
    """`value` as a float, if it is a single real number: no string, no None, no array of one."""
    if hasattr(type(value), "__float__") and getattr(value, "ndim", 0) == 0:
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):  # 0-d arrays of objects or strings, complex numbers, 10**400
            pass
    return None


def _flag(value: Any, name: str) -> bool:
    if isinstance(value, np.bool_) or (getattr(value, "ndim", None) == 0 and str(value.dtype) in _BOOLEANS):
        return bool(value)
    if isinstance(value, int | np.integer) and value in (0, 1):
        return bool(value)
    raise WrongAnswer(f"step returned {describe(value)} as {name}, which has to be True or False")


def _truth(value: Any) -> bool | None:
    """`value` as a truth value, if it is one, or 0 or 1 as a number of any kind."""
    if type(value) is bool:
        return value
    number = _number(value)
    return bool(number) if number in (0.0, 1.0) else None


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, tuple | list) else None
