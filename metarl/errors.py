"""The exception for mistakes of the user."""


class UsageError(ValueError):
    """A wrong argument, file or id. The message is one line that names the culprit and the way out.

    The command line prints the message and exits with code 2. Nothing has been written or lost by then.

    >>> metarl.make("PointNavigation-v1")
    Traceback (most recent call last):
    metarl.errors.UsageError: unknown environment 'PointNavigation-v1'; did you mean PointNavigation-v0?
    """
