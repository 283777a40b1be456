"""The flags of `msseg synthetic`."""

import argparse
from pathlib import Path

from msseg_jax.cli.flags.values import number, whole_number
from msseg_jax.prepare.libraries import check_libraries

EXAMPLES = ("--scans scans --masks lesion_masks -o pairs",)
DESCRIPTION = (
    "Make labelled pairs from real FLAIR scans without labels. New lesions are painted into the\n"
    "scans. Their shapes and positions come from the lesion masks of other patients."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    source = parser.add_argument_group("input")
    source.add_argument(
        "--scans", required=True, type=Path, action="append", metavar="DIR",
        help="Folder with raw FLAIR scans. Each scan is a file <name>.nii.gz, or a folder <name> "
        "that holds the scan and, if they exist, brain_mask.nii.gz, lesion_mask.nii.gz (all "
        "lesions) and normal_hyperintensity.nii.gz. Can be given several times. Required.",
    )  # fmt: skip
    source.add_argument(
        "--masks", required=True, type=Path, action="append", metavar="DIR",
        help="Folder with lesion masks of any patients in MNI space (.nii.gz). The new lesions get "
        "shapes and positions from them. Can be given several times. Required.",
    )  # fmt: skip
    source.add_argument(
        "--shapes", type=Path, action="append", default=[], metavar="DIR",
        help="Folder with more lesion masks, in any space (.nii.gz). The new lesions get shapes "
        "from them, but no positions. Can be given several times. Default: no such folder.",
    )  # fmt: skip
    source.add_argument(
        "--leave_out", action="append", default=[], metavar="NAME",
        help="Name of a scan and of lesion masks that are not used, for example those of a patient "
        "in a test set. Can be given several times. Default: all are used.",
    )  # fmt: skip
    source.add_argument(
        "--brain_size", type=number(0.7, 1.3), default=1.0, metavar="FACTOR",
        help="Length of the brains of --masks relative to the MNI152 brain, from 0.7 to 1.3. Give "
        "about 0.9 if the masks were brought to MNI space by a rigid transform, and 1 if they were "
        "scaled to it. Default: %(default)g.",
    )  # fmt: skip
    source.add_argument(
        "--find_brains", action="store_true",
        help="Find the brain of every scan as `msseg prepare` does, and ignore its "
        "brain_mask.nii.gz. Default: use that mask if it exists.",
    )  # fmt: skip
    pairs = parser.add_argument_group("pairs")
    pairs.add_argument(
        "--pairs", type=whole_number(1), default=16, metavar="N",
        help="Number of pairs to make from each scan. Default: %(default)s.",
    )  # fmt: skip
    pairs.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N",
        help="Seed of the random numbers, 0 or more. The same seed gives the same pairs. "
        "Default: %(default)s.",
    )  # fmt: skip
    pairs.add_argument(
        "--least_contrast", type=number(0, below=1), default=0.18, metavar="SHARE",
        help="Least contrast of a lesion that is labelled: by how much it is brighter than its "
        "surroundings, as a share of the median intensity of the brain. 0 labels all lesions. "
        "Default: %(default)g.",
    )  # fmt: skip
    results = parser.add_argument_group("output")
    results.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR",
        help="Folder to write the pairs into, in the MSSEG-2 layout, with one folder per pair. "
        "Required.",
    )  # fmt: skip
    results.add_argument(
        "--overwrite", action="store_true",
        help="Make all pairs again. Default: keep existing pairs if they were made from the same "
        "files with the same flags; else stop with an error.",
    )  # fmt: skip
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--jobs", type=whole_number(1), metavar="N",
        help="Number of processes, each of which works on one scan at a time. Default: one per "
        "processor.",
    )  # fmt: skip


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Report missing libraries."""
    check_libraries()
