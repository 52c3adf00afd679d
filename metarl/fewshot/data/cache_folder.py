"""The folder that keeps pictures once they have been decoded."""

import os
from pathlib import Path

from metarl.errors import UsageError


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/metarl`, or `~/.cache/metarl`. Raises `UsageError` if there is no home folder.

    >>> from metarl.fewshot.data.cache_folder import cache_folder
    >>> cache_folder().name
    'metarl'
    """
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given or Path.home() / ".cache") / "metarl"
    except RuntimeError:  # a container's user without an account
        raise UsageError("there is no home folder to keep decoded pictures in: set XDG_CACHE_HOME to one") from None
