"""Command line: flags -> one call. See the package's docstring."""

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

from msseg_jax.cli.ending import run_command, status_after
from msseg_jax.simulate.synthetic.pair import FAINTEST
from msseg_jax.simulate.synthetic.writer import Request, write_synthetic

BRAIN_SIZES = (0.7, 1.3)  # of adults, over the average's length
SEVERAL = ("scans", "masks", "shapes", "leave_out")
PROGRAM = "python -m msseg_jax.data.synthetic"


def parse_arguments(arguments: list[str] | None = None) -> Request:
    parser = argparse.ArgumentParser(
        PROGRAM, allow_abbrev=False,
        description="Labelled pairs out of real FLAIRs: new lesions put into scans that nobody has "
        "labelled.",
    )  # fmt: skip
    many = {"type": Path, "action": "append", "metavar": "DIR"}
    parser.add_argument(
        "--scans", required=True, **many,
        help="folder with FLAIRs, as the scanner left them: <name>.nii.gz, or <name>/ with one, "
        "perhaps beside its brain_mask.nii.gz and lesion_mask.nii.gz; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--masks", required=True, **many,
        help="folder with lesion masks in MNI space, of any patients: shapes and places",
    )  # fmt: skip
    parser.add_argument(
        "--shapes", default=[], **many, help="folder with lesion masks in any space: shapes alone"
    )
    parser.add_argument(
        "--leave_out", action="append", default=[], metavar="NAME",
        help="scan, and mask, that is not to be used; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--brain_size", type=float, default=1.0, metavar="FACTOR",
        help="length of the brains of --masks over that of MNI152's, where they were moved and "
        "turned into MNI space but not stretched (about 0.9); default: 1",
    )  # fmt: skip
    parser.add_argument(
        "--find_brains", action="store_true",
        help="find the brain of every scan as `prepare` does, whether or not it has a brain mask",
    )  # fmt: skip
    parser.add_argument(
        "--least_contrast", type=float, default=FAINTEST, metavar="SHARE",
        help="how much brighter a new lesion is than what was there, where it is brightest, for it "
        "to be labelled; of the brain's median; default: %(default)g",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="ROOT", help="folder for the pairs"
    )
    parser.add_argument(
        "--pairs", type=int, default=16, metavar="N", help="of each scan; default: 16"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same pairs; default: 0")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes; default: all processors")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="make all pairs anew; without it, those that are there are kept",
    )
    flags = parser.parse_args(arguments)
    for name, least in (("pairs", 1), ("seed", 0), ("jobs", 1)):
        value = getattr(flags, name)
        if value is not None and value < least:
            parser.error(f"--{name} is {value}; wanted {least} or more")
    if not 0 <= flags.least_contrast < 1:
        parser.error(f"--least_contrast is {flags.least_contrast:g}; wanted 0 or more, below 1")
    low, high = BRAIN_SIZES
    if not low <= flags.brain_size <= high:
        parser.error(f"--brain_size is {flags.brain_size:g}; wanted {low:g} to {high:g}")
    several = {name: tuple(getattr(flags, name)) for name in SEVERAL}
    return Request(**vars(flags) | several)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 1 if anything failed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    return run_command(PROGRAM, partial(make_pairs, parse_arguments(arguments)))


def make_pairs(request: Request) -> int:
    """Make them, and say what they are."""
    outcomes = write_synthetic(request)
    for record in (record for outcome in outcomes for record in outcome.records):
        volumes = ", ".join(f"{mm3:.0f}" for mm3 in record["new_lesions_mm3"])
        print(
            f"{record['patient']}  {record['new_lesions']} new  {volumes}{' mm3' * bool(volumes)}"
        )
    failures = {outcome.source: outcome.failure for outcome in outcomes if outcome.failure}
    return status_after(failures, len(outcomes), "scans")


if __name__ == "__main__":
    sys.exit(main())
