"""Measure how well the average brain fits to scans, and the volume of the brain that is found.

Usage: python -m benchmarks.atlas_fit SCAN...

`max` and `min` are the largest and the smallest stretch of the average brain along any direction.
The seconds are processor time.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msseg_jax.prepare.images import volume_ml
from msseg_jax.prepare.registration import matrix_of
from msseg_jax.prepare.scan import read_scan
from msseg_jax.prepare.visits import look_at
from msseg_jax.system.errors import InputError


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, nargs="+", help="FLAIRs, NIfTI or DICOM folders")
    print(f"{'correlation':>11}{'max':>6}{'min':>6}{'ml':>6}{'grey/white':>12}{'s':>6}  scan")
    for path in parser.parse_args().scans:
        scan, start = read_scan(path), time.process_time()
        try:
            visit = look_at(scan)
        except InputError as error:
            print(f"refused: {error}", flush=True)
            continue
        seconds = time.process_time() - start
        sizes = np.linalg.svd(matrix_of(sitk.Transform(visit.to_atlas))[0], compute_uv=False)
        print(
            f"{visit.atlas_correlation:>11.2f}{sizes.max():>6.2f}{sizes.min():>6.2f}"
            f"{volume_ml(visit.brain):>6.0f}{visit.grey_to_white:>12.2f}{seconds:>6.1f}  {path}",
            flush=True,
        )


if __name__ == "__main__":
    main()
