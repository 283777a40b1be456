"""The flags for preparing scans, which `predict` and `prepare` share."""

import argparse
from pathlib import Path


def add_flags(group: "argparse._ArgumentGroup") -> None:
    """Declare the flags in a group."""
    group.add_argument(
        "--series", action="append", metavar="S",
        help="DICOM series to read if a folder holds several: its number, its UID, or a part of "
        "its description. Can be given twice, first for the first visit and then for the second; "
        "given once, it holds for both. Default: the only series with enough slices; if there are "
        "several, an error lists them.",
    )  # fmt: skip
    for number, which in (("01", "first"), ("02", "second")):
        group.add_argument(
            f"--brain_mask{number}", type=Path, metavar="FILE",
            help=f"Brain mask of the {which} visit, a NIfTI file in the scanner coordinates of "
            "that scan. If the mask of only one visit is given, it serves both. Not allowed with "
            "--dataset. Default: the brain is found automatically.",
        )  # fmt: skip
    group.add_argument(
        "--brain_mask_command", metavar="COMMAND",
        help="Program that makes the brain mask of each scan, with {input} and {output} in the "
        'places of the file names. For example: "mri_synthstrip -i {input} -m {output}". Default: '
        "the brain is found automatically.",
    )  # fmt: skip


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Report flags that contradict each other."""
    if flags.series and len(flags.series) > 2:
        parser.error(
            f"--series is given {len(flags.series)} times. Give it once, or once per visit"
        )
    if flags.brain_mask_command and (flags.brain_mask01 or flags.brain_mask02):
        parser.error(
            "--brain_mask_command excludes --brain_mask01 and --brain_mask02. Give one or the other"
        )
    if flags.dataset and (flags.brain_mask01 or flags.brain_mask02):
        parser.error(
            "--brain_mask01 and --brain_mask02 are for one pair. Leave them out with --dataset"
        )
