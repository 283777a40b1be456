"""Grids with axes in any direction."""

import nibabel as nib
import numpy as np

CODES = ["RAS", "LPS", "ASR", "IPL", "SRA", "PIR"]  # directions in which a file's axes grow


def grid_of(codes: str, size_mm=(1.0, 2.0, 3.0), shape=(6, 8, 10)):
    """Return an affine and a shape for a grid with axes in the directions of `codes`.

    `size_mm` and `shape` are in the order right, front, head.
    """
    ornt = nib.orientations.axcodes2ornt(tuple(codes))
    affine = np.zeros((4, 4))
    sides = []
    for axis, (world, sign) in enumerate(ornt.astype(int)):
        affine[world, axis] = sign * size_mm[world]
        sides.append(shape[world])
    affine[:, 3] = (5, -7, 11, 1)
    return affine, tuple(sides)
