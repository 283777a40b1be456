"""New lesions of a pair of FLAIR visits, or of every pair of a folder, with trained runs.

    python -m msseg_jax.predict --model=RUN -t1 A.nii.gz -t2 B.nii.gz -o new.nii.gz
    python -m msseg_jax.predict --model=RUN --dataset=ROOT --output=DIR

Several `--model` are an ensemble. `--prepare` takes scans as they left the scanner.

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

from msseg_jax.data.dataset import Patient, find_patients, patient_in, read_pair
from msseg_jax.data.quality import Quality
from msseg_jax.data.volumes import SUFFIXES, check_output, write_volume
from msseg_jax.ensemble import Ensemble
from msseg_jax.errors import InputError
from msseg_jax.folds import runs_of
from msseg_jax.lesions import number_lesions, voxel_mm3
from msseg_jax.predictor import Options
from msseg_jax.prepare.request import (
    Request,
    add_arguments,
    check_arguments,
    check_libraries,
    find_scans,
    request_of,
)
from msseg_jax.process import keep_freed_memory, limit_threads, processors

PROGRAM = "python -m msseg_jax.predict"
IN_MIDDLE = "_on_middle_space"  # added to the name of a mask on the scanner's grid
PREPARED = "_prepared"  # added to the name of an output, where --prepare names no folder


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
    scanner=None,
) -> str:
    """Write the results of one patient; says in words what was found.

    Args:
      scanner: the `ScannerGrid` of the second visit, where the pair was prepared: maps are written
        on it, and the mask on the pair's own grid as well.

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
    said = []
    maps = {outputs.probability: found.probability, outputs.uncertainty: found.disagreement}
    like = pair.time01
    if scanner is not None:
        in_middle = outputs.mask.with_name(_stem(outputs.mask) + IN_MIDDLE + SUFFIXES[0])
        write_volume(in_middle, mask, like)
        said.append(f"{in_middle}: {_count(mask, volume_mm3)}")
        maps = {path: scanner.bring(array, like.affine) for path, array in maps.items() if path}
        probability = scanner.bring(found.probability, like.affine)
        like = scanner.like
        volume_mm3 = voxel_mm3(like.spacing_mm)
        mask = lesion_mask(probability, options, volume_mm3)
    for path, array in maps.items():
        if path is not None:
            write_volume(path, array, like)
    write_volume(outputs.mask, mask, like)
    seconds = time.perf_counter() - start
    said.insert(0, f"{outputs.mask}: {_count(mask, volume_mm3)}, in {seconds:.1f} s")
    return "\n".join([*said, *(f"  warning: {warning}" for warning in warnings)])


def _count(mask: np.ndarray, volume_mm3: float) -> str:
    count = number_lesions(mask != 0)[1]
    return f"{count} new lesion{'' if count == 1 else 's'}, {mask.sum() * volume_mm3:.0f} mm3"


def _stem(path: Path) -> str:
    """The name of a NIfTI file without its ending."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


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
    scanners: dict | None = None,
) -> dict[str, str]:
    """Write the results of each patient into folders, going on after one that fails.

    Args:
      scanners: {patient: `scanner` of `predict_patient`}, where the pairs were prepared.

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
            scanner = (scanners or {}).get(patient.name)
            tqdm.write(predict_patient(ensemble, patient, options, files, scanner=scanner))
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
        epilog="Either -t1 and -t2, or --dataset. The visits must lie on one grid, but for "
        "--prepare.",
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
    parser.add_argument(
        "--prepare", nargs="?", type=Path, const=True, metavar="DIR",
        help="take scans as they left the scanner (see python -m msseg_jax.prepare), bring the "
        "visits together in this folder (default: beside the output), and write maps on the grid "
        "of the second visit; the mask also on the prepared pair's",
    )  # fmt: skip
    add_arguments(parser)
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
    check_arguments(parser, flags)
    if flags.prepare is None:
        for name in ("series", "brain_mask01", "brain_mask02", "brain_mask_command"):
            if getattr(flags, name):
                parser.error(f"--{name} is of --prepare; wanted both, or a pair on one grid")
    elif flags.mask:
        parser.error("--mask is of a pair on one grid; with --prepare give --brain_mask01 and 02")
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
        if flags.prepare is not None:
            check_libraries()
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
    scanner = None
    if flags.prepare is not None:
        folder = _prepared(flags, outputs.mask.with_name(_stem(outputs.mask) + PREPARED))
        scanner = _prepare(request_of(flags, flags.time01, flags.time02), folder)
        patient = patient_in(folder)

    def bar(batches):
        return tqdm(batches, "tiles", disable=None, leave=False)

    print(predict_patient(ensemble, patient, options, outputs, bar, scanner))
    return 0


def _prepared(flags: argparse.Namespace, otherwise: Path) -> Path:
    return otherwise if flags.prepare is True else flags.prepare


def _prepare(request: Request, folder: Path):
    """Prepare a pair; the `ScannerGrid` of its second visit."""
    from msseg_jax.prepare.patient import prepare_patient, use_threads
    from msseg_jax.prepare.scanner_grid import ScannerGrid

    use_threads(processors())
    with tqdm(total=0, bar_format="preparing: {desc}", disable=None, leave=False) as line:
        prepared = prepare_patient(request, folder, say=line.set_description_str)
    print(f"prepared{' before' if prepared.was_there else ''}: {folder}")
    for warning in prepared.record["warnings"]:
        print(f"  warning: {warning}")
    return ScannerGrid.of(folder, request.time02, request.series[1])


def _predict_folder(flags: argparse.Namespace) -> int:
    if flags.prepare is None:
        requests = {}
        patients = find_patients(flags.dataset, targets=0)
    else:
        scans = find_scans(flags.dataset)
        requests = {name: request_of(flags, *paths) for name, paths in scans.items()}
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
    failures, scanners = {}, {}
    if requests:
        folder = _prepared(flags, flags.output.with_name(flags.output.name + PREPARED))
        for name, request in tqdm(requests.items(), "preparing", disable=None, leave=False):
            try:
                scanners[name] = _prepare(request, folder / name)
            except InputError as error:
                failures[name] = str(error)
                tqdm.write(f"{name}: failed: {error}")
        patients = [patient_in(folder / name) for name in scanners]
    failures |= predict_patients(ensemble, patients, options, outputs, flags.overwrite, scanners)
    if failures:
        print(f"{len(failures)} of {len(requests or patients)} patients failed:", file=sys.stderr)
        for name, reason in failures.items():
            print(f"  {name}: {reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
