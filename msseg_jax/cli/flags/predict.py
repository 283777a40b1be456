"""The flags of `msseg predict`."""

import argparse
from pathlib import Path

from msseg_jax.cli.flags import preparing
from msseg_jax.cli.flags.values import of_setting, whole_number
from msseg_jax.configuration.sections import PredictSettings
from msseg_jax.prepare.libraries import check_libraries

EXAMPLES = (
    "-t1 first.nii.gz -t2 second.nii.gz --prepare -o new.nii.gz --report new.html",
    "-t1 first.nii.gz -t2 second.nii.gz --mask brain.nii.gz -o new.nii.gz",
    "--dataset ROOT -o DIR",
)
DESCRIPTION = (
    "Find the multiple-sclerosis lesions that are new at the second of two FLAIR visits.\n"
    "Without --prepare both visits must lie on one grid. For research, not for clinical use."
)
# Options of the released weights, for the help. A test compares them with the file.
RELEASED = {"overlap": 14, "threshold": 0.6, "min_lesion_mm3": 30.0, "batch_size": 4}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    one = parser.add_argument_group("one pair")
    one.add_argument("-t1", "--time01", type=Path, metavar="FILE", help="FLAIR of the first visit")
    one.add_argument("-t2", "--time02", type=Path, metavar="FILE", help="FLAIR of the second visit")
    one.add_argument(
        "--mask", type=Path, metavar="FILE",
        help="brain mask; default: the voxels that are not 0 in either visit",
    )  # fmt: skip
    many = parser.add_argument_group("many pairs")
    many.add_argument(
        "--dataset", type=Path, metavar="ROOT",
        help="folder with a folder per patient, in the MSSEG-2 layout; with --prepare, as "
        "`msseg prepare` takes it",
    )  # fmt: skip

    results = parser.add_argument_group("results (with --dataset each is a folder)")
    results.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="OUT",
        help="mask to write (.nii.gz); a single mask replaces the file that is there",
    )
    results.add_argument("--probability", type=Path, metavar="OUT", help="probability map to write")
    results.add_argument(
        "--uncertainty", type=Path, metavar="OUT",
        help="map to write: standard deviation of the probability over the networks",
    )  # fmt: skip
    results.add_argument(
        "--report", type=Path, metavar="OUT",
        help="page for a browser to write (.html): lesions, pictures, warnings",
    )  # fmt: skip
    results.add_argument(
        "--overwrite", action="store_true",
        help="with --dataset, predict patients again that are done; with --prepare, prepare pairs "
        "again that are done",
    )  # fmt: skip

    parser.add_argument(
        "--model", type=Path, action="append", metavar="MODEL",
        help="folder of a run or of a cross-validation, or a model file. It may be given several "
        "times: the probabilities are averaged. Default: weights, the released ones",
    )  # fmt: skip
    parser.add_argument(
        "--prepare", nargs="?", type=Path, const=True, metavar="DIR",
        help="take scans as they left the scanner, and bring them together in this folder; "
        "default: new_prepared, if OUT is new.nii.gz. The results lie on the second visit's own "
        "grid, and the mask also on the prepared pair's (new_on_middle_space.nii.gz)",
    )  # fmt: skip
    preparing.add_flags(parser)

    options = parser.add_argument_group("how the network is applied")
    for name, metavar in (
        ("overlap", "VOXELS"), ("threshold", "P"), ("min_lesion_mm3", "MM3"),
        ("batch_size", "TILES"),
    ):  # fmt: skip
        text = PredictSettings.model_fields[name].description
        options.add_argument(
            f"--{name}", type=of_setting(PredictSettings, name), metavar=metavar,
            help=f"{text}; default: the (first) model's own, {RELEASED[name]:g} in the released "
            "weights",
        )  # fmt: skip
    options.add_argument(
        "--tile", type=whole_number(1), metavar="VOXELS",
        help="largest side of a tile, a multiple of 8 for the paper's network. Large tiles are "
        "faster, take more memory, and change probabilities near their borders. Default: the "
        "model's patch size",
    )  # fmt: skip
    options.add_argument(
        "--threads", type=whole_number(1), metavar="N", help="processors to use; default: all"
    )


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Report flags that contradict each other, and libraries that --prepare lacks."""
    if flags.dataset is not None:
        if flags.time01 or flags.time02 or flags.mask:
            parser.error("--dataset excludes -t1, -t2 and --mask: give one or the other")
    elif flags.time01 is None or flags.time02 is None:
        parser.error("expected -t1 and -t2 (one pair), or --dataset (a folder)")
    preparing.check(parser, flags)
    if flags.prepare is None:
        for name in ("series", "brain_mask01", "brain_mask02", "brain_mask_command"):
            if getattr(flags, name):
                parser.error(f"--{name} needs --prepare; for a pair on one grid give --mask")
    elif flags.mask:
        parser.error(
            "--mask is for a pair on one grid; with --prepare give --brain_mask01 and "
            "--brain_mask02"
        )
    if flags.prepare is not None:
        check_libraries()
        flags.work = "predict_scans"
