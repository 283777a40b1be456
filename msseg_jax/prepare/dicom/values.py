"""Get values from a header that pydicom has read.

Scanners, archives and anonymisation programs write headers with all kinds of faults. A value that
only describes a slice is ignored if it is malformed. A value that an image needs is an error.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, time, timedelta
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.valuerep import DA, DT, TM

# The first MR scans of patients. Earlier dates, such as 1900-01-01, are dummies.
EARLIEST = date(1980, 1, 1)
# Fields with the date and the time of a visit, the most precise first.
WHEN = (
    ("AcquisitionDate", "AcquisitionTime"),
    ("AcquisitionDateTime", None),  # both in one value
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)
LARGEST = 1e5  # of positions and sizes in mm
LONGEST_TEXT = 200  # characters of a value in messages


class DamagedSliceError(Exception):
    """A file is an MR image, but cannot be used. The message says why."""

    uid = ""  # of its series, if that could be read


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's many warnings about imperfect files from the terminal."""
    logger = logging.getLogger("pydicom")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled


def _value(dataset: Dataset, keyword: str) -> Any:
    """Return a value as pydicom decodes it: None if it is missing or cannot be decoded."""
    try:
        return dataset[keyword].value if keyword in dataset else None
    except Exception:  # pydicom raises errors of many classes for odd values
        return None


def text_of(dataset: Dataset, keyword: str) -> str:
    """Return a value as text without control characters; '' if there is none."""
    value = _value(dataset, keyword)
    if value is None:
        return ""
    parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
    text = "\\".join(str(part) for part in parts)[:LONGEST_TEXT]
    return "".join(c if c.isprintable() else " " for c in text).strip()


def numbers(dataset: Dataset, keyword: str, count: int) -> np.ndarray:
    """Return several decimal numbers: (count,).

    Raises:
      DamagedSliceError: The value is missing or malformed.
    """
    value = _value(dataset, keyword)
    parts = value if hasattr(value, "__len__") and not isinstance(value, str | bytes) else [value]
    # If a part is not a number, pydicom returns it as text.
    if len(parts) == count and all(isinstance(part, int | float) for part in parts):
        found = np.array(parts, float)
        if (np.abs(found) <= LARGEST).all():  # False for NaN
            return found
    raise DamagedSliceError(
        f"{keyword} is {text_of(dataset, keyword) or 'missing'}; expected {count} numbers"
    )


def whole(dataset: Dataset, keyword: str, low: int, high: int, otherwise: int | None = None) -> int:
    """Return a whole number.

    Args:
      otherwise: is returned if the value is missing.

    Raises:
      DamagedSliceError: The value is missing, malformed or not from `low` to `high`.
    """
    value = _value(dataset, keyword)
    if otherwise is not None and (keyword not in dataset or value in (None, "")):
        return otherwise
    if not isinstance(value, int) or not low <= value <= high:
        raise DamagedSliceError(
            f"{keyword} is {text_of(dataset, keyword) or 'missing'}; expected a whole number from "
            f"{low} to {high}"
        )
    return int(value)


def acquired(dataset: Dataset) -> tuple[date, time | None] | None:
    """Return the date of a visit, and the time if it is known.

    Impossible dates are left out: before the first MR scanners, or in the future.
    """
    latest = date.today() + timedelta(days=1)  # the clock of the scanner may be in another zone
    for day_field, time_field in WHEN:
        day = text_of(dataset, day_field)
        found = _day(day) if time_field else _moment(day)
        if found is None or not EARLIEST <= found <= latest:
            continue
        clock = _time(text_of(dataset, time_field)) if time_field else _time(day[8:14])
        return date(found.year, found.month, found.day), clock
    return None


def _day(text: str) -> date | None:
    try:
        return DA(text)
    except ValueError:
        return None


def _moment(text: str) -> date | None:
    """Return the day of a date and time; None if only the year or the month is given."""
    try:
        return DT(text).date() if len(text) >= len("20190304") else None
    except (ValueError, OverflowError):
        return None


def _time(text: str) -> time | None:
    try:
        found = TM(text)
    except ValueError:
        return None
    return None if found is None else time(found.hour, found.minute, found.second)
