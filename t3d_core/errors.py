"""What a user can cure is an error of its own type."""


class UserError(ValueError):
    """A failure that the user can cure: the message names the thing, the value and the cure.

    A job prints its message as one line. Every other exception keeps its traceback, because it is a fault of the code
    or of the machine, and the traceback says where.
    """
