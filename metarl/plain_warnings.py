"""Warnings as a command shows them: a plain line each, once. In Python they stay what Python makes of them."""

import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from metarl.parsing import printable

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_prefix: str | None = None
_said: set[str] = set()


@contextlib.contextmanager
def plain_warnings(who: str = "") -> Iterator[None]:
    """Within the block, a warning is a line on stderr, `metarl: warning: …`, once for each message.

    Nothing but its form changes: filters decide as always which warnings are shown, ignored or raised. `who` names this
    process if there are several.

    >>> from metarl.plain_warnings import are_plain, plain_warnings
    >>> with plain_warnings():
    ...     are_plain()
    True
    """
    global _prefix
    before = _prefix, warnings.formatwarning
    _prefix = f"metarl: warning: {who}"
    # Not `showwarning`: whoever catches warnings puts that back.
    warnings.formatwarning = lambda message, *_, **__: _line(str(message))
    try:
        yield
    finally:
        _prefix, warnings.formatwarning = before
        _said.clear()


def are_plain() -> bool:
    """Whether this process shows its warnings so. Worker processes then bring it theirs."""
    return _prefix is not None


@dataclass(frozen=True)
class Remarked:
    """The answer of a worker process, with the warnings that came up on the way to it.

    >>> from metarl.plain_warnings import Remarked
    >>> Remarked(3, []).read()
    3
    """

    answer: Any
    warned: list[str]

    def read(self) -> Any:
        """Shows the warnings, those of several workers once; returns the answer."""
        sys.stderr.write("".join(map(_line, self.warned)))
        return self.answer


def kept_warnings() -> list[str]:
    """From now on, warnings of this process go to the list that is returned, instead of to stderr."""
    kept: list[str] = []
    warnings.showwarning = lambda message, *_, **__: kept.append(str(message))
    return kept


def _line(message: str) -> str:
    """The line of a warning; nothing the second time."""
    text = _COLOURS.sub("", message).removeprefix("WARN: ").removeprefix("ERROR: ")  # Gymnasium's have both
    line = f"{_prefix}{printable(' '.join(text.split()), most=4000)}\n"
    if line in _said:
        return ""
    _said.add(line)
    return line
