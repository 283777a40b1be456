"""Small patients in the MSSEG-2 layout."""

from pathlib import Path

import nibabel as nib
import numpy as np

from msseg_jax.volumes import layout

# The files of a patient in the MSSEG-2 layout.
PATIENT_FILES = {layout.TIME01, layout.TIME02, layout.CONSENSUS, layout.BRAIN_MASK} | {
    layout.EXPERT.format(n) for n in (1, 2, 3, 4)
}
SHAPE = (14, 15, 20)
SPACING_MM = (1.0, 1.0, 0.8)


def save_nifti(path: Path, array: np.ndarray, spacing_mm=SPACING_MM) -> Path:
    """Write a NIfTI file with an affine in mm, without rotation, and return its path."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = (-7, 11, 3)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def make_patient(root: Path, name: str, *, lesion: bool, targets: int = 2, seed: int = 0) -> Path:
    """Write a patient, and return its folder. The brain is a textured ellipsoid of intensity 100.

    Args:
      lesion: add a bright new lesion to the second visit and to the targets.
      targets: number of targets; the first is the consensus, the others are experts.
    """
    generator = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    brain = sum(axis**2 for axis in axes) < 0.95
    texture = generator.normal(100, 10, (2, *SHAPE))
    new = np.zeros(SHAPE, dtype=bool)
    if lesion:
        new[6:9, 7:10, 9:13] = True
        texture[1][new] += 100
    folder = root / name
    folder.mkdir(parents=True)
    visits = (texture * brain).astype(np.float32)
    save_nifti(folder / layout.TIME01, visits[0])
    save_nifti(folder / layout.TIME02, visits[1])
    save_nifti(folder / layout.BRAIN_MASK, brain.astype(np.uint8))
    save_nifti(folder / layout.CONSENSUS, new.astype(np.uint8))
    for k in range(1, targets):
        save_nifti(folder / layout.EXPERT.format(k), new.astype(np.uint8))
    return folder


def add_changes(folder: Path, without: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Write the maps of the target set "changes" next to those of `make_patient`.

    Args:
      without: names of files that are not written.

    Returns:
      The maps that were written, and the consensus, by file name.
    """
    new = np.asarray(nib.load(folder / layout.CONSENSUS).dataobj)
    grown, gone, old = (np.zeros(SHAPE, np.uint8) for _ in range(3))
    grown[5:7, 5:7, 6:8] = 1
    gone[9:11, 9:11, 14:16] = 1
    old[5:8, 5:8, 5:7] = 1
    maps = (new, grown, gone, np.maximum(old, gone), np.maximum(np.maximum(old, grown), new))
    named = dict(zip(layout.CHANGES, maps, strict=True))
    written = {name: array for name, array in named.items() if name not in without}
    for name, array in written.items():
        save_nifti(folder / name, array)
    return written


def make_patients(root: Path) -> Path:
    """Write four patients, of which three have a new lesion, and return their folder."""
    for k in range(4):
        make_patient(root, f"patient_{k}", lesion=k != 2, seed=k)
    return root
