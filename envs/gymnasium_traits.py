"""Readable names of what a user puts a family of Gymnasium environments together from, for its run folder."""

import functools
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

LISTED_NUMBERS = 64
"""A longer array has a checksum of its numbers instead of a list."""


def name_of(thing: Any) -> str:
    """The name of a class or function, the id of a specification; `<lambda>` for a lambda.

    Modules are left out, because a script is another module when it is imported.

    >>> name_of(functools.partial(gym.make, "CartPole-v1"))
    "make('CartPole-v1')"
    """
    if isinstance(thing, EnvSpec):
        return thing.id
    if isinstance(thing, functools.partial):
        keywords = [f"{key}={readable(value)!r}" for key, value in thing.keywords.items()]
        return f"{name_of(thing.func)}({', '.join([repr(readable(value)) for value in thing.args] + keywords)})"
    name = getattr(thing, "__qualname__", None)
    return name.rpartition("<locals>.")[2] if isinstance(name, str) else type(thing).__name__


def readable(value: Any) -> Any:
    """`value` in numbers, texts, lists and dictionaries as config.yaml holds them; other objects by their names."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None if value is None else "nan"  # the number would differ from itself
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {str(key): readable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [readable(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub":
        if value.size <= LISTED_NUMBERS:
            return readable(value.tolist())
        return f"{value.dtype} {list(value.shape)} sha256 {hashlib.sha256(value.tobytes()).hexdigest()[:12]}"
    return name_of(value)
