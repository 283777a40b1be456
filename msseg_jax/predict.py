"""New lesions of a pair of FLAIR visits, or of every pair of a folder, with a trained run.

    python -m msseg_jax.predict --model=RUN -t1 A.nii.gz -t2 B.nii.gz -o new.nii.gz
    python -m msseg_jax.predict --model=RUN --dataset=ROOT --output=DIR

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

from msseg_jax.data import preprocess
from msseg_jax.data.dataset import Pair, Patient, find_patients, read_pair
from msseg_jax.data.quality import Quality, assess
from msseg_jax.data.tiles import fit_tile, tile_corners
from msseg_jax.data.volumes import SUFFIXES, check_output, write_volume
from msseg_jax.errors import InputError
from msseg_jax.lesions import number_lesions, voxel_mm3
from msseg_jax.process import keep_freed_memory, limit_threads

PROGRAM = "python -m msseg_jax.predict"


@dataclass(frozen=True)
class Options:
    """What turns probabilities into a mask."""

    overlap: int  # voxels shared by neighbouring tiles
    threshold: float  # probability above which a voxel is new lesion
    min_lesion_mm3: float  # smaller components are dropped
    batch_size: int  # tiles of the model's patch size per call of the network
    tile: int | None = None  # largest side of a tile, voxels; None: the model's patch size


@dataclass(frozen=True)
class Outputs:
    """Where results go: files for one pair, folders that exist for many."""

    mask: Path
    probability: Path | None = None
    report: Path | None = None

    @property
    def wanted(self) -> list[Path]:
        return [path for path in (self.mask, self.probability, self.report) if path is not None]

    def of(self, patient: str) -> "Outputs":
        """The files of one patient in these folders."""
        return Outputs(
            self.mask / f"{patient}.nii.gz",
            self.probability and self.probability / f"{patient}.nii.gz",
            self.report and self.report / f"{patient}.html",
        )


class Predictor:
    """A trained network with its preprocessing; compiled once per shape of its tiles."""

    def __init__(self, folder: Path | str):
        # JAX starts its threads when it is imported, so `--threads` must be set before.
        import jax

        from msseg_jax.checkpoint import RunFolder, restore_for_inference
        from msseg_jax.inference import compile_forward
        from msseg_jax.model import build_model

        run = RunFolder(folder)
        self.folder = folder
        self.config, self.preprocessing = run.load()
        model = build_model(self.config)
        side = self.side_multiple = model.side_multiple
        visit = jax.ShapeDtypeStruct((1, side, side, side, 1), np.float32)
        shapes = jax.eval_shape(
            lambda key, visit: model.init(key, visit, visit, train=False), jax.random.key(0), visit
        )
        self._variables, self.kind, self.step = restore_for_inference(run, shapes)
        self._forward = compile_forward(model)

    def options(self, **given) -> Options:
        """The run's own options, but for those given (those that are None are not)."""
        own = self.config.predict.to_dict()
        return Options(**own | {name: value for name, value in given.items() if value is not None})

    def segment(
        self, patient: Patient, pair: Pair, options: Options, progress=lambda batches: batches
    ) -> tuple[np.ndarray, Quality]:
        """Probability of new lesion on the pair's own grid, and how far the pair is to be trusted.

        Returns:
          (D, H, W) float32, 0 off the brain; and the measures of the pair.

        Raises:
          DatasetError: the brain is smaller than a patch, or a visit is constant inside it.
        """
        from msseg_jax.inference import segment_volume

        settings = self.preprocessing.settings
        resampled = preprocess.resample(patient, pair, settings)
        tile, batch_size = self._tiles(resampled.brain.shape, options)
        images = preprocess.apply(self.preprocessing, patient, resampled)
        probability = segment_volume(
            self._forward, self._variables, images, resampled.brain,
            tile=tile, overlap=options.overlap, batch_size=batch_size, progress=progress,
        )  # fmt: skip
        quality = assess(pair, resampled, settings.spacing_mm, self.preprocessing)
        return resampled.to_file_grid(probability) * pair.brain, quality

    def _tiles(self, shape: tuple[int, int, int], options: Options) -> tuple[tuple, int]:
        """Shape of a tile, and how many of them hold as many voxels as a batch of patches."""
        patch_size = self.preprocessing.settings.patch_size
        if options.tile is None:
            return (patch_size,) * 3, options.batch_size
        tile = fit_tile(shape, options.tile, options.overlap, self.side_multiple)
        as_many_voxels = options.batch_size * patch_size**3 // math.prod(tile)
        there_are = len(tile_corners(shape, tile, options.overlap))
        return tile, min(max(1, as_many_voxels), there_are)


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
    predictor: Predictor,
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
    probability, quality = predictor.segment(patient, pair, options, progress)
    volume_mm3 = voxel_mm3(pair.time01.spacing_mm)
    mask = lesion_mask(probability, options, volume_mm3)
    if outputs.report is not None:
        from msseg_jax.report.prediction import write_prediction_report

        write_prediction_report(
            outputs.report, patient.name, pair, mask, probability, quality.warnings(),
            _facts(predictor, patient, options, quality),
        )  # fmt: skip
    if outputs.probability is not None:
        write_volume(outputs.probability, probability, pair.time01)
    write_volume(outputs.mask, mask, pair.time01)
    count = number_lesions(mask != 0)[1]
    found = (
        f"{outputs.mask}: {count} new lesion{'' if count == 1 else 's'}, "
        f"{mask.sum() * volume_mm3:.0f} mm3, in {time.perf_counter() - start:.1f} s"
    )
    return "\n".join([found, *(f"  warning: {warning}" for warning in quality.warnings())])


def _facts(
    predictor: Predictor, patient: Patient, options: Options, quality: Quality
) -> list[tuple[str, str]]:
    """What a report states about how it was made."""
    mask = patient.brain_mask or "none: what is non-zero in either visit"
    alignment = quality.alignment
    return [
        ("first visit", str(patient.time01)),
        ("second visit", str(patient.time02)),
        ("brain mask", f"{mask} ({quality.brain_ml:.0f} ml)"),
        (
            "visits apart",
            f"{alignment.displacement_mm:.1f} mm, correlation {alignment.correlation:.2f}",
        ),
        ("model", f"{predictor.folder}, its {predictor.kind} checkpoint, step {predictor.step}"),
        ("threshold", f"probability above {options.threshold:g}"),
        ("least lesion", f"{options.min_lesion_mm3:g} mm3"),
        (
            "tiles",
            f"side {_tile_side(predictor, options)}, overlap {options.overlap} voxels",
        ),
    ]


def _tile_side(predictor: Predictor, options: Options) -> str:
    if options.tile is None:
        return str(predictor.preprocessing.settings.patch_size)
    return f"at most {options.tile}"


def predict_patients(
    predictor: Predictor,
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
            tqdm.write(predict_patient(predictor, patient, options, files))
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
        "--model", required=True, type=Path, metavar="RUN", help="folder of a run of launch.py"
    )
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
        "--report", type=Path, metavar="OUT",
        help="page to open in a browser (.html): lesion list, pictures, warnings; with --dataset "
        "the folder for <patient>.html",
    )  # fmt: skip
    own = "default: the run's configuration"
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
        return _predict_folder(flags) if flags.dataset else _predict_pair(flags)
    except (InputError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1


def _start(flags: argparse.Namespace) -> tuple[Predictor, Options]:
    if flags.probability and flags.probability.resolve() == flags.output.resolve():
        raise InputError(f"--probability is {flags.probability}, as --output; wanted two places")
    predictor = Predictor(flags.model)
    options = predictor.options(
        overlap=flags.overlap, threshold=flags.threshold,
        min_lesion_mm3=flags.min_lesion_mm3, batch_size=flags.batch_size, tile=flags.tile,
    )  # fmt: skip
    side = predictor.preprocessing.settings.patch_size
    if options.tile is not None and (options.tile < side or options.tile % predictor.side_multiple):
        raise InputError(
            f"--tile is {options.tile}; wanted {side} (the model's patch size) or more, and a "
            f"multiple of {predictor.side_multiple}"
        )
    if options.overlap >= side:
        raise InputError(
            f"--overlap is {options.overlap}; wanted 0 to {side - 1} voxels, less than the side of "
            "the model's patches"
        )
    print(f"model: {flags.model}, its {predictor.kind} checkpoint, step {predictor.step}")
    return predictor, options


def _predict_pair(flags: argparse.Namespace) -> int:
    first, second = flags.time01.resolve(), flags.time02.resolve()
    name = f"{first.parent.name}/{first.name}, {second.parent.name}/{second.name}"
    patient = Patient(name, flags.time01, flags.time02, flags.mask)
    outputs = Outputs(flags.output, flags.probability, flags.report)
    for output in outputs.wanted:
        check_output(output, (".html",) if output is flags.report else SUFFIXES)
        if output.resolve() in [path.resolve() for path in patient.files]:
            raise InputError(f"{output}: is an input; choose another name for the output")
    predictor, options = _start(flags)

    def bar(batches):
        return tqdm(batches, "tiles", disable=None, leave=False)

    print(predict_patient(predictor, patient, options, outputs, bar))
    return 0


def _predict_folder(flags: argparse.Namespace) -> int:
    patients = find_patients(flags.dataset, targets=0)
    outputs = Outputs(flags.output, flags.probability, flags.report)
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
    predictor, options = _start(flags)
    failures = predict_patients(predictor, patients, options, outputs, flags.overwrite)
    if failures:
        print(f"{len(failures)} of {len(patients)} patients failed:", file=sys.stderr)
        for name, reason in failures.items():
            print(f"  {name}: {reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
