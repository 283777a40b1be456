"""The flags of `msseg evaluate`."""

import argparse
from pathlib import Path

EXAMPLES = ("--reference ROOT --prediction DIR -o SCORES",)
DESCRIPTION = (
    "Score predicted masks of new lesions by the rules of the MSSEG-2 challenge, and write tables\n"
    "and a report."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "--reference", required=True, type=Path, metavar="ROOT",
        help="folder in the MSSEG-2 layout, with the consensus and any experts",
    )  # fmt: skip
    parser.add_argument(
        "--prediction", required=True, type=Path, metavar="DIR",
        help="folder of masks, <patient>.nii.gz",
    )  # fmt: skip
    parser.add_argument(
        "--probability", type=Path, metavar="DIR",
        help="folder of probability maps, <patient>.nii.gz, for the curve over thresholds",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="folder to write tables (CSV, JSON) and report.html into",
    )  # fmt: skip
    parser.add_argument(
        "--model", type=Path, action="append", default=[], metavar="MODEL",
        help="model that predicted, as `msseg predict` takes it; give it for each model of an "
        "ensemble. The report then warns of visits unlike those of the training",
    )  # fmt: skip
    parser.add_argument("--no_report", action="store_true", help="write only the tables")
