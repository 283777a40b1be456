"""Format tables as plain text."""

from collections.abc import Sequence


def text_table(
    rows: Sequence[Sequence[str]], alignment: str, least_widths: Sequence[int] = ()
) -> str:
    """Return a line of text for each row, with two spaces between the columns.

    Args:
      rows: the cells of each row; all rows have the same number of cells.
      alignment: one character per column: "<" aligns to the left, ">" to the right.
      least_widths: minimum widths of the first columns, in characters. Every column is at least as
        wide as its longest cell.
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
