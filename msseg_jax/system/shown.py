"""Show a value in a message. A damaged file may hold values that are too long to be read."""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100  # characters
_SHORT.maxlong = 50
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12  # items

MOST_LINES = 20
LONGEST_TEXT = 500  # characters


def shown(value: object) -> str:
    """Return a value as Python writes it, shortened if it is long or deeply nested."""
    return _SHORT.repr(value)


def shown_lines(lines: list[str]) -> str:
    """Return lines as text. If there are many, only the first ones and the number of the others."""
    rest = len(lines) - MOST_LINES
    return "\n".join([*lines[:MOST_LINES], *([f"and {rest} more problems"] if rest > 0 else [])])


def shortened(text: object) -> str:
    """Return a text, such as the message of a library's error, without its end if it is long."""
    text = str(text)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} ..."
