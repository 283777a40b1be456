"""Compare a prepared real pair with its published alignment and brain mask.

Usage: python -m benchmarks.prepared_pair PREPARED RAW PUBLISHED

PREPARED is the folder that `msseg prepare` wrote for the two scans in RAW. RAW contains the scans
`study1_FLAIR.nii.gz` and `study2_FLAIR.nii.gz`, and the published transforms from the common space
to each scan, `study1_FLAIR_to_common_space.txt` and `study2_FLAIR_to_common_space.txt`. PUBLISHED
contains `brain_mask.nii.gz` and `change_mask.nii.gz` on the grid of the common space.

The published transforms are affine, with a scale of up to 1 %. The transforms of this program are
rigid. For the correlations, the original scans are resampled to the common space, once with the
published transform between the visits and once with the transform of this program. They are
measured inside the published brain.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msseg_jax.prepare.folder import RECORD, TRANSFORMS
from msseg_jax.prepare.registration import (
    centre_of,
    compose,
    matrix_of,
    nearest_rigid,
    on_grid,
    points_of,
)
from msseg_jax.volumes.layout import BRAIN_MASK

BRIGHT = 0.5  # share of the published brain's median; fluid, bone and air are darker in a FLAIR


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("prepared", "raw", "published"):
        parser.add_argument(name, type=Path)
    flags = parser.parse_args()
    for name, value in compare(flags.prepared, flags.raw, flags.published).items():
        print(f"{name:>30}  {value:.4g}")
    seconds = json.loads((flags.prepared / RECORD).read_text(encoding="utf-8"))["seconds"]
    print(f"{'seconds':>30}  {sum(seconds.values()):.0f}")


def compare(prepared: Path, raw: Path, published: Path) -> dict[str, float]:
    """Return the measurements of the comparison, by name."""
    scans = [_read(raw / f"study{k}_FLAIR.nii.gz") for k in (1, 2)]
    to_first, to_second = (
        sitk.ReadTransform(str(raw / f"study{k}_FLAIR_to_common_space.txt")) for k in (1, 2)
    )
    between, middle_to_first = (
        sitk.ReadTransform(str(prepared / TRANSFORMS / f"{name}.txt"))
        for name in ("time01_to_time02", "middle_to_time01")
    )
    brain = _read(published / BRAIN_MASK) > 0
    ours_to_second = compose(between, to_first)
    (a, b), (c, d) = matrix_of(ours_to_second), matrix_of(to_second)
    off_mm = np.linalg.norm(points_of(brain) @ (a - c).T + b - d, axis=1)

    own = _read(prepared / BRAIN_MASK) > 0
    own = on_grid(own, brain, compose(middle_to_first.GetInverse(), to_first))
    found, expected = (sitk.GetArrayFromImage(mask) > 0 for mask in (own, brain))
    changed = sitk.GetArrayFromImage(_read(published / "change_mask.nii.gz")) > 0
    between_published = compose(to_second, to_first.GetInverse())
    in_first = on_grid(brain, scans[0], to_first.GetInverse())
    nearest = nearest_rigid(between_published, centre_of(in_first))
    first, second, second_by_ours, second_by_nearest = (
        sitk.GetArrayFromImage(sitk.Resample(scan, brain, transform, sitk.sitkLinear, 0.0))
        for scan, transform in (
            (scans[0], to_first), (scans[1], to_second), (scans[1], ours_to_second),
            (scans[1], compose(nearest, to_first)),
        )
    )  # fmt: skip
    tissue = np.median(second[expected])
    return {
        "distance, mm, mean": off_mm.mean(),
        "distance, mm, largest": off_mm.max(),
        "correlation, ours": np.corrcoef(first[expected], second_by_ours[expected])[0, 1],
        "correlation, published": np.corrcoef(first[expected], second[expected])[0, 1],
        "correlation, rigid part of published": np.corrcoef(
            first[expected], second_by_nearest[expected]
        )[0, 1],
        "brain, Dice": 2 * (found & expected).sum() / (found.sum() + expected.sum()),
        "brain, ml, ours": found.sum() * np.prod(brain.GetSpacing()) / 1000,
        "brain, ml, published": expected.sum() * np.prod(brain.GetSpacing()) / 1000,
        "published brain left out, share": (expected & ~found).sum() / expected.sum(),
        "outside it, bright at both, share": (
            np.minimum(first / np.median(first[expected]), second / tissue)[found & ~expected]
            > BRIGHT
        ).mean(),
        "published change left out, voxels": (changed & expected & ~found).sum(),
    }


def _read(path: Path) -> sitk.Image:
    return sitk.ReadImage(str(path), sitk.sitkFloat32)


if __name__ == "__main__":
    main()
