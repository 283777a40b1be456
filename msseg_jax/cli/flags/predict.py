"""The flags of `msseg predict`."""

import argparse
from pathlib import Path

from msseg_jax.cli.flags import preparing
from msseg_jax.cli.flags.values import of_setting, whole_number
from msseg_jax.configuration.sections import PredictSettings
from msseg_jax.prepare.libraries import check_libraries
from msseg_jax.volumes.names import stem

EXAMPLES = (
    "-t1 first.nii.gz -t2 second.nii.gz --prepare -o new.nii.gz --report new.html",
    "-t1 first.nii.gz -t2 second.nii.gz --mask brain.nii.gz -o new.nii.gz",
    "--dataset pairs -o masks",
)
DESCRIPTION = (
    "Find multiple-sclerosis lesions that are new in the second of two FLAIR scans. Both scans\n"
    "must lie on the same grid; if they do not, add --prepare. For research, not for clinical use."
)
# Options of the released weights, quoted in the help. A test compares them with the file.
RELEASED = {
    "overlap": 14, "threshold": 0.5, "min_lesion_mm3": 15.0, "min_peak": 0.9, "batch_size": 4,
    "flips": 1,
}  # fmt: skip
OF_FIRST = "Default: the value of the first model, which is {:g} for the released weights."
OF_CHANGES = (
    "It needs a model that was trained with config.model.target_set 'changes', such as the "
    "released weights. "
)
OF_ALL = (
    "Default: the value of the models, which is {:g} for the released weights. If the values of "
    "several models differ, this flag is required."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    _add_input(parser.add_argument_group("input: one pair (-t1 and -t2), or many (--dataset)"))
    _add_model(parser.add_argument_group("model"))
    preparation = parser.add_argument_group("preparation of raw scans")
    preparation.add_argument(
        "--prepare", nargs="?", type=Path, const=True, metavar="DIR",
        help="Accept raw scans on different grids, and first prepare them as `msseg prepare` does. "
        "The results lie on the grid of the second scan. The mask is also written on the common "
        "grid, with _on_middle_space added to its name. DIR is the folder for the prepared pair; "
        "with --dataset it will hold one folder per patient. Without DIR, it is named after "
        "--output: new_prepared for new.nii.gz. Default: scans are not prepared.",
    )  # fmt: skip
    preparing.add_flags(preparation)
    _add_output(parser.add_argument_group("output (with --dataset, each OUT is a folder)"))
    _add_speed(parser.add_argument_group("speed"))


def _add_input(group: "argparse._ArgumentGroup") -> None:
    for number, which in ((1, "first"), (2, "second")):
        group.add_argument(
            f"-t{number}", f"--time0{number}", type=Path, metavar="SCAN",
            help=f"FLAIR scan of the {which} visit, a NIfTI file. With --prepare, it can also be a "
            "folder with the DICOM files of a series. Required unless --dataset is given.",
        )  # fmt: skip
    group.add_argument(
        "--mask", type=Path, metavar="FILE",
        help="Brain mask on the grid of the scans (NIfTI). Voxels that are not 0 belong to the "
        "brain. Only for one pair without --prepare. Default: the voxels that are not 0 in at "
        "least one of the scans, which works only for skull-stripped scans.",
    )  # fmt: skip
    group.add_argument(
        "--dataset", type=Path, metavar="ROOT",
        help="Folder in the MSSEG-2 layout, with one folder per patient, to predict all of them. "
        "With --prepare, it holds raw scans instead, as for `msseg prepare --dataset`. Replaces "
        "-t1, -t2 and --mask.",
    )  # fmt: skip


def _add_model(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--model", type=Path, action="append", metavar="MODEL",
        help="Trained model: the folder of a run or of a cross-validation, a model file, or "
        "`weights` for the released weights. Can be given several times: the probabilities of all "
        "networks are averaged. Default: weights.",
    )  # fmt: skip


def _add_output(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUT",
        help="Mask of the new lesions to write (NAME.nii.gz). Next to it are written a table of "
        "the lesions (NAME_lesions.csv), the same lesions with numbers (NAME_lesions.nii.gz) and a "
        "record of how they were made (NAME.json). Existing files are replaced. With --dataset, "
        "the folder for these files, with the names of the patients, and for the tables and the "
        "page of all patients: lesions.csv, patients.csv and index.html. Required.",
    )  # fmt: skip
    group.add_argument(
        "--probability", type=Path, metavar="OUT",
        help="Probability map to write (.nii.gz): for each voxel, the probability from 0 to 1 that "
        "it is part of a new lesion. With --dataset, the folder for the maps, <patient>.nii.gz. "
        "Default: no map.",
    )  # fmt: skip
    group.add_argument(
        "--uncertainty", type=Path, metavar="OUT",
        help="Uncertainty map to write (.nii.gz): the standard deviation of the probability over "
        "the networks. It needs at least two networks. With --dataset, the folder for the "
        "maps, <patient>.nii.gz. Default: no map.",
    )  # fmt: skip
    group.add_argument(
        "--changes", type=Path, metavar="OUT",
        help="Label map of the changes to write (.nii.gz): 1 new, 2 enlarging (the part that "
        "grew), 3 vanished or shrunk (the part that went). What --output marks is 1; if a voxel "
        "could be both 2 and 3, the more probable one counts. With --dataset, the folder for the "
        "maps, <patient>.nii.gz. " + OF_CHANGES + "Default: no map.",
    )  # fmt: skip
    for number, which in ((1, "first"), (2, "second")):
        group.add_argument(
            f"--lesions0{number}", type=Path, metavar="OUT",
            help=f"Mask of all lesions at the {which} visit to write (.nii.gz), new or not. With "
            "--dataset, the folder for the masks, <patient>.nii.gz. " + OF_CHANGES +
            "Default: no mask.",
        )  # fmt: skip
    group.add_argument(
        "--report", nargs="?", type=Path, const=True, metavar="OUT",
        help="Report to write (.html), for a web browser: the new lesions, a viewer and warnings. "
        "With --dataset, the folder for the reports, <patient>.html. Without OUT, the report is "
        "written next to --output: new.html for new.nii.gz; with --dataset, into its folder. "
        "Default: no report.",
    )  # fmt: skip
    group.add_argument(
        "--threshold", type=of_setting(PredictSettings, "threshold"), metavar="P",
        help="Probability above which a voxel is part of a lesion: 0 or more and less than 1. It "
        "holds for all outputs. "
        + OF_ALL.format(RELEASED["threshold"]),
    )  # fmt: skip
    group.add_argument(
        "--min_lesion_mm3", type=of_setting(PredictSettings, "min_lesion_mm3"), metavar="MM3",
        help="Volume in mm3 below which a lesion is removed from the mask. A lesion is a connected "
        "component of voxels that share a face. It holds for all outputs, and for each label of "
        "--changes by itself. 0 keeps all lesions. "
        + OF_ALL.format(RELEASED["min_lesion_mm3"]),
    )  # fmt: skip
    group.add_argument(
        "--min_peak", type=of_setting(PredictSettings, "min_peak"), metavar="P",
        help="Probability that a lesion must have in at least one voxel, or it is removed from the "
        "mask: 0 or more and less than 1. It is usually larger than --threshold, which decides how "
        "far a lesion reaches. It holds for all outputs. 0 keeps all lesions. "
        + OF_ALL.format(RELEASED["min_peak"]),
    )  # fmt: skip
    group.add_argument(
        "--overwrite", action="store_true",
        help="With --dataset, predict all patients again, even if their results exist. With "
        "--prepare, prepare all pairs again, even if they exist. Default: keep prepared pairs, and "
        "skip patients with results from the same files, networks and options. Other results are "
        "an error. A patient that is predicted in another way than before loses the results that "
        "are not written again, such as an old report.",
    )  # fmt: skip


def _add_speed(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--overlap", type=of_setting(PredictSettings, "overlap"), metavar="VOXELS",
        help="Number of voxels by which neighbouring tiles overlap along each axis. A smaller "
        "overlap is faster, and changes the probabilities near the borders of tiles. "
        + OF_FIRST.format(RELEASED["overlap"]),
    )  # fmt: skip
    group.add_argument(
        "--flips", type=int, choices=(1, 2, 4, 8), metavar="N",
        help="Number of mirror images over which the probabilities are averaged: 1, no mirror "
        "image; 2, left-right; 4, also front-back; 8, also up-down. The networks take N times as "
        "long. " + OF_FIRST.format(RELEASED["flips"]),
    )  # fmt: skip
    group.add_argument(
        "--tile", type=whole_number(1), metavar="VOXELS",
        help="Largest side of a tile in voxels. It must be at least the patch size of the model, "
        "and a multiple of 8 for the network of the paper. Larger tiles are faster, need more "
        "memory, and change the probabilities near the borders of tiles. Default: the patch size "
        "of the model.",
    )  # fmt: skip
    group.add_argument(
        "--batch_size", type=of_setting(PredictSettings, "batch_size"), metavar="TILES",
        help="Number of tiles per call of the network, for tiles of the patch size. It is "
        "smaller for larger tiles. It affects only speed and memory. "
        + OF_FIRST.format(RELEASED["batch_size"]),
    )  # fmt: skip
    group.add_argument(
        "--threads", type=whole_number(1), metavar="N",
        help="Largest number of processors to use. Default: all.",
    )  # fmt: skip


def check(parser: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    """Report flags that contradict each other, and missing libraries if --prepare is given."""
    if flags.dataset is not None:
        if flags.time01 or flags.time02 or flags.mask:
            parser.error("--dataset excludes -t1, -t2 and --mask. Give one or the other")
    elif flags.time01 is None or flags.time02 is None:
        parser.error("expected -t1 and -t2 for one pair, or --dataset for a folder of pairs")
    preparing.check(parser, flags)
    if flags.prepare is None:
        for name in (
            "series", "acquisition", "allow_reversed",
            "brain_mask01", "brain_mask02", "brain_mask_command",
        ):  # fmt: skip
            if getattr(flags, name):
                parser.error(f"--{name} needs --prepare. For a pair on one grid, give --mask")
    elif flags.mask:
        parser.error(
            "--mask is for a pair on one grid. With --prepare, give --brain_mask01 and "
            "--brain_mask02"
        )
    if flags.report is True:
        flags.report = flags.output
        if flags.dataset is None:
            flags.report = flags.output.with_name(stem(flags.output) + ".html")
    if flags.prepare is not None:
        check_libraries()
        flags.work = "predict_scans"
