"""The flags for preparing scans, which `predict` and `prepare` share."""

import argparse
from pathlib import Path


def add_flags(group: "argparse._ArgumentGroup") -> None:
    """Declare the flags in a group."""
    group.add_argument(
        "--series", action="append", metavar="S",
        help="DICOM series to read if a folder holds several: its number, its UID, a part of its "
        "description, or its place in the list of the error, such as #2. Can be given twice, first "
        "for the first visit and then for the second; given once, it holds for both, but a place "
        "is ignored for a visit with only one series. Default: the only series with enough slices; "
        "if there are several, an error lists them.",
    )  # fmt: skip
    group.add_argument(
        "--acquisition", action="append", metavar="A",
        help="Stack of slices to read if a DICOM series holds several (acquisitions, echoes or "
        "repetitions): the acquisition number, or another value or place from the list of the "
        "error, such as #2. Can be given twice, as --series; given once, it is ignored for a visit "
        "with only one stack. Default: the only one; if there are several, an error lists them.",
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
    group.add_argument(
        "--allow_reversed", action="store_true",
        help="Accept DICOM scans whose dates say that the first visit is later than the second, "
        "with a warning. Default: this is an error.",
    )  # fmt: skip


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Report flags that contradict each other."""
    for name in ("series", "acquisition"):
        given = getattr(flags, name) or []
        if len(given) > 2:
            parser.error(f"--{name} is given {len(given)} times. Give it once, or once per visit")
    if flags.brain_mask_command and (flags.brain_mask01 or flags.brain_mask02):
        parser.error(
            "--brain_mask_command excludes --brain_mask01 and --brain_mask02. Give one or the other"
        )
    if flags.dataset and (flags.brain_mask01 or flags.brain_mask02):
        parser.error(
            "--brain_mask01 and --brain_mask02 are for one pair. Leave them out with --dataset"
        )
