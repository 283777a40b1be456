"""Measure how bright the cortex of scans is relative to white matter: to tell FLAIRs from T1s.

Usage: python -m benchmarks.contrast FOLDER ...
The bound in `msseg_jax/data/quality.py` is based on these figures. A FOLDER is a pair in the
MSSEG-2 layout, or holds a skull-stripped FLAIR, *.nii.gz. The T1 template of MNI152 is that of
nilearn.
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

SPACING_MM = 1.0


def measure(array: np.ndarray, brain: np.ndarray, spacing_mm: np.ndarray) -> float:
    """Return the ratio on cubic voxels of 1 mm."""
    resampling = resampling_to(SPACING_MM, array.shape, spacing_mm)
    cubic = resampling.forward(array.astype(np.float32)), resampling.forward_labels(brain)
    return surface_to_depth(*cubic, SPACING_MM)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="pairs, or skull-stripped FLAIRs")
    for folder in parser.parse_args().folders:
        if (folder / TIME01).is_file():
            pair = read_pair(patient_in(folder))
            for visit in (pair.time01, pair.time02):
                ratio = measure(visit.array, pair.brain, visit.spacing_mm)
                print(f"{ratio:.3f}  {visit.path}")
        else:
            for path in sorted(folder.glob("FLAIR*.nii.gz")):
                scan = read_volume(path)
                brain = ndimage.binary_fill_holes(scan.array > 0)
                print(f"{measure(scan.array, brain, scan.spacing_mm):.3f}  {path}")
    template, brain = load_mni152_template(resolution=1), load_mni152_brain_mask(resolution=1)
    ratio = surface_to_depth(template.get_fdata(), brain.get_fdata() > 0, SPACING_MM)
    print(f"{ratio:.3f}  T1 template of MNI152")


if __name__ == "__main__":
    main()
