"""Write counts and durations in words."""


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
