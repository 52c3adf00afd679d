"""Options as the words of a command line, so that a result names the command that reproduces it."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any


def changed_flags(options: Any, default: Any, names: Iterable[str] | None = None) -> Iterator[str]:
    """The words for the fields of the dataclass `options`, all or the named ones, that differ from `default`.

    >>> from metarl.fewshot.command_line import changed_flags
    >>> from metarl.fewshot import EpisodeShape
    >>> list(changed_flags(EpisodeShape(ways=5, shots=2), EpisodeShape(ways=5, shots=1)))
    ['--shots', '2']
    """
    for name in [f.name for f in dataclasses.fields(default)] if names is None else names:
        value = getattr(options, name)
        if value == getattr(default, name):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield f"--{flag}"
            yield from (str(part) for part in (value if isinstance(value, tuple) else (value,)))
