"""Write tables as CSV that spreadsheets open safely.

A spreadsheet runs a cell that begins with "=", and a patient may have such a name. So text that
begins in such a way gets an apostrophe before it, as OWASP advises ("CSV Injection"). Spreadsheets
show it as text.
"""

from functools import partial
from pathlib import Path

import pandas as pd

from msseg_jax.system.atomic import write_beside

BEGIN_FORMULAS = ("=", "+", "-", "@", "\t")
GUARD = "'"


def write_table(path: Path, table: pd.DataFrame, float_format: str | None = None) -> None:
    """Write a table without its index, completely or not at all.

    Args:
      float_format: the format of fractions, such as '%.7g'; None: all digits.
    """
    safe = table.copy()
    for name in table.select_dtypes(exclude="number"):
        safe[name] = table[name].map(_guarded)
    # On Linux, a file name may hold bytes that are no text. They become escapes.
    save = partial(safe.to_csv, index=False, float_format=float_format, errors="backslashreplace")
    write_beside(path, save)


def without_guard(text: str) -> str:
    """Return the text that `write_table` was given, from what it wrote; escapes stay."""
    return text[len(GUARD) :] if text.startswith(GUARD) and _is_formula(text) else text


def _guarded(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.replace("\r", "\\r")  # without quotes around it, it would end the row
    return GUARD + text if _is_formula(text) else text


def _is_formula(text: str) -> bool:
    # Text that begins with an apostrophe before a formula gets another one, so that
    # `without_guard` returns each text as it was.
    return text.lstrip(GUARD).startswith(BEGIN_FORMULAS)
