"""The flags of `msseg prepare`."""

import argparse
from pathlib import Path

from msseg_jax.cli.flags import preparing
from msseg_jax.cli.flags.values import whole_number
from msseg_jax.prepare.libraries import check_libraries

EXAMPLES = (
    "-t1 first.nii.gz -t2 second.nii.gz -o PAIRS/anna",
    "--dataset SCANS -o PAIRS --jobs 2",
)
DESCRIPTION = (
    "Bring two FLAIR scans of a patient onto a grid half-way between them, find the brain and\n"
    "remove the bias field. A scan is a NIfTI file, or a folder with the DICOM files of a series.\n"
    "For research, not for clinical use."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    one = parser.add_argument_group("one patient")
    one.add_argument("-t1", "--time01", type=Path, metavar="SCAN", help="FLAIR of the first visit")
    one.add_argument("-t2", "--time02", type=Path, metavar="SCAN", help="FLAIR of the second visit")
    many = parser.add_argument_group("many patients")
    many.add_argument(
        "--dataset", type=Path, metavar="SCANS",
        help="folder with a folder per patient. Each holds two entries whose names begin with "
        "time01 and time02 (or flair_time01 and flair_time02): NIfTI files or DICOM folders",
    )  # fmt: skip
    many.add_argument(
        "--jobs", type=whole_number(1), metavar="N", help="patients at the same time; default: 1"
    )
    preparing.add_flags(parser)
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="folder to make, in the MSSEG-2 layout; its name is the patient's. With --dataset: "
        "the folder for a folder per patient",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="prepare again what is there")
    parser.add_argument(
        "--threads", type=whole_number(1), metavar="N", help="processors to use; default: all"
    )


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Report flags that contradict each other, and libraries that are missing."""
    if flags.dataset is not None:
        if flags.time01 or flags.time02:
            parser.error("--dataset excludes -t1 and -t2: give one or the other")
    elif flags.time01 is None or flags.time02 is None:
        parser.error("expected -t1 and -t2 (one patient), or --dataset (many)")
    elif flags.jobs is not None:
        parser.error("--jobs needs --dataset; for one patient give --threads")
    preparing.check(parser, flags)
    check_libraries()
