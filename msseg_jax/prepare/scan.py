"""Read and check the scan of one visit: a NIfTI file, or a folder of DICOM files."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msseg_jax.prepare.dicom.reading import read_series
from msseg_jax.prepare.images import image_of
from msseg_jax.prepare.request import THE_ONLY, Choice
from msseg_jax.prepare.visit_facts import NO_FACTS, VisitFacts
from msseg_jax.prepare.zero_level import with_natural_zero
from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import has_suffix
from msseg_jax.volumes.extent import MOST_EXTENT_MM
from msseg_jax.volumes.names import READABLE
from msseg_jax.volumes.nifti import check_finite, read_volume
from msseg_jax.volumes.right_angles import right_angle_problem

EXTENT_MM = (60.0, MOST_EXTENT_MM)  # field of view along each axis; at least a slab of a head
MOST_SPACING_MM = 10.0  # coarsest voxel spacing; clinical scans have slices of up to about 8 mm

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scan:
    """The FLAIR of a visit on the scanner's grid."""

    path: Path
    image: sitk.Image  # float32, 0 or more
    series: str | None  # description of the DICOM series, None for NIfTI
    digest: str  # SHA-256 of the voxels; does not depend on the file format
    is_oriented: bool  # True if the header gives the orientation of the patient
    other_affine: np.ndarray | None = None  # (4, 4), a second geometry in the header
    warnings: tuple[str, ...] = ()  # contradictions in the header, and changes of the intensities
    empty: sitk.Image | None = None  # uint8, 1 where there is no data: padding and exact zeros
    facts: VisitFacts = NO_FACTS  # from the headers of a DICOM series; empty for NIfTI
    # Numbers of the slices in their DICOM series, along the last axis; empty if they are not known
    slice_numbers: tuple[int, ...] = ()


def read_scan(path: Path, choice: Choice = THE_ONLY) -> Scan:
    """Read a NIfTI file, or a series from a folder of DICOM files.

    Args:
      choice: is needed if the folder has several series, or the series several stacks of slices.

    Raises:
      InputError: The file does not exist or cannot be read. It contains NaN, its grid is sheared,
        the image is constant, or its field of view is too small or too large for a head. The
        message names the file.
    """
    path = Path(path)
    said, is_oriented, facts = None, True, NO_FACTS
    other_affine: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    if path.is_dir():
        found = read_series(
            path, choice.series, choice.acquisition,
            series_for_both=choice.series_for_both,
            acquisition_for_both=choice.acquisition_for_both,
        )  # fmt: skip
        image, said, facts, numbers = found.image, found.said, found.facts, found.slice_numbers
    elif path.is_file() and _is_dicom(path):
        raise InputError(
            f"{path}: is one DICOM file, which holds only a slice; expected the folder of the "
            f"whole series. Give {path.parent} instead."
        )
    elif path.is_file() and not has_suffix(path, (*READABLE, ".img")):
        raise InputError(
            f"{path}: is neither a NIfTI file nor a folder; expected a NIfTI file (.nii or "
            ".nii.gz), or the folder of a DICOM series. Convert it, or give another file."
        )
    else:
        volume = read_volume(path)
        check_finite(volume)
        if problem := right_angle_problem(volume):
            raise InputError(problem)
        image, is_oriented = image_of(volume.array, volume.affine), volume.is_oriented
        other_affine, warnings = volume.other_affine, volume.warnings
        del volume  # the image is a copy of its voxels, and both are large
    _check_extent(path, image)
    array = sitk.GetArrayViewFromImage(image)
    if not np.isfinite(array).all():
        raise InputError(
            f"{path}: some voxels are NaN or infinite; expected finite numbers. Export it again."
        )
    if array.min() == array.max():
        raise InputError(
            f"{path}: every voxel is {array.flat[0]:g}; expected a FLAIR image. Export it again."
        )
    digest = _digest(image)
    zeroed = with_natural_zero(array, str(path))
    if zeroed.array.max() <= 0:
        raise InputError(f"{path}: no voxel is above 0; expected a FLAIR image. Export it again.")
    if zeroed.array is not array:
        image = _like(image, zeroed.array)
    for warning in zeroed.warnings:
        logger.warning("%s", warning)
    empty = _like(image, zeroed.is_empty.view(np.uint8))
    warnings = (*warnings, *zeroed.warnings)
    return Scan(
        path, image, said, digest, is_oriented, other_affine, warnings, empty, facts, numbers
    )


def _is_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM files do: "DICM" follows 128 bytes of any content."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _like(image: sitk.Image, array: np.ndarray) -> sitk.Image:
    """Return voxels (k, j, i) as an image on the grid of another one."""
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(image)
    return result


def check_two_visits(time01: Scan, time02: Scan) -> None:
    """Raise InputError if both visits are the same scan."""
    # A converter may change the axes and the header, but not the set of voxel values. Sorting them
    # takes time and memory, so it is done only if their sums are equal.
    first, second = (sitk.GetArrayViewFromImage(scan.image) for scan in (time01, time02))
    if _sum_of_bits(first) != _sum_of_bits(second):
        return
    if np.array_equal(np.sort(first, axis=None), np.sort(second, axis=None)):
        raise InputError(
            f"{time01.path} and {time02.path} hold the same voxels: the same scan was given twice; "
            "expected the scans of two visits. Check both paths."
        )


def _sum_of_bits(array: np.ndarray) -> int:
    """Return the sum of the voxels' bit patterns (float32), which does not depend on their order.

    It is exact, unlike a sum of real numbers. Scans without negative voxels are expected.
    """
    planes = ((plane + np.float32(0)).view(np.uint32) for plane in array)  # + 0 turns -0 into 0
    return sum(int(plane.sum(dtype=np.uint64)) for plane in planes)


def _check_extent(path: Path, image: sitk.Image) -> None:
    spacing_mm = np.array(image.GetSpacing())
    extent_mm = spacing_mm * np.array(image.GetSize())
    low, high = EXTENT_MM
    if not ((extent_mm >= low).all() and (extent_mm <= high).all()):
        said = " x ".join(f"{mm:.0f}" for mm in extent_mm)
        raise InputError(
            f"{path}: its field of view is {said} mm; expected {low:.0f} to {high:.0f} mm along "
            "each axis for a scan of a head. Check that it is such a scan, and that the voxel size "
            "in its header is right."
        )
    if (spacing_mm > MOST_SPACING_MM).any():
        said = " x ".join(f"{mm:.1f}" for mm in spacing_mm)
        raise InputError(
            f"{path}: its voxels measure {said} mm; expected at most {MOST_SPACING_MM:.0f} mm, "
            "because lesions are smaller than that. Give a scan with smaller voxels."
        )


def _digest(image: sitk.Image) -> str:
    return hashlib.sha256(sitk.GetArrayViewFromImage(image).ravel().data).hexdigest()
