"""Measure what the alignment check reports when the second visit is shifted by a known distance.

Usage: python -m benchmarks.alignment PATIENT_FOLDER
The bounds in `msseg_jax/data/quality.py` are based on these figures. Shifts are along (1, 1, 1).
"""

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage

from msseg_jax.volumes.alignment import measure_alignment
from msseg_jax.volumes.layout import patient_in
from msseg_jax.volumes.pair import read_pair

SHIFTS_MM = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patient_folder", type=Path, help="a pair in the MSSEG-2 layout")
    pair = read_pair(patient_in(parser.parse_args().patient_folder))
    spacing_mm = pair.time01.spacing_mm
    print(f"{'shift, mm':>10}{'measured, mm':>14}{'correlation':>13}")
    for shift_mm in SHIFTS_MM:
        voxels = shift_mm / np.sqrt(3) / spacing_mm
        moved = ndimage.shift(pair.time02.array, voxels, order=1)
        found = measure_alignment(pair.time01.array, moved, pair.brain, spacing_mm)
        print(f"{shift_mm:>10.1f}{found.displacement_mm:>14.2f}{found.correlation:>13.3f}")


if __name__ == "__main__":
    main()
