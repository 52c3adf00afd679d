"""Names of data sets, learners and objectives → the classes that they stand for, imported when asked for."""

import importlib
from collections.abc import Mapping
from typing import Any

from metarl.errors import UsageError
from metarl.registry import near_matches


def import_named(known: Mapping[str, str], name: str, kind: str) -> Any:
    """What the path `known[name]`, "module:name", names; raises `UsageError` for an unknown `name`."""
    if name not in known:
        near = near_matches(name, known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
        raise UsageError(f"unknown {kind} {name!r}; {hint}")
    module, _, attribute = known[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
