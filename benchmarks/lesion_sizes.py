"""Print sensitivity, PPV and F1 by lesion volume, for one or more evaluations.

Usage: python -m benchmarks.lesion_sizes EVALUATION ...
An EVALUATION is the folder that `msseg evaluate --output` wrote. Give several to compare methods
on the same patients.
"""

import argparse
import itertools
import sys
from pathlib import Path

import pandas as pd

EDGES_MM3 = (0, 30, 100, 300, 1000, float("inf"))
HEADING = f"{'volume, mm3':>14}  sensitivity  PPV  F1"  # of the rows of `format_row`


def by_volume(lesions: pd.DataFrame) -> list[tuple[str, int, int, int, int]]:
    """Count the lesions in each range of volumes, from 100 mm3 on, and in all ranges together.

    Args:
      lesions: table `lesions.csv` of an evaluation.

    Returns:
      For each range its name and four counts: detected reference lesions, all reference lesions,
      confirmed predicted lesions, all predicted lesions.
    """
    rows = []
    ranges = [*itertools.pairwise(EDGES_MM3), (100, float("inf")), (0, float("inf"))]
    for low, high in ranges:
        part = lesions[(lesions["volume_mm3"] >= low) & (lesions["volume_mm3"] < high)]
        counts = []
        for mask in ("reference", "prediction"):
            agrees = part[part["mask"] == mask]["agrees"]
            counts += [int(agrees.sum()), len(agrees)]
        name = f"{low:g} to {high:g}" if high < float("inf") else f"{low:g} or more"
        rows.append(("all" if (low, high) == ranges[-1] else name, *counts))
    return rows


def format_row(name: str, detected: int, lesions: int, confirmed: int, predicted: int) -> str:
    """Return a line with sensitivity, PPV and F1, and the counts they are computed from."""
    sensitivity, precision = (
        part / whole if whole else float("nan")
        for part, whole in ((detected, lesions), (confirmed, predicted))
    )
    f1 = 2 * detected * confirmed / max(detected * predicted + confirmed * lesions, 1)
    return (
        f"{name:>14}  {sensitivity:6.2f} ({detected} of {lesions})  {precision:6.2f} "
        f"({confirmed} of {predicted})  {f1:6.2f}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "evaluation", type=Path, nargs="+", help="folder of msseg evaluate --output"
    )
    for folder in parser.parse_args().evaluation:
        file = folder / "lesions.csv"
        if not file.is_file():
            sys.exit(
                f"{file}: no such file. Give a folder that msseg evaluate --output has written."
            )
        print(f"{folder}\n{HEADING}")
        for row in by_volume(pd.read_csv(file)):
            print(format_row(*row))


if __name__ == "__main__":
    main()
