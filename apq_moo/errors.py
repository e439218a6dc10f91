"""The one exception that a user's mistake raises."""


class UserError(ValueError):
    """A mistake in the caller's input.

    The message is one line that names the value, what was allowed, and how to mend it. The command
    line prints it without a traceback and exits with code 2.
    """
