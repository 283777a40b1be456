"""The flags that say how scans are prepared; `predict` and `prepare` share them."""

import argparse
from pathlib import Path


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    group = parser.add_argument_group("how scans are prepared")
    group.add_argument(
        "--series", action="append", metavar="S",
        help="which series of a DICOM folder to take: its number, its UID or a part of its "
        "description; give it twice for the first and the second visit",
    )  # fmt: skip
    for number, which in (("01", "first"), ("02", "second")):
        group.add_argument(
            f"--brain_mask{number}", type=Path, metavar="FILE",
            help=f"brain mask of the {which} visit, on its own grid; default: found in the scan",
        )  # fmt: skip
    group.add_argument(
        "--brain_mask_command", metavar="COMMAND",
        help='program that makes the brain masks, such as "mri_synthstrip -i {input} -m {output}"',
    )  # fmt: skip


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Report flags that contradict each other."""
    if flags.series and len(flags.series) > 2:
        parser.error(
            f"--series is given {len(flags.series)} times; expected once, or once per visit"
        )
    if flags.brain_mask_command and (flags.brain_mask01 or flags.brain_mask02):
        parser.error(
            "--brain_mask_command excludes --brain_mask01 and --brain_mask02: give one or the other"
        )
    if flags.dataset and (flags.brain_mask01 or flags.brain_mask02):
        parser.error(
            "--brain_mask01 and --brain_mask02 are for one pair; leave them out with --dataset"
        )
