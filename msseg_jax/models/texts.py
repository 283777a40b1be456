"""Types of the texts in model files: only characters that a terminal prints as they are."""

from typing import Annotated

from pydantic import AfterValidator


def _printable(text: str) -> str:
    if not all(c.isprintable() or c == "\n" for c in text):
        raise ValueError(f"the text {text!r} contains characters that cannot be printed")
    return text


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"the text {text!r} is not a single line of printable characters")
    return text


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty")
    return text


Text = Annotated[str, AfterValidator(_printable)]
Line = Annotated[str, AfterValidator(_one_line)]
FilledLine = Annotated[Line, AfterValidator(_not_empty)]
