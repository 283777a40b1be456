"""The flags of `msseg evaluate`."""

import argparse
from pathlib import Path

EXAMPLES = ("--reference pairs --prediction masks -o scores",)
DESCRIPTION = (
    "Score predicted masks of new lesions by the rules of the MSSEG-2 challenge, and write tables\n"
    "and a report."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    source = parser.add_argument_group("input")
    source.add_argument(
        "--reference", required=True, type=Path, metavar="ROOT",
        help="Folder in the MSSEG-2 layout, with one folder per patient. Each holds the consensus "
        "mask, and may hold the masks of single experts. Required.",
    )  # fmt: skip
    source.add_argument(
        "--prediction", required=True, type=Path, metavar="DIR",
        help="Folder with the predicted masks, <patient>.nii.gz, as `msseg predict --dataset` "
        "writes them. Required.",
    )  # fmt: skip
    source.add_argument(
        "--probability", type=Path, metavar="DIR",
        help="Folder with the probability maps, <patient>.nii.gz, as `msseg predict --dataset "
        "--probability` writes them. With it, found and false lesions are also counted at "
        "different thresholds (curve.csv and a chart in the report). Default: no maps.",
    )  # fmt: skip
    source.add_argument(
        "--model", type=Path, action="append", default=[], metavar="MODEL",
        help="Model that made the predictions: the folder of a run or of a cross-validation, a "
        "model file, or `weights` for the released weights. The report then warns if the "
        "intensities of a scan differ from those of the training. Can be given several times, once "
        "for each model of an ensemble. Default: no such warnings.",
    )  # fmt: skip
    results = parser.add_argument_group("output")
    results.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="Folder to write the tables (CSV and JSON) and report.html into. Required.",
    )  # fmt: skip
    results.add_argument(
        "--no_report", action="store_true",
        help="Write only the tables. Default: write the report, too.",
    )  # fmt: skip
