"""Make the released weights again, from public scans: pairs, networks, model file.

Usage: python -m benchmarks.weights DATA WORK [--only STEP ...] [--networks NAME ...]

DATA holds the scans, in the folders that SOURCES names. Everything is written below WORK. What
exists there is not made again, so the same command resumes after an interruption.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

MSSEG = (sys.executable, "-m", "msseg_jax")


@dataclass(frozen=True)
class Source:
    """Scans of one centre."""

    folders: tuple[str, ...]  # below DATA; each holds one folder per patient
    pairs: int  # pairs made from each scan
    has_lesions: bool = True


# 3D scans give more pairs than scans with thick slices, because there are few of them.
SOURCES = {
    "ljubljana": Source(
        ("open_ms/single", "open_ms/cross_sectional", "open_ms/longitudinal"), pairs=20
    ),
    "tabriz": Source(("tabriz",), pairs=10),
    "mslesseg": Source(("mslesseg",), pairs=24),
    "healthy": Source(("healthy",), pairs=24, has_lesions=False),
}
UNUSED = ("tabriz_02", "tabriz_12")  # no head is found in some other scans, too
SOME_FAILED = 1  # exit status of `msseg synthetic` if some scans could not be used


@dataclass(frozen=True)
class Network:
    """A network, and the scans that it must not see."""

    without: tuple[str, ...]  # names of sources, or of single scans such as ljubljana_01
    masks: tuple[str, ...]  # folders of lesion masks in MNI space
    shapes: tuple[str, ...] = ()  # folders of lesion masks in other spaces
    brain_size: float = 1.0  # of the brains of `masks`
    more: dict[str, int] = field(default_factory=dict)  # pairs from each scan, by source


OPEN_MS = {
    "masks": ("open_ms/lesion_masks/mni",), "shapes": ("open_ms/lesion_masks/change",),
    "brain_size": 0.9,
}  # fmt: skip
# Each real pair and each source is unseen by one network.
NETWORKS = {
    "no_ljubljana": Network(
        ("ljubljana",), masks=("masks/mslesseg",), shapes=("masks/tabriz",),
        more={"tabriz": 12, "mslesseg": 48, "healthy": 36},
    ),
    "no_tabriz": Network(("tabriz", "ljubljana_01"), **OPEN_MS),
    "no_mslesseg": Network(("mslesseg", "ljubljana_03"), **OPEN_MS),
}  # fmt: skip


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    flags = parser.parse_args()
    for step in flags.only:
        STEPS[step](flags.data.resolve(), flags.work.resolve(), flags.networks)


def link_scans(data: Path, work: Path, names: list[str]) -> None:
    """Link all scans as WORK/scans/<source>/<source>_<patient>/, and their masks."""
    for name, source in SOURCES.items():
        for root in source.folders:
            for folder in sorted(path for path in (data / root).iterdir() if path.is_dir()):
                place = work / "scans" / name / f"{name}_{folder.name}"
                place.mkdir(parents=True, exist_ok=True)
                for file in folder.glob("*.nii.gz"):
                    _link(file, place / file.name)
                    if file.name.startswith("lesion_mask"):
                        _link(file, work / "masks" / name / f"{place.name}.nii.gz")
                if not source.has_lesions and not (place / "lesion_mask.nii.gz").exists():
                    scan = nib.load(folder / "FLAIR.nii.gz")
                    empty = np.zeros(scan.shape[:3], np.uint8)
                    nib.save(nib.Nifti1Image(empty, scan.affine), place / "lesion_mask.nii.gz")


def make_pairs(data: Path, work: Path, names: list[str]) -> None:
    """Make the pairs of each network: WORK/pairs/<network>/."""
    for name in names:
        network = NETWORKS[name]
        for source_name, source in SOURCES.items():
            if source_name in network.without:
                continue
            made = work / "made" / name / source_name
            left_out = [*UNUSED, *network.without]
            here = {path.name for path in (work / "scans" / source_name).iterdir()}
            command = [
                *MSSEG, "synthetic", f"--scans={work / 'scans' / source_name}", "--find_brains",
                *(f"--masks={_masks(data, work, folder)}" for folder in network.masks),
                *(f"--shapes={_masks(data, work, folder)}" for folder in network.shapes),
                f"--brain_size={network.brain_size}", f"--output={made}",
                f"--pairs={network.more.get(source_name, source.pairs)}",
                *(f"--leave_out={scan}" for scan in left_out if scan in here),
                *(f"--leave_out={scan.removeprefix('ljubljana_')}" for scan in network.without
                  if scan.startswith("ljubljana_")),
            ]  # fmt: skip
            if subprocess.run(command).returncode not in (0, SOME_FAILED):
                sys.exit(f"making pairs from {source_name} for {name} failed")
            for pair in made.iterdir():
                if not pair.name.startswith("."):
                    _link(pair, work / "pairs" / name / pair.name)


def _masks(data: Path, work: Path, folder: str) -> Path:
    return data / folder if (data / folder).is_dir() else work / folder


def _link(file: Path, link: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(file)


STEPS = {"scans": link_scans, "pairs": make_pairs}

if __name__ == "__main__":
    main()
