"""Exceptions: mistakes of the user, numbers that nobody can learn from, and disks that take nothing."""

import contextlib
from collections.abc import Iterator


class UsageError(ValueError):
    """A wrong argument, file or id. The message is one line that names the culprit and the way out.

    The command line prints the message and exits with code 2. Nothing has been written or lost by then.

    >>> try:
    ...     metarl.make("Bandit-v0", arms=0)
    ... except metarl.UsageError as error:
    ...     print(error)
    arms must be a whole number of at least 1, got 0
    """


class RenderingUnavailable(UsageError):
    """This machine lacks what draws pictures. The message names the package to install.

    >>> from metarl.errors import RenderingUnavailable
    >>> issubclass(RenderingUnavailable, metarl.UsageError)
    True
    """


class EnvironmentFault(RuntimeError):
    """An environment gave numbers that are not finite, or its simulation broke down, more often than is allowed.

    The message is one line that names the family, the task, the environment and the step. The command line prints it
    and exits with code 1; the run's last checkpoint is from before the fault.

    >>> from metarl.errors import EnvironmentFault
    >>> issubclass(EnvironmentFault, RuntimeError)
    True
    """


class RankLost(RuntimeError):
    """Another of the processes that train together has ended. Its own message says why.

    The command line prints the message, one line, and exits with code 1; the run's last checkpoint is from before.

    >>> from metarl.errors import RankLost
    >>> issubclass(RankLost, RuntimeError)
    True
    """


class NumericalFault(RuntimeError):
    """A loss, a gradient or a parameter is not finite; the step that would have used it was not taken.

    The command line prints the message, one line, and exits with code 1; the run's last checkpoint is from before.

    >>> from metarl.errors import NumericalFault
    >>> issubclass(NumericalFault, RuntimeError)
    True
    """


class StorageFault(RuntimeError):
    """The run folder cannot be written: its disk is full, read-only or gone.

    The command line prints the message, one line, and exits with code 1; the run's last checkpoint is whole.

    >>> from metarl.errors import StorageFault
    >>> issubclass(StorageFault, RuntimeError)
    True
    """


@contextlib.contextmanager
def noted(place: str) -> Iterator[None]:
    """Adds to an exception of the block, which code of others may have raised, a note that says where it happened.

    An exception that has a note knows its place, and those of metarl name theirs.

    >>> from metarl.errors import noted
    >>> try:
    ...     with noted("raised in step 3 of Arms-v0"):
    ...         {}["elbow"]
    ... except KeyError as error:
    ...     print(error.__notes__)
    ['raised in step 3 of Arms-v0']
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, UsageError | EnvironmentFault) and not getattr(error, "__notes__", None):
            error.add_note(place)
        raise
