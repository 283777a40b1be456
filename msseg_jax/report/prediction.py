"""The page that a physician opens: the new lesions of one pair."""

from pathlib import Path

import numpy as np

from msseg_jax.data.dataset import Pair
from msseg_jax.lesions import describe_lesions, number_lesions
from msseg_jax.report.page import make_section, write_page


def write_prediction_report(
    path: Path,
    name: str,
    pair: Pair,
    mask: np.ndarray,
    probability: np.ndarray,
    warnings: list[str],
    facts: list[tuple[str, str]],
) -> None:
    """Lesion list, total volume, warnings and pictures of one pair, in one HTML file.

    Args:
      mask: (D, H, W), 1 where there is a new lesion, on the pair's grid.
      probability: (D, H, W).
      facts: label and value of what to state about how it was made.
    """
    affine, spacing_mm = pair.time01.affine, pair.time01.spacing_mm
    lesions, _ = number_lesions(mask != 0)
    rows = describe_lesions(lesions, affine, spacing_mm, probability)
    section = make_section(
        name, "patient", (pair.time01.array, pair.time02.array), pair.brain, affine,
        {"prediction": lesions}, {"prediction": rows}, warnings, facts,
    )  # fmt: skip
    total_mm3 = sum(row["volume_mm3"] for row in rows)
    write_page(path, "prediction.html", section=section, total_mm3=total_mm3)
