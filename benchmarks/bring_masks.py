"""Resample the masks of a published pair to the grid of the same pair after `msseg prepare`.

Usage: python -m benchmarks.bring_masks PUBLISHED TRANSFORM PREPARED

PUBLISHED contains ground_truth.nii.gz and change_mask.nii.gz in the space of the publication.
TRANSFORM is an ITK transform from points of that space to points of the second visit's scan.
PREPARED is the folder that `msseg prepare` wrote for the scans. The masks are written there under
the same names, for `benchmarks.real_pair`.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_there
from msseg_jax.volumes.layout import CONSENSUS, TIME02

MASKS = (CONSENSUS, "change_mask.nii.gz")
TO_TIME02 = "transforms/middle_to_time02.txt"


def bring(published: Path, transform: Path, prepared: Path) -> None:
    """Write the resampled masks. A voxel is included if the mask fills more than half of it.

    Raises:
      InputError: A file is missing, or ITK cannot read it.
    """
    check_there(
        transform, *(published / name for name in MASKS), prepared / TIME02, prepared / TO_TIME02
    )
    try:
        _resample(published, transform, prepared)
    except RuntimeError as error:  # SimpleITK names the file in its message
        raise InputError(f"{published}, {transform} or {prepared}: {error}") from error


def _resample(published: Path, transform: Path, prepared: Path) -> None:
    grid = sitk.ReadImage(str(prepared / TIME02))
    # ITK applies the last transform first: to the scan, then to the published space.
    back = sitk.ReadTransform(str(transform)).GetInverse()
    there = sitk.CompositeTransform([back, sitk.ReadTransform(str(prepared / TO_TIME02))])
    for name in MASKS:
        mask = sitk.ReadImage(str(published / name), sitk.sitkFloat32)
        resampled = sitk.Resample(mask, grid, there, sitk.sitkLinear, 0.0) > 0.5
        write_beside(
            prepared / name, lambda path, image=resampled: sitk.WriteImage(image, str(path))
        )
        print(
            f"{name}: {_mm3(mask > 0.5):.0f} mm3 as published, {_mm3(resampled):.0f} mm3 after "
            "resampling"
        )


def _mm3(mask: sitk.Image) -> float:
    return float(sitk.GetArrayViewFromImage(mask).sum() * np.prod(mask.GetSpacing()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("published", "transform", "prepared"):
        parser.add_argument(name, type=Path)
    flags = parser.parse_args()
    bring(flags.published, flags.transform, flags.prepared)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.bring_masks: {error}")
