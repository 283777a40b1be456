"""Types of flag values: functions that convert a text, or report which values are expected."""

import argparse
from collections.abc import Callable
from typing import TypeVar

from msseg_jax.configuration.section import Section, expected

Number = TypeVar("Number", int, float)


def number(
    low: float, high: float | None = None, *, below: float | None = None
) -> Callable[[str], float]:
    """Return a function that converts a text to a float within limits.

    Args:
      low: smallest value.
      high: largest value; None: no upper limit.
      below: the value must be less than this; None: no such limit.
    """
    return _in_range(float, low, high, below)


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return a function that converts a text to an int from `low` to `high`.

    Args:
      low: smallest value.
      high: largest value; None: no upper limit.
    """
    return _in_range(int, low, high, None)


def of_setting(section: type[Section], name: str) -> Callable[[str], float]:
    """Return a function that converts a text to a number that a field may have.

    Args:
      section: the section of the configuration.
      name: the name of the field in it, which is an int or a float.
    """
    field = section.model_fields[name]
    kind = int if field.annotation is int else float
    noun = "a whole number" if kind is int else "a number"
    allowed = f"{noun}, {expected(field)}"

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not valid. Expected {allowed}") from None
        try:
            section.model_validate({name: value})
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text} is out of range. Expected {allowed}"
            ) from None
        return value

    return convert


def _in_range(
    kind: type[Number], low: float, high: float | None, below: float | None
) -> Callable[[str], Number]:
    noun = "a whole number" if kind is int else "a number"
    allowed = f"{noun}, {low:g} or more" if high is None else f"{noun} from {low:g} to {high:g}"
    if below is not None:
        allowed = f"{noun}, {low:g} or more and less than {below:g}"

    def convert(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not valid. Expected {allowed}") from None
        inside = value >= low and (high is None or value <= high)
        if not (inside and (below is None or value < below)):  # NaN is not inside
            raise argparse.ArgumentTypeError(f"{text} is out of range. Expected {allowed}")
        return value

    return convert
