"""The flags of `msseg prepare`."""

import argparse
from pathlib import Path

from msseg_jax.cli.flags import preparing
from msseg_jax.cli.flags.values import whole_number
from msseg_jax.prepare.libraries import check_libraries

EXAMPLES = (
    "-t1 first.nii.gz -t2 second.nii.gz -o pairs/anna",
    "--dataset scans -o pairs --jobs 2",
)
DESCRIPTION = (
    "Bring two FLAIR scans of a patient onto a common grid half-way between them, find the brain,\n"
    "and remove the bias field. For research, not for clinical use."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    source = parser.add_argument_group("input: one patient (-t1 and -t2), or many (--dataset)")
    for number, which in ((1, "first"), (2, "second")):
        source.add_argument(
            f"-t{number}", f"--time0{number}", type=Path, metavar="SCAN",
            help=f"FLAIR scan of the {which} visit: a NIfTI file, or a folder with the DICOM files "
            "of a series. Required unless --dataset is given.",
        )  # fmt: skip
    source.add_argument(
        "--dataset", type=Path, metavar="ROOT",
        help="Folder with one folder per patient, to prepare all of them. Each holds two scans, "
        "NIfTI files or DICOM folders. Their names begin with time01 and time02, or with "
        "flair_time01 and flair_time02. Replaces -t1 and -t2.",
    )  # fmt: skip
    preparing.add_flags(parser.add_argument_group("preparation"))
    results = parser.add_argument_group("output")
    results.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="Folder to write. For one patient it is the folder of the patient in the MSSEG-2 "
        "layout, and its name is the name of the patient. With --dataset it will hold one such "
        "folder per patient. Required.",
    )  # fmt: skip
    results.add_argument(
        "--overwrite", action="store_true",
        help="Prepare a patient again if the output exists. Default: keep it if it was made from "
        "the same scans with the same flags; else report an error.",
    )  # fmt: skip
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--jobs", type=whole_number(1), metavar="N",
        help="Number of patients that are prepared at the same time. Only with --dataset. "
        "Default: 1.",
    )  # fmt: skip
    speed.add_argument(
        "--threads", type=whole_number(1), metavar="N",
        help="Largest number of processors to use. Default: all.",
    )  # fmt: skip


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Report flags that contradict each other, and missing libraries."""
    if flags.dataset is not None:
        if flags.time01 or flags.time02:
            parser.error("--dataset excludes -t1 and -t2. Give one or the other")
    elif flags.time01 is None or flags.time02 is None:
        parser.error("expected -t1 and -t2 for one patient, or --dataset for many")
    elif flags.jobs is not None:
        parser.error("--jobs needs --dataset. For one patient, give --threads")
    preparing.check(parser, flags)
    check_libraries()
