"""New lesions of a pair of FLAIR visits, or of every pair of a folder, with trained runs.

    python -m msseg_jax.predict --model=RUN -t1 A.nii.gz -t2 B.nii.gz -o new.nii.gz
    python -m msseg_jax.predict --model=RUN --dataset=ROOT --output=DIR

Several `--model` are an ensemble.

For research, not for clinical use.
"""

import argparse
import logging
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from msseg_jax.data.dataset import Patient, find_patients, read_pair
from msseg_jax.data.quality import Quality
from msseg_jax.data.volumes import SUFFIXES, check_output, write_volume
from msseg_jax.ensemble import Ensemble
from msseg_jax.errors import InputError
from msseg_jax.folds import runs_of
from msseg_jax.lesions import number_lesions, voxel_mm3
from msseg_jax.predictor import Options
from msseg_jax.process import keep_freed_memory, limit_threads

PROGRAM = "python -m msseg_jax.predict"


@dataclass(frozen=True)
class Outputs:
    """Where results go: files for one pair, folders that exist for many."""

    mask: Path
    probability: Path | None = None
    report: Path | None = None
    uncertainty: Path | None = None  # how far an ensemble's probabilities disagree

    @property
    def wanted(self) -> list[Path]:
        paths = (self.mask, self.probability, self.report, self.uncertainty)
        return [path for path in paths if path is not None]

    def of(self, patient: str) -> "Outputs":
        """The files of one patient in these folders."""
        return Outputs(
            self.mask / f"{patient}.nii.gz",
            self.probability and self.probability / f"{patient}.nii.gz",
            self.report and self.report / f"{patient}.html",
            self.uncertainty and self.uncertainty / f"{patient}.nii.gz",
        )


def lesion_mask(probability: np.ndarray, options: Options, volume_mm3: float) -> np.ndarray:
    """Voxels above the threshold, less lesions under the least volume: (D, H, W) uint8.

    Args:
      volume_mm3: of a voxel.
    """
    mask = probability > options.threshold
    if options.min_lesion_mm3 > 0:
        least_voxels = math.ceil(options.min_lesion_mm3 / volume_mm3)
        mask = number_lesions(mask, least_voxels)[0] > 0
    return mask.astype(np.uint8)


def predict_patient(
    ensemble: Ensemble,
    patient: Patient,
    options: Options,
    outputs: Outputs,
    progress=lambda batches: batches,
) -> str:
    """Write the results of one patient; says in words what was found.

    Raises:
      DatasetError, VolumeError: for what is wrong with the input; nothing is written then.
    """
    start = time.perf_counter()
    pair = read_pair(patient)
    found = ensemble.segment(patient, pair, options, progress)
    volume_mm3 = voxel_mm3(pair.time01.spacing_mm)
    mask = lesion_mask(found.probability, options, volume_mm3)
    warnings = found.quality.warnings()
    if outputs.report is not None:
        from msseg_jax.report.prediction import write_prediction_report

        write_prediction_report(
            outputs.report, patient.name, pair, mask, found.probability, warnings,
            _facts(ensemble, patient, options, found.quality),
        )  # fmt: skip
    if outputs.probability is not None:
        write_volume(outputs.probability, found.probability, pair.time01)
    if outputs.uncertainty is not None:
        write_volume(outputs.uncertainty, found.disagreement, pair.time01)
    write_volume(outputs.mask, mask, pair.time01)
    count = number_lesions(mask != 0)[1]
    said = (
        f"{outputs.mask}: {count} new lesion{'' if count == 1 else 's'}, "
        f"{mask.sum() * volume_mm3:.0f} mm3, in {time.perf_counter() - start:.1f} s"
    )
    return "\n".join([said, *(f"  warning: {warning}" for warning in warnings)])


def _facts(
    ensemble: Ensemble, patient: Patient, options: Options, quality: Quality
) -> list[tuple[str, str]]:
    """What a report states about how it was made."""
    mask = patient.brain_mask or "none: what is non-zero in either visit"
    alignment = quality.alignment
    facts = [
        ("first visit", str(patient.time01)),
        ("second visit", str(patient.time02)),
        ("brain mask", f"{mask} ({quality.brain_ml:.0f} ml)"),
        (
            "visits apart",
            f"{alignment.displacement_mm:.1f} mm, correlation {alignment.correlation:.2f}",
        ),
        *(("model", str(member)) for member in ensemble.members),
    ]
    if len(ensemble.members) > 1:
        facts.append(("probability", f"mean of the {len(ensemble.members)} models"))
    return [
        *facts,
        ("threshold", f"probability above {options.threshold:g}"),
        ("least lesion", f"{options.min_lesion_mm3:g} mm3"),
        ("tiles", f"side {_tile_side(ensemble, options)}, overlap {options.overlap} voxels"),
    ]


def _tile_side(ensemble: Ensemble, options: Options) -> str:
    if options.tile is None:
        sides = {member.preprocessing.settings.patch_size for member in ensemble.members}
        return " and ".join(map(str, sorted(sides)))
    return f"at most {options.tile}"


def predict_patients(
    ensemble: Ensemble,
    patients: list[Patient],
    options: Options,
    outputs: Outputs,
    overwrite: bool = False,
) -> dict[str, str]:
    """Write the results of each patient into folders, going on after one that fails.

    Returns:
      {patient: what went wrong}, empty when all went well.
    """
    failures = {}
    for patient in tqdm(patients, "patients", disable=None, leave=False):
        files = outputs.of(patient.name)
        if not overwrite and all(path.is_file() for path in files.wanted):
            tqdm.write(f"{files.mask}: done before, skipped (--overwrite does it again)")
            continue
        try:
            tqdm.write(predict_patient(ensemble, patient, options, files))
        except Exception as error:  # whatever it is, the other patients' masks are wanted
            known = isinstance(error, InputError)
            failures[patient.name] = str(error) if known else f"{type(error).__name__}: {error}"
            tqdm.write(f"{patient.name}: failed: {failures[patient.name]}")
    return failures


# ---------------------------------------------------------------------------- command line


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        PROGRAM,
        allow_abbrev=False,
        description="New multiple-sclerosis lesions between two FLAIR visits. For research, not "
        "for clinical use.",
        epilog="Either -t1 and -t2, or --dataset. The visits must lie on one grid.",
    )
    parser.add_argument(
        "--model", required=True, type=Path, action="append", metavar="RUN",
        help="folder of a run of launch.py; given several times, or the folder of a "
        "cross-validation: an ensemble, whose probabilities are averaged",
    )  # fmt: skip
    one = parser.add_argument_group("one pair")
    one.add_argument("-t1", "--time01", type=Path, metavar="FILE", help="FLAIR of the first visit")
    one.add_argument("-t2", "--time02", type=Path, metavar="FILE", help="FLAIR of the second visit")
    one.add_argument(
        "--mask", type=Path, metavar="FILE",
        help="brain mask; without it the brain is what is non-zero in either visit",
    )  # fmt: skip
    many = parser.add_argument_group("a whole folder")
    many.add_argument(
        "--dataset", type=Path, metavar="ROOT", help="folder in the MSSEG-2 layout (no targets)"
    )
    many.add_argument(
        "--overwrite", action="store_true", help="do patients again that are done already"
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUT",
        help="mask to write (.nii.gz); with --dataset the folder for <patient>.nii.gz",
    )  # fmt: skip
    parser.add_argument(
        "--probability", type=Path, metavar="OUT",
        help="probability map to write; with --dataset the folder for <patient>.nii.gz",
    )  # fmt: skip
    parser.add_argument(
        "--uncertainty", type=Path, metavar="OUT",
        help="standard deviation of the probability over the models of an ensemble, to write as a "
        "map; with --dataset the folder for <patient>.nii.gz",
    )  # fmt: skip
    parser.add_argument(
        "--report", type=Path, metavar="OUT",
        help="page to open in a browser (.html): lesion list, pictures, warnings; with --dataset "
        "the folder for <patient>.html",
    )  # fmt: skip
    own = "default: the (first) run's configuration"
    parser.add_argument(
        "--overlap", type=int, metavar="VOXELS", help=f"shared by neighbouring tiles; {own}"
    )
    parser.add_argument(
        "--tile", type=int, metavar="VOXELS",
        help="largest side of a tile, a multiple of 8 for the paper's network: large ones overlap "
        "less, which is faster, takes more memory, changes probabilities near their borders, and "
        "is compiled for each patient; default: the model's patch size",
    )  # fmt: skip
    parser.add_argument(
        "--threshold", type=float, metavar="P",
        help=f"probability above which a voxel is new lesion; {own}",
    )  # fmt: skip
    parser.add_argument(
        "--min_lesion_mm3", type=float, metavar="MM3",
        help=f"drop smaller lesions (6-connected components); {own}",
    )  # fmt: skip
    parser.add_argument(
        "--batch_size", type=int, metavar="TILES",
        help=f"tiles of the model's patch size per call of the network; {own}",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", help="processors to use; default: all")
    flags = parser.parse_args(arguments)

    if flags.dataset is not None:
        if flags.time01 or flags.time02 or flags.mask:
            parser.error("--dataset and -t1, -t2, --mask exclude each other: give one or the other")
    elif flags.time01 is None or flags.time02 is None:
        parser.error("wanted -t1 and -t2 (one pair), or --dataset (a folder)")
    for name, low, high in (
        ("overlap", 0, None), ("tile", 1, None), ("threshold", 0, 1), ("min_lesion_mm3", 0, None),
        ("batch_size", 1, None), ("threads", 1, None),
    ):  # fmt: skip
        value = getattr(flags, name)
        if value is not None and not (value >= low and (high is None or value < high)):
            wanted = f"{low} or more" + (f" and less than {high}" if high else "")
            parser.error(f"--{name} is {value}; wanted {wanted}")
    return flags


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 1 if anything failed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    flags = parse_arguments(arguments)
    keep_freed_memory()
    if flags.threads:
        limit_threads(flags.threads)
    try:
        flags.model = runs_of(flags.model)
        _check_outputs(flags)
        return _predict_folder(flags) if flags.dataset else _predict_pair(flags)
    except (InputError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1


def _outputs(flags: argparse.Namespace) -> Outputs:
    return Outputs(flags.output, flags.probability, flags.report, flags.uncertainty)


def _check_outputs(flags: argparse.Namespace) -> None:
    """Raises InputError for outputs that one place cannot hold, or one model cannot give."""
    places = {}
    for name in ("output", "probability", "uncertainty"):
        path = getattr(flags, name)
        if path is not None and (other := places.setdefault(path.resolve(), name)) != name:
            raise InputError(f"--{name} is {path}, as --{other}; wanted two places")
    if flags.uncertainty is not None and len(flags.model) == 1:
        raise InputError(
            f"--uncertainty: {flags.model[0]} alone has none to disagree with; wanted two or more "
            "--model, or the folder of a cross-validation"
        )


def _start(flags: argparse.Namespace) -> tuple[Ensemble, Options]:
    ensemble = Ensemble(flags.model)
    options = ensemble.options(
        overlap=flags.overlap, threshold=flags.threshold,
        min_lesion_mm3=flags.min_lesion_mm3, batch_size=flags.batch_size, tile=flags.tile,
    )  # fmt: skip
    for member in ensemble.members:
        print(f"model: {member}")
    return ensemble, options


def _predict_pair(flags: argparse.Namespace) -> int:
    first, second = flags.time01.resolve(), flags.time02.resolve()
    name = f"{first.parent.name}/{first.name}, {second.parent.name}/{second.name}"
    patient = Patient(name, flags.time01, flags.time02, flags.mask)
    outputs = _outputs(flags)
    for output in outputs.wanted:
        check_output(output, (".html",) if output is flags.report else SUFFIXES)
        if output.resolve() in [path.resolve() for path in patient.files]:
            raise InputError(f"{output}: is an input; choose another name for the output")
    ensemble, options = _start(flags)

    def bar(batches):
        return tqdm(batches, "tiles", disable=None, leave=False)

    print(predict_patient(ensemble, patient, options, outputs, bar))
    return 0


def _predict_folder(flags: argparse.Namespace) -> int:
    patients = find_patients(flags.dataset, targets=0)
    outputs = _outputs(flags)
    for folder in outputs.wanted:
        if flags.dataset.resolve() in folder.resolve().parents:
            raise InputError(
                f"{folder}: lies among the patients of --dataset, and would be taken for one; "
                "choose a folder elsewhere"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: {error}; wanted a folder to write in") from error
        check_output(folder / "patient.nii.gz")
    ensemble, options = _start(flags)
    failures = predict_patients(ensemble, patients, options, outputs, flags.overwrite)
    if failures:
        print(f"{len(failures)} of {len(patients)} patients failed:", file=sys.stderr)
        for name, reason in failures.items():
            print(f"  {name}: {reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
