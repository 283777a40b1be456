"""Read the real scans from which pairs are made.

For each scan, this module finds the brain, corrects the bias field, and registers the scan to MNI
space. A folder of scans contains:

SCANS/<name>.nii.gz              one scan, or
SCANS/<name>/<any>.nii.gz        one scan, or the two scans of a pair with the names that `prepare`
                                 gives them: flair_time01_on_middle_space.nii.gz and
                                 flair_time02_on_middle_space.nii.gz
             brain_mask*.nii.gz  optional; without it the brain is found in the scan
             lesion_mask*.nii.gz optional: ALL lesions of the scan; empty if it has none
             normal_hyperintensity*.nii.gz
                                 optional: bright tissue that is normal. No lesion is painted there.
             ventricles*.nii.gz  is ignored
             change_mask*.nii.gz required for a pair: all places where the visits differ by a
                                 lesion. Without it, the new lesions of the pair would not be
                                 labelled.
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from msseg_jax.prepare.atlas import ADULT
from msseg_jax.prepare.bias import correct_bias
from msseg_jax.prepare.images import RAS_TO_LPS, array_of, image_of
from msseg_jax.prepare.registration import matrix_of
from msseg_jax.prepare.scan import read_scan
from msseg_jax.prepare.visits import check_volume, look_at
from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import has_suffix
from msseg_jax.volumes.grids import bounding_box, grid_difference
from msseg_jax.volumes.layout import TIME01, TIME02
from msseg_jax.volumes.mask_fit import find_misfit, measure_mask_fit
from msseg_jax.volumes.masks import brain_mask_problem, is_inside, mask_problem
from msseg_jax.volumes.names import READABLE, stem
from msseg_jax.volumes.nifti import check_finite, read_volume
from msseg_jax.volumes.volume import Volume

MARGIN_MM = 8.0  # margin kept around the brain, so that it can be moved and blurred
# Prefixes of the file names of masks
MASKS = ("brain_mask", "lesion_mask", "change_mask", "normal_hyperintensity")
IGNORED = ("ground_truth", "ventricles")  # prefixes of the names of other masks


@dataclass(frozen=True)
class Files:
    """Files of one scan, or of one pair of scans."""

    name: str
    scans: tuple[Path, ...]  # one, or two on the same grid
    brain_mask: Path | None = None
    lesion_mask: Path | None = None
    change_mask: Path | None = None
    normal_mask: Path | None = None

    @property
    def all(self) -> tuple[Path, ...]:
        """All files of the source."""
        masks = (self.brain_mask, self.lesion_mask, self.change_mask, self.normal_mask)
        return (*self.scans, *(path for path in masks if path))


@dataclass(frozen=True)
class Source:
    """One real scan, or two of a patient on the same grid, cropped to the brain and MARGIN_MM."""

    name: str
    images: np.ndarray  # (1 or 2, D, H, W) float32; 1 is the median of the brain
    brain: np.ndarray  # (D, H, W) bool
    lesions: np.ndarray  # (D, H, W) bool: all lesions of one scan, or the lesion changes of a pair
    normal: np.ndarray  # (D, H, W) bool: bright tissue that is normal, as far as it is known
    affine: np.ndarray  # (4, 4), voxel indices to scanner mm
    to_mni: np.ndarray  # (4, 4), scanner mm to MNI mm
    lesions_known: bool = False  # whether `lesions` are all lesions that the scan shows

    @property
    def is_pair(self) -> bool:
        """True if the source is a real pair, and not a single scan."""
        return len(self.images) == 2

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel sides: (3,), in mm."""
        return nib.affines.voxel_sizes(self.affine)


def find_sources(root: Path) -> list[Files]:
    """List the scans and pairs of a folder, sorted by name, without reading them.

    Raises:
      InputError: the folder does not exist, contains no scan, or contains a folder with other files
        than the module docstring describes.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder. Expected a folder with FLAIR scans (--scans).")
    found, problems = [], []
    for path in sorted(root.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_file() and has_suffix(path, READABLE):
            found.append(Files(stem(path), (path,)))
        elif path.is_dir():
            try:
                found.append(_in_folder(path))
            except InputError as error:
                problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    if not found:
        raise InputError(
            f"{root}: the folder contains no scan. Expected a NIfTI file (.nii.gz), or a folder "
            "with one, for each patient (--scans)."
        )
    return found


def _in_folder(folder: Path) -> Files:
    images = sorted(p for p in folder.iterdir() if has_suffix(p, READABLE))
    masks = {kind: [p for p in images if p.name.lower().startswith(kind)] for kind in MASKS}
    for kind, paths in masks.items():
        if len(paths) > 1:
            raise InputError(
                f"{folder}: the names of {len(paths)} files begin with {kind}. Expected at most "
                "one. Rename or remove the others."
            )
    one = {kind: paths[0] for kind, paths in masks.items() if paths}
    if (folder / TIME01).is_file() and (folder / TIME02).is_file():
        if "change_mask" not in one:
            raise InputError(
                f"{folder}: this pair has no change_mask.nii.gz. Expected a mask of all lesion "
                "changes between the visits; without it they would be labelled as unchanged. Draw "
                "this mask, or provide only one of the visits: a single scan needs no mask."
            )
        scans: tuple[Path, ...] = (folder / TIME01, folder / TIME02)
    else:
        scans = tuple(p for p in images if not p.name.lower().startswith((*MASKS, *IGNORED)))
        if len(scans) != 1:
            there = ", ".join(p.name for p in images) or "none"
            raise InputError(
                f"{folder}: the folder contains {len(scans)} scans. Expected one scan. The names "
                f"of masks must begin with {' or '.join(MASKS)}. NIfTI files found: {there}"
            )
    return Files(folder.name, scans, *(one.get(kind) for kind in MASKS))


def read_source(files: Files, find_brain: bool = False) -> Source:
    """Read a scan, find its brain, register it to MNI space, and correct the bias field.

    Args:
      files: files of one scan, or of one pair.
      find_brain: find the brain in the scan even if there is a brain mask.

    Raises:
      InputError: a file cannot be used, or no head is found in a scan.
    """
    scans = [read_scan(path) for path in files.scans]
    grid = read_volume(files.scans[0])
    for path in files.scans[1:]:
        if difference := grid_difference(grid, read_volume(path)):
            raise InputError(difference)
    advice = f"leave this scan out (--leave_out={files.name})"
    visit = look_at(scans[0], advice)
    if files.brain_mask and not find_brain:
        brain = _read_mask(files.brain_mask, grid, of_brain=True)
        fit = measure_mask_fit(grid.array, brain, grid.affine)
        misfit = find_misfit(files.brain_mask, {grid.path: fit})
        if misfit and misfit.is_certain:
            raise InputError(misfit.message)
    else:
        brain = array_of(visit.brain) > 0
    for scan in scans:  # the mask may be larger than the brain of a skull-stripped scan
        brain &= array_of(scan.image) > 0
    mask = image_of(brain.astype(np.uint8), grid.affine)
    check_volume(mask, f"{files.scans[0]}, with {files.brain_mask or 'the mask found'}", advice)
    images = np.stack([array_of(correct_bias(scan.image, mask)) for scan in scans])
    images /= [[[[np.median(image[brain])]]] for image in images]

    lesion_file = files.change_mask if len(scans) == 2 else files.lesion_mask
    lesions, normal = (
        _read_mask(path, grid, of_brain=False) & brain if path else np.zeros(brain.shape, bool)
        for path in (lesion_file, files.normal_mask)
    )

    # The transform maps the atlas to the scan, both LPS. The atlas is MNI space, scaled down to
    # the size of an adult's brain.
    matrix, shift = matrix_of(sitk.Transform(visit.to_atlas))
    turn = RAS_TO_LPS @ (ADULT * matrix) @ RAS_TO_LPS
    from_mni = nib.affines.from_matvec(turn, RAS_TO_LPS @ shift)
    margin = np.ceil(MARGIN_MM / grid.spacing_mm).astype(int)
    box = tuple(
        slice(max(side.start - more, 0), side.stop + more)
        for side, more in zip(bounding_box(brain), margin, strict=True)
    )
    start = nib.affines.from_matvec(np.eye(3), [side.start for side in box])
    return Source(
        files.name,
        np.ascontiguousarray(images[(slice(None), *box)], np.float32),
        brain[box],
        lesions[box] & ~normal[box],
        normal[box],
        grid.affine @ start,
        np.linalg.inv(from_mni),
        lesions_known=len(scans) == 1 and lesion_file is not None,
    )


def _read_mask(path: Path, grid: Volume, of_brain: bool) -> np.ndarray:
    volume = read_volume(path)
    check_finite(volume)
    difference = grid_difference(grid, volume)
    problem = brain_mask_problem(volume) if of_brain else mask_problem(path, volume.array)
    if found := difference or problem:
        raise InputError(found)
    return is_inside(volume.array)
