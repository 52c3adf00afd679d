"""The one exception type for mistakes that a single line can explain."""


class UsageError(ValueError):
    """A wrong argument, file or id. The message names the culprit and the way out.

    The command line prints it as one line and exits with code 2; nothing has been written or lost by then.
    """
