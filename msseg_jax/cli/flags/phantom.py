"""The flags of `msseg phantom`."""

import argparse
from pathlib import Path

from msseg_jax.cli.flags.values import number, whole_number

EXAMPLES = ("-o ROOT --patients 8",)
DESCRIPTION = (
    "Make artificial patients in the MSSEG-2 layout, to try everything without medical data."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="ROOT", help="folder for the data set"
    )
    parser.add_argument(
        "--patients", type=whole_number(1), default=8, metavar="N",
        help="number of patients; 29 of 40 have new lesions; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N",
        help="the same seed gives the same bytes; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--spacing_mm", type=number(0.5, 4), metavar="MM",
        help="voxel side of all patients; default: each patient has another",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=whole_number(1), metavar="N", help="processes; default: one per processor"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace patients of the same name"
    )
