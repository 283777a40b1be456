"""Measure how well scans of two patients match after registration, compared with one patient.

Usage: python -m benchmarks.two_patients SCAN SCAN [SCAN ...]
Each scan is registered to the next one, as `msseg prepare` does, up to the step on coarse voxels.
The bounds in `msseg_jax/data/quality.py` and `prepare/visits.py` are based on these figures.
"""

import argparse
from itertools import pairwise
from pathlib import Path

from msseg_jax.prepare import visits
from msseg_jax.prepare.registration import centre_of, nearest_rigid, refine_on
from msseg_jax.prepare.scan import read_scan
from msseg_jax.system.errors import InputError


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", nargs="+", type=Path)
    print(f"{'edges':>7}{'brain':>7}  scans")
    for paths in pairwise(parser.parse_args().scans):
        names = " and ".join(map(str, paths))
        try:
            edges, brain = measure(*paths)
        except InputError as error:
            print(f"{'':>14}  {names}: {error}"[:150])
            continue
        print(f"{edges:>7.3f}{brain:>7.3f}  {names}", flush=True)


def measure(time01: Path, time02: Path) -> tuple[float, float]:
    """Return the correlation of the edges, and that of the scans, inside the first brain."""
    found, start = visits._find_brains((read_scan(time01), read_scan(time02)))
    first, second = found
    transform = nearest_rigid(start, centre_of(first.brain))
    mm = visits.FINE_MM[0]
    refine_on(first.flat[mm], second.flat[mm], first.brain, transform)
    edges = visits._correlation_of_edges(found, transform)
    return edges, visits._correlation_inside(found, transform, visits.COMPARE_MM)


if __name__ == "__main__":
    main()
