"""Measure how bright the cortex of scans is relative to white matter: to tell FLAIRs from T1s.

Usage: python -m benchmarks.contrast FOLDER ...
The bound in `msseg_jax/data/quality.py` is based on these figures. A FOLDER is a pair in the
MSSEG-2 layout, or holds a skull-stripped FLAIR, *.nii.gz. The T1 template of MNI152 is that of
nilearn. Each line has the ratios on cubic voxels of several sizes. They should hardly differ.
"""

import argparse
from pathlib import Path

import numpy as np
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy import ndimage

from msseg_jax.volumes.contrast import surface_to_depth
from msseg_jax.volumes.layout import TIME01, patient_in
from msseg_jax.volumes.nifti import read_volume
from msseg_jax.volumes.pair import read_pair
from msseg_jax.volumes.resampling import resampling_to

SIDES_MM = (0.6, 0.8, 1.0, 1.2, 1.6, 2.0, 2.5)  # of cubic voxels


def measure(array: np.ndarray, brain: np.ndarray, spacing_mm: np.ndarray) -> str:
    """Return the ratios on cubic voxels of SIDES_MM, as text."""
    ratios = []
    for side_mm in SIDES_MM:
        resampling = resampling_to(side_mm, array.shape, spacing_mm)
        cubic = resampling.forward(array.astype(np.float32)), resampling.forward_labels(brain)
        ratios.append(f"{surface_to_depth(*cubic, side_mm):.3f}")
    return "  ".join(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="pairs, or skull-stripped FLAIRs")
    folders = parser.parse_args().folders
    print("  ".join(f"{mm:<5.1f}" for mm in SIDES_MM) + "  mm, sides of the voxels")
    for folder in folders:
        if (folder / TIME01).is_file():
            pair = read_pair(patient_in(folder))
            for visit in (pair.time01, pair.time02):
                print(f"{measure(visit.array, pair.brain, visit.spacing_mm)}  {visit.path}")
        else:
            for path in sorted(folder.glob("FLAIR*.nii.gz")):
                scan = read_volume(path)
                brain = ndimage.binary_fill_holes(scan.array > 0)
                print(f"{measure(scan.array, brain, scan.spacing_mm)}  {path}")
    template, brain = load_mni152_template(resolution=1), load_mni152_brain_mask(resolution=1)
    ratios = measure(template.get_fdata(), brain.get_fdata() > 0, np.ones(3))
    print(f"{ratios}  T1 template of MNI152")


if __name__ == "__main__":
    main()
