"""What goes wrong through no fault of the code."""


class InputError(ValueError):
    """Input that cannot be used.

    The message is for the user: it names the file, field or flag, the value found, the value
    wanted, and what to do. The command lines print it in place of a traceback.
    """
