"""The flags of `msseg phantom`."""

import argparse
from pathlib import Path

from msseg_jax.cli.flags.values import number, whole_number

EXAMPLES = ("-o phantoms --patients 8",)
DESCRIPTION = (
    "Make artificial patients (phantoms) in the MSSEG-2 layout. With them, every command can be\n"
    "tried without medical data."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    patients = parser.add_argument_group("patients")
    patients.add_argument(
        "--patients", type=whole_number(1), default=8, metavar="N",
        help="Number of patients. About 29 of 40 patients have new lesions, as in the training "
        "set of MSSEG-2. Default: %(default)s.",
    )  # fmt: skip
    patients.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N",
        help="Seed of the random numbers, 0 or more. The same seed gives identical files. "
        "Default: %(default)s.",
    )  # fmt: skip
    patients.add_argument(
        "--spacing_mm", type=number(0.5, 4), metavar="MM",
        help="Side of the cubic voxels of all patients in mm, from 0.5 to 4. Default: each "
        "patient has its own voxel spacing.",
    )  # fmt: skip
    results = parser.add_argument_group("output")
    results.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="Folder to write the patients into, one folder for each. Required.",
    )  # fmt: skip
    results.add_argument(
        "--overwrite", action="store_true",
        help="Replace patients that exist with the same name. Default: stop with an error if "
        "there are any.",
    )  # fmt: skip
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--jobs", type=whole_number(1), metavar="N",
        help="Number of processes, each of which makes one patient at a time. Default: one per "
        "processor.",
    )  # fmt: skip
