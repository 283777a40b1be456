"""The flags of `msseg synthetic`."""

import argparse
from functools import partial
from pathlib import Path

from msseg_jax.cli.flags.values import number, whole_number
from msseg_jax.prepare.libraries import check_libraries

EXAMPLES = ("--scans SCANS --masks MASKS -o ROOT",)
DESCRIPTION = (
    "Make labelled pairs from real FLAIRs that nobody has labelled: new lesions are painted into\n"
    "them, with the shapes and places of the lesions of other patients."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    add_folders = partial(parser.add_argument, type=Path, action="append", metavar="DIR")
    add_folders(
        "--scans", required=True,
        help="folder with FLAIRs as they left the scanner: <name>.nii.gz, or <name>/ with one and, "
        "if there are any, its brain_mask.nii.gz and lesion_mask.nii.gz; may be given several "
        "times",
    )  # fmt: skip
    add_folders(
        "--masks", required=True,
        help="folder with lesion masks of any patients in MNI space: shapes and places",
    )  # fmt: skip
    add_folders("--shapes", default=[], help="folder with lesion masks in any space: only shapes")
    parser.add_argument(
        "--leave_out", action="append", default=[], metavar="NAME",
        help="scan, and mask, that is not used; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="ROOT", help="folder for the pairs"
    )
    parser.add_argument(
        "--pairs", type=whole_number(1), default=16, metavar="N",
        help="pairs of each scan; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N",
        help="the same seed gives the same pairs; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--brain_size", type=number(0.7, 1.3), default=1.0, metavar="FACTOR",
        help="length of the brains of --masks over that of MNI152's; about 0.9 where they were "
        "moved and turned into MNI space but not stretched; default: %(default)g",
    )  # fmt: skip
    parser.add_argument(
        "--least_contrast", type=number(0, below=1), default=0.18, metavar="SHARE",
        help="how much brighter than its surroundings a new lesion must be to be labelled, as a "
        "share of the brain's median; default: %(default)g",
    )  # fmt: skip
    parser.add_argument(
        "--find_brains", action="store_true",
        help="find the brain of every scan as `prepare` does, even where there is a brain mask",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=whole_number(1), metavar="N", help="processes; default: one per processor"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="make all pairs again; default: keep those there"
    )


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Report libraries that are missing."""
    check_libraries()
