"""The exception for mistakes of the user."""


class UsageError(ValueError):
    """A wrong argument, file or id. The message is one line that names the culprit and the way out.

    The command line prints the message and exits with code 2. Nothing has been written or lost by then.

    >>> try:
    ...     metarl.make("Bandit-v0", arms=0)
    ... except metarl.UsageError as error:
    ...     print(error)
    arms must be a whole number of at least 1, got 0
    """
