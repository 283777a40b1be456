"""Text in columns."""

from collections.abc import Sequence


def text_table(
    rows: Sequence[Sequence[str]], alignment: str, least_widths: Sequence[int] = ()
) -> str:
    """Return a line of text for each row, with two spaces between the columns.

    Args:
      rows: of cells; all rows have as many.
      alignment: a character for each column: "<" for the left side, ">" for the right side.
      least_widths: of the first columns, in characters. A column is as wide as its longest cell.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for column, least in enumerate(least_widths):
        widths[column] = max(widths[column], least)
    lines = (
        "  ".join(
            f"{cell:{side}{width}}"
            for cell, side, width in zip(row, alignment, widths, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
