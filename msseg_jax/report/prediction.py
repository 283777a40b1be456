"""The page that a physician opens: the new lesions of one pair."""

from pathlib import Path

import numpy as np

from msseg_jax.report.page import make_section, write_page
from msseg_jax.volumes.pair import Pair


def write_prediction_report(
    path: Path,
    name: str,
    pair: Pair,
    lesions: np.ndarray,
    rows: list[dict],
    warnings: list[str],
    facts: list[tuple[str, str]],
    scanner_mask: Path | None = None,
) -> None:
    """Lesion list, total volume, warnings and pictures of one pair, in one HTML file.

    Args:
      name: of the pair, for the title.
      lesions: (D, H, W) int, numbered, on the pair's grid, to be drawn.
      rows: what `describe_lesions` says of them.
      facts: label and value of what to state about how it was made.
      scanner_mask: the mask that `rows` are of, where it lies on the second visit's own grid and
        `lesions` are it, brought here.
    """
    section = make_section(
        name, "patient", (pair.time01.array, pair.time02.array), pair.brain, pair.time01.affine,
        {"prediction": lesions}, {"prediction": rows}, warnings, facts,
    )  # fmt: skip
    total_mm3 = sum(row["volume_mm3"] for row in rows)
    write_page(
        path, "prediction.html", section=section, total_mm3=total_mm3, scanner_mask=scanner_mask
    )
