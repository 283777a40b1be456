"""What a predicted mask finds of a real pair with a change mask, beside its reference.

Usage: python -m benchmarks.real_pair PATIENT_FOLDER PREDICTION
PATIENT_FOLDER holds ground_truth.nii.gz (what is new) and change_mask.nii.gz (any lesion change).
Lesions are 6-connected components.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

from msseg_jax.data.dataset import CONSENSUS
from msseg_jax.data.volumes import read_volume
from msseg_jax.errors import InputError
from msseg_jax.scores import dice

LEAST_MM3 = 10  # smaller predicted lesions are not counted as outside


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patient_folder", type=Path)
    parser.add_argument("prediction", type=Path)
    flags = parser.parse_args()
    volume = read_volume(flags.patient_folder / CONSENSUS)
    voxel_mm3 = float(np.prod(volume.spacing_mm))
    reference = volume.array > 0
    change = read_volume(flags.patient_folder / "change_mask.nii.gz").array > 0
    prediction = read_volume(flags.prediction).array > 0

    references, count = ndimage.label(reference)
    largest = references == 1 + np.bincount(references.ravel())[1:].argmax()
    print(f"new lesions of the reference: {count}; the largest {largest.sum() * voxel_mm3:.0f} mm3")
    print(f"of its voxels predicted: {100 * prediction[largest].mean():.0f} %")
    predictions, count = ndimage.label(prediction)
    print(f"predicted: {count} lesions, {prediction.sum() * voxel_mm3:.0f} mm3")
    outside = sum(
        (predictions == k).sum() * voxel_mm3 >= LEAST_MM3 and not change[predictions == k].any()
        for k in range(1, count + 1)
    )
    print(f"predicted, {LEAST_MM3} mm3 or more, outside every marked change: {outside}")
    print(f"Dice: {dice(reference, prediction):.3f}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.real_pair: {error}")
