"""Masks, reference maps and probability maps, given to `msseg evaluate`."""

import gzip
import random
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.fuzz.case import WrongReading
from benchmarks.fuzz.mutations import mutate_bytes, mutate_place
from benchmarks.fuzz.plain_nifti import content_of, mutate_header, read_plain
from msseg_jax.evaluation.evaluate import evaluate
from msseg_jax.evaluation.tables import format_summary, format_table
from msseg_jax.report.evaluation_folder import write_evaluation
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import CONSENSUS, EXPERT, TIME01, TIME02

NAME = "evaluate"
SHAPE = (12, 10, 8)
WITH_REPORT = 0.01  # share of the cases with a report, because it takes most of a second

_AFFINE = np.diag([-1.0, 1.2, 1.5, 1.0])
_VALUES = (
    0.5, 2.0, -1.0, 255.0, 1e30, -1e-4, 1.0001, 0.9999, 1.01, float("nan"), float("inf"),
    -float("inf"), 1e-45, 0.0, 1.0,
)  # fmt: skip


def make(folder: Path) -> None:
    """Write a reference with one expert, a prediction and a probability map."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[2:5, 3:6, 2:5] = mask[8:10, 6:8, 5:7] = 1
    other = np.roll(mask, 1, axis=0)
    probability = (0.8 * other + 0.1).astype(np.float32)
    visits = np.random.default_rng(0).uniform(50, 100, (2, *SHAPE)).astype(np.float32)
    visits[:, 0], visits[:, -1] = 0, 0
    (folder / "reference" / "a").mkdir(parents=True)
    for name, array in (
        (f"reference/a/{TIME01}", visits[0]),
        (f"reference/a/{TIME02}", visits[1]),
        (f"reference/a/{CONSENSUS}", mask),
        (f"reference/a/{EXPERT.format(1)}", np.roll(mask, 1, axis=1)),
        ("prediction/a.nii.gz", other),
        ("probability/a.nii.gz", probability),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(array, _AFFINE), folder / name)


def mutate(rng: random.Random, seeds: Path, case: Path) -> None:
    """Damage one or two of the files."""
    for name in ("reference", "prediction", "probability"):
        if name != "probability" or rng.random() < 0.7:
            shutil.copytree(seeds / name, case / name)
    files = sorted(case.rglob("*.nii.gz"))
    if rng.random() < WITH_REPORT:
        (case / "with_report").touch()
    else:
        files = [path for path in files if path.name not in (TIME01, TIME02)]
    for path in rng.sample(files, rng.choice((0, 1, 1, 1, 1, 2))):
        _damage(rng, path)


def _damage(rng: random.Random, path: Path) -> None:
    match rng.randrange(12):
        case 0:
            mutate_place(rng, path)
        case 1:
            path.write_bytes(mutate_bytes(rng, path.read_bytes()))
        case 2 | 3:
            path.write_bytes(gzip.compress(mutate_header(rng, content_of(path)), 1))
        case 4:
            path.write_bytes(gzip.compress(mutate_bytes(rng, content_of(path)), 1))
        case _:
            _change_voxels(rng, path)


def _change_voxels(rng: random.Random, path: Path) -> None:
    image = nib.load(path)
    array, affine = np.asarray(image.dataobj, dtype=np.float32), image.affine.copy()
    where = tuple(slice(*sorted(rng.randrange(n + 1) for _ in range(2))) for n in array.shape)
    match rng.randrange(10):
        case 0 | 1 | 2:
            array[where] = rng.choice(_VALUES)
        case 3:
            array[...] = rng.choice((0.0, 1.0, *_VALUES))
        case 4:
            array = np.array(array[where])
        case 5:
            array = array.transpose(rng.sample(range(3), 3))
        case 6:
            array = array.reshape(rng.choice(((12, 80), (960,), (12, 10, 8, 1), (12, 10, 4, 2))))
        case 7:
            affine[rng.randrange(3), rng.randrange(4)] += rng.choice((0.01, 0.2, -1.0, 50.0, 1e9))
        case 8:
            array = array * np.float32(rng.choice(_VALUES))
        case _:
            array = np.random.default_rng(rng.randrange(2**32)).random(array.shape, np.float32)
            array = array > rng.choice((-1.0, 0.1, 0.5, 0.95))
    dtype = rng.choice((np.uint8, np.int16, np.float32, np.float64, np.complex64, np.int64, bool))
    with np.errstate(all="ignore"):
        array = array.astype(dtype)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    nib.save(nib.Nifti1Image(array, affine, dtype=array.dtype), path)


def use(case: Path) -> None:
    """Score the prediction, write all results, and compare the Dice with one computed here."""
    probability = case / "probability"
    evaluation = evaluate(
        case / "reference", case / "prediction", probability if probability.exists() else None
    )
    if evaluation.left_out:
        raise InputError("\n".join(evaluation.left_out.values()))
    write_evaluation(evaluation, case / "output", {}, report=(case / "with_report").exists())
    if not (format_table(evaluation) and format_summary(evaluation)):
        raise WrongReading("the tables are empty")
    (row,) = evaluation.of_prediction.to_dict("records")
    reference, prediction = (
        np.rint(read_plain(path).array) != 0
        for path in (case / "reference" / "a" / CONSENSUS, case / "prediction" / "a.nii.gz")
    )
    total = reference.sum() + prediction.sum()
    dice = 2 * (reference & prediction).sum() / total if reference.any() else np.nan
    if not np.isclose(row["Dice"], dice, equal_nan=True):
        raise WrongReading(f"Dice is {row['Dice']}, not {dice}")
    plain = read_plain(case / "reference" / "a" / CONSENSUS)
    volume_mm3 = reference.sum() * np.prod(plain.sides_mm)
    if not np.isclose(row["reference_mm3"], volume_mm3, rtol=0.03):
        raise WrongReading(f"the volume is {row['reference_mm3']}, not {volume_mm3} mm3")
