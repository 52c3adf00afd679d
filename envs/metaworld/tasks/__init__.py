"""The fifty tasks of Meta-World, a module each, named as the task is: `drawer-open-v3` is in `drawer_open`."""

import difflib
import functools
import importlib

from metarl.envs.metaworld.definition import TaskDefinition
from metarl.envs.metaworld.task_sets import TASKS
from metarl.errors import UsageError


@functools.cache
def definition(name: str) -> TaskDefinition:
    """The task called `name`; raises `UsageError` for an unknown one."""
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see metarl.envs.metaworld.task_sets.TASKS"
        raise UsageError(f"unknown Meta-World task {name!r}: {hint}")
    module = importlib.import_module(f"{__name__}.{name.removesuffix('-v3').replace('-', '_')}")
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, TaskDefinition)]
    return next(kind for kind in kinds if kind.__module__ == module.__name__)()
