"""The type of all errors that a user can resolve, and the words of any error."""


class UserError(ValueError):
    """An error that the user can resolve: the message names the setting or file, its value, and what to do.

    A job prints its message as one line. Every other exception keeps its traceback, because it is a fault of the code
    or of the machine, and the traceback shows where.
    """


def describe_error(error: Exception) -> str:
    """The message of an error, or its type where it has none."""
    return str(error) or type(error).__name__
