"""Compare the maps of all lesions with masks that experts drew.

Usage: python -m benchmarks.all_lesions SCANS ... --model MODEL [--flips N] [--only NAME ...]
SCANS is a folder of FLAIR scans with masks of all their lesions, as for `msseg synthetic --scans`.
The bias field is corrected and the brain is found as in `msseg prepare`. Each scan is given as
both visits, so the network should find its lesions at both, and nothing new. The table gives the
volumes and the Dice of the map of the second visit.

Give only networks that have not seen these scans.
"""

import argparse
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.options import add_options, given_options
from msseg_jax.evaluation.scores import dice
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.prediction import predict_pair
from msseg_jax.models.folds import runs_of
from msseg_jax.simulate.synthetic.source import Files, Source, find_sources, read_source
from msseg_jax.system.errors import InputError
from msseg_jax.system.text_table import text_table
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.lesions import voxel_mm3
from msseg_jax.volumes.pair import Pair
from msseg_jax.volumes.volume import Volume


def main() -> None:
    """Print a table with a row for each scan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, nargs="+", help="folders of scans")
    parser.add_argument("--model", type=Path, action="append", required=True)
    add_options(parser)
    parser.add_argument("--only", nargs="+", default=[], help="names of scans")
    flags = parser.parse_args()
    ensemble = Ensemble(runs_of(flags.model))
    options = ensemble.options(**given_options(flags))
    rows = [("scan", "drawn, ml", "found, ml", "Dice", "false new lesions")]
    for files in [files for root in flags.scans for files in find_sources(root)]:
        if not files.lesion_mask or (flags.only and files.name not in flags.only):
            continue
        source = read_source(files)
        found = predict_pair(ensemble, _patient(files), twice(files, source), options).found
        if found.lesions02 is None:
            raise InputError(f"--model={flags.model}: expected networks with maps of all lesions")
        ml = voxel_mm3(source.spacing_mm) / 1000
        rows.append((
            files.name, f"{source.lesions.sum() * ml:.1f}", f"{found.lesions02.sum() * ml:.1f}",
            f"{dice(source.lesions, found.lesions02 > 0):.3f}", str(found.count),
        ))  # fmt: skip
        print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    print(text_table(rows, "<>>>>"))


def twice(files: Files, source: Source) -> Pair:
    """Return a pair whose visits are both the same scan."""
    image = np.where(source.brain, source.images[0], 0)
    header = nib.Nifti1Header()
    header.set_sform(source.affine, code="scanner")
    visit = Volume(files.scans[0], image, source.affine, header)
    return Pair(
        visit, visit, source.brain, np.zeros((0, *image.shape), np.uint8), np.zeros(0, bool)
    )


def _patient(files: Files) -> Patient:
    return Patient(files.name, files.scans[0], files.scans[0], None)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"python -m benchmarks.all_lesions: {error}")
