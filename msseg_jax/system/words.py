"""Write counts, durations and lines of the output in words."""

from pathlib import Path


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun: '1 patient', '3 patients'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a duration for a reader: '4.2 s', '73 s', '12 min', '2 h 5 min'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 599.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def warning_line(name: str, warning: str) -> str:
    """Return a warning about a patient in the form of those that are logged."""
    return f"WARNING: {name}: {warning}"


def closing_line(kind: str, path: Path, content: str, ending: str) -> str:
    """Return the line that says what to open, such as 'report: new.html (4 lesions), 73 s'.

    Args:
      kind: what to open.
      path: where it is.
      content: what it holds.
      ending: the duration, or another remark.
    """
    return f"{kind}: {path} ({content}), {ending}"
