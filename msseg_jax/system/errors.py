"""The error for input that cannot be used."""


class InputError(ValueError):
    """Input that cannot be used.

    The message is for the user: it names the file, field or flag, the value found, the value
    expected, and what to do. The commands print it instead of a traceback.
    """
