"""Give the networks one scan twice, the second time as another scanner would show it.

Usage: python -m benchmarks.same_scan SCANS ... [--model MODEL ...] [--seeds 3] [--only NAME ...]
SCANS is a folder of FLAIR scans, as for `msseg synthetic --scans`. No lesion differs between the
visits, so every new lesion is false. Each case changes one thing. The last one changes nearly all
of them at once (one contrast of the lesions, no larger voxels) and has a wider brain mask. The
table gives the volume of the false new lesions, mm3. The contrast of the lesions is changed only
where the scan has a mask of them.

Give only networks that have not seen these scans.
"""

import argparse
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.options import add_options, given_options
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.prediction import predict
from msseg_jax.models.folds import runs_of
from msseg_jax.models.released import released
from msseg_jax.simulate.synthetic.anatomy import Anatomy
from msseg_jax.simulate.synthetic.marks import Marks
from msseg_jax.simulate.synthetic.pair import change_appearance, scan_both
from msseg_jax.simulate.synthetic.sessions import TONE_SIZES, Session, Sessions
from msseg_jax.simulate.synthetic.source import Source, find_sources, read_source
from msseg_jax.simulate.synthetic.visit import SimulatedVisit, SourceGrid
from msseg_jax.system.errors import InputError
from msseg_jax.system.text_table import text_table
from msseg_jax.volumes.layout import BRAIN_MASK, TIME01, TIME02, patient_in
from msseg_jax.volumes.nifti import write_array

WIDER = 1.1  # volume of the ventricles at the second visit, divided by that at the first
MOST_ATROPHY_MM = 3.0
STEPS = 6  # of the search for the atrophy, which halves the interval each time


def plain(source: Source, seed: int) -> Session:
    """Return the settings of a scan that shows the source as it is, with a little noise."""
    return Session(
        spacing_mm=source.spacing_mm, pose=np.eye(4), error=np.eye(4), distortion_mm=0.0,
        atrophy_mm=0.0, blur_mm=0.0, lesion_contrast=1.0, normal_contrast=1.0, rims=0.0,
        local_contrast=0.0, gamma=1.0, tones=(), gain=1.0, bias=0.0, noise=0.01, flow=0.0,
        cistern_flow=0.0, stripped_mm=None, seed=seed,
    )  # fmt: skip


def cases(source: Source, atrophy_mm: float, seed: int) -> dict[str, dict]:
    """Return what the second visit changes in each case, as fields of `Session`."""
    rng = np.random.default_rng(seed)
    axis = int(source.spacing_mm.argmax()) if np.ptp(source.spacing_mm) > 0.01 else 2
    thick = source.spacing_mm.copy()
    thick[axis] = max(4.0, 1.3 * thick[axis])
    shift = np.eye(4)
    shift[:3, 3] = rng.uniform(-0.5, 0.5, 3)
    up = seed % 2 == 0
    one = {
        "lesions 0.7": {"lesion_contrast": 0.7, "normal_contrast": 0.7},
        "lesions 1.4": {"lesion_contrast": 1.4, "normal_contrast": 1.4},
        "ventricles 10 % wider": {"atrophy_mm": atrophy_mm},
        "thick slices": {"spacing_mm": thick},
        "voxels 1.3 times": {"spacing_mm": 1.3 * source.spacing_mm},
        "blur 0.8 mm": {"blur_mm": 0.8},
        "gamma and tones": {
            "gamma": 1.3 if up else 0.8,
            "tones": tuple(rng.uniform(-TONE_SIZES, TONE_SIZES)),
        },
        "bias 20 %": {"bias": 0.2},
        "noise": {"noise": 0.05},
        "rims": {"rims": 0.4},
        "flow": {"flow": 1.2, "cistern_flow": 1.0},
        "shift and distortion": {"error": shift, "distortion_mm": 0.6},
        "skull stripped": {"stripped_mm": 1.0},
    }
    everything: dict = {}
    for name, changes in one.items():
        if name not in ("lesions 1.4" if up else "lesions 0.7", "voxels 1.3 times"):
            everything |= changes
    return one | {"all at once": everything}


def find_atrophy(source: Source, anatomy: Anatomy) -> float:
    """Return the atrophy in mm that makes the ventricles WIDER, by bisection.

    Raises:
      InputError: the scan shows no ventricles, or MOST_ATROPHY_MM is too little.
    """
    ventricles = anatomy.ventricles.astype(np.float32)
    if not ventricles.any():
        raise InputError(f"{source.name}: no ventricles were found. Leave this scan out (--only).")
    grid = SourceGrid(source.brain.shape, np.eye(4))
    low, high = 0.0, MOST_ATROPHY_MM
    for _ in range(STEPS):
        middle = (low + high) / 2
        session = replace(plain(source, 0), atrophy_mm=middle)
        seen = SimulatedVisit(source, anatomy, session, grid).see(ventricles)
        is_less = seen.sum() < WIDER * ventricles.sum()
        low, high = (middle, high) if is_less else (low, middle)
    if high == MOST_ATROPHY_MM:
        raise InputError(
            f"{source.name}: {MOST_ATROPHY_MM:g} mm of atrophy make the ventricles less than "
            f"{WIDER:g} times as large. Leave this scan out (--only)."
        )
    return (low + high) / 2


def main() -> None:
    """Print a table of the false new lesions in each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, nargs="+", help="folders of scans")
    parser.add_argument("--model", type=Path, action="append", help="default: the released weights")
    parser.add_argument("--seeds", type=int, default=3, help="trials of each case and scan")
    add_options(parser)
    parser.add_argument("--only", nargs="+", default=[], help="names of scans")
    flags = parser.parse_args()
    ensemble = Ensemble(runs_of(flags.model or [released()]))
    options = ensemble.options(**given_options(flags))
    false_mm3 = defaultdict(list)
    for files in [files for root in flags.scans for files in find_sources(root)]:
        if flags.only and files.name not in flags.only:
            continue
        source = read_source(files, find_brain=True)
        anatomy = Anatomy(source)
        atrophy_mm = find_atrophy(source, anatomy)
        print(f"{files.name}: ventricles 10 % wider with {atrophy_mm:.2f} mm", flush=True)
        for seed in range(flags.seeds):
            for name, changes in cases(source, atrophy_mm, seed).items():
                if name.startswith("lesions") and not source.lesions_known:
                    continue
                second = replace(plain(source, seed + 1000), **changes)
                margin_mm = 4.0 if name == "all at once" else 0.0
                sessions = Sessions((plain(source, seed), second), margin_mm, rim_seed=seed)
                volume = false_volume_mm3(source, anatomy, sessions, ensemble, options)
                false_mm3[name].append(volume)
                if volume:
                    print(f"{files.name}, seed {seed}, {name}: {volume:.0f} mm3", flush=True)
    rows = [("second visit", "trials", "with false lesions", "mean, mm3", "worst, mm3")]
    for name, volumes in false_mm3.items():
        marked = sum(volume > 0 for volume in volumes)
        mean, worst = np.mean(volumes), max(volumes)
        rows.append((name, str(len(volumes)), str(marked), f"{mean:.0f}", f"{worst:.0f}"))
    print(text_table(rows, "<>>>>"))


def false_volume_mm3(source, anatomy, sessions, ensemble, options) -> float:
    """Return the volume of the new lesions that the networks find in two scans of one head."""
    heads = [source.images[0].copy() for _ in range(2)]
    for head, session in zip(heads, sessions.visits, strict=True):
        change_appearance(head, source, anatomy, session, sessions.rim_seed)
    volumes, affine = scan_both(source, anatomy, heads, Marks(source.brain.shape), sessions, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for name in (TIME01, TIME02, BRAIN_MASK):
            write_array(Path(folder) / name, volumes[name], affine)
        return predict(ensemble, patient_in(Path(folder)), options).found.volume_mm3


if __name__ == "__main__":
    main()
