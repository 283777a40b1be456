"""Compare the lateral ventricles that are found in FLAIR scans with those that were drawn by hand.

Usage: python -m benchmarks.regions SCANS [--only NAME ...]
SCANS is a folder of FLAIR scans, as for `msseg synthetic --scans`, each with a file
ventricles.nii.gz. With masks of all lesions, it also counts for how many lesions both ventricles
lead to the same answer: whether the lesion is periventricular (`prepare/regions.py`).
"""

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage

from msseg_jax.evaluation.scores import dice
from msseg_jax.prepare.regions import NEAR_MM
from msseg_jax.simulate.synthetic.source import Source, find_sources, read_source
from msseg_jax.system.text_table import text_table
from msseg_jax.volumes.anatomy import find_ventricles, places_in_mni
from msseg_jax.volumes.lesions import number_lesions, voxel_mm3
from msseg_jax.volumes.nifti import read_volume

VENTRICLES = "ventricles.nii.gz"


def main() -> None:
    """Print a row for each scan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, help="folder of scans")
    parser.add_argument("--only", nargs="+", default=[], help="names of scans")
    flags = parser.parse_args()
    rows = [("scan", "drawn, ml", "found, ml", "Dice", "lesions", "periventricular", "same answer")]
    for files in find_sources(flags.scans):
        drawn_file = files.scans[0].parent / VENTRICLES
        if not drawn_file.is_file() or (flags.only and files.name not in flags.only):
            continue
        source = read_source(files)
        drawn = _crop(read_volume(drawn_file).array > 0, read_volume(files.scans[0]).affine, source)
        places_mm = places_in_mni(source.to_mni @ source.affine, source.brain.shape)
        found = find_ventricles(source.images[0], source.brain, places_mm, source.spacing_mm)
        ml = voxel_mm3(source.spacing_mm) / 1000
        answers = [_near(mask, source) for mask in (drawn, found)]
        rows.append((
            files.name, f"{drawn.sum() * ml:.1f}", f"{found.sum() * ml:.1f}",
            f"{dice(drawn, found):.2f}", str(len(answers[0])), str(answers[0].sum()),
            str((answers[0] == answers[1]).sum()),
        ))  # fmt: skip
        print(" ".join(rows[-1]), flush=True)
    print(text_table(rows, "<>>>>>>"))


def _crop(array: np.ndarray, affine: np.ndarray, source: Source) -> np.ndarray:
    """Return the part of a whole scan that the source shows."""
    start = np.rint(np.linalg.solve(affine, source.affine[:, 3])[:3]).astype(int)
    return array[tuple(slice(s, s + n) for s, n in zip(start, source.brain.shape, strict=True))]


def _near(ventricles: np.ndarray, source: Source) -> np.ndarray:
    """Return which lesions of the scan are periventricular: (lesions,) bool."""
    labels, count = number_lesions(source.lesions)
    if not ventricles.any() or not count:
        return np.zeros(count, bool)
    distance_mm = ndimage.distance_transform_edt(~ventricles, source.spacing_mm)
    nearest_mm = ndimage.minimum(distance_mm, labels, np.arange(1, count + 1))
    return np.asarray(nearest_mm) <= NEAR_MM


if __name__ == "__main__":
    main()
