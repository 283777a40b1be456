"""Resample between the middle space and the scanner's grid of the second visit."""

from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.affines import apply_affine, from_matvec

from msseg_jax.prepare.folder import TRANSFORMS
from msseg_jax.prepare.images import RAS_TO_LPS, affine_of, array_of, image_of
from msseg_jax.prepare.request import THE_ONLY, Choice
from msseg_jax.prepare.scan import read_scan
from msseg_jax.volumes.nifti import read_volume
from msseg_jax.volumes.volume import Volume


@dataclass(frozen=True)
class ScannerGrid:
    """The grid of a scan, with the transform between the middle space and this grid."""

    like: Volume  # gives outputs their grid, codes and units; its voxels are all 0
    _to_scan: sitk.Transform  # from points of the middle space to points of the scan
    # Numbers of the slices in their DICOM series, along the last axis; empty if they are not known
    slice_numbers: tuple[int, ...] = ()

    @staticmethod
    def of(folder: Path, time02: Path, choice: Choice = THE_ONLY) -> "ScannerGrid":
        """Return the grid of the second visit of a prepared pair.

        Args:
          folder: the folder that `prepare_patient` wrote.
          time02, choice: the scan from which the pair was prepared.
        """
        to_scan = sitk.ReadTransform(str(folder / TRANSFORMS / "middle_to_time02.txt"))
        numbers: tuple[int, ...] = ()
        if time02.is_dir():
            like, numbers = _read_dicom_volume(time02, choice)
        else:
            like = read_volume(time02)
        # The scan's voxels are not needed. A single 0 is broadcast to all of them.
        empty = np.broadcast_to(np.float32(0), like.array.shape)
        return ScannerGrid(replace(like, array=empty), to_scan, numbers)

    def bring(self, array: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """Resample a map of the middle space (i, j, k) to the scan's grid.

        The result is float32, linearly interpolated, and 0 outside the map.

        Args:
          affine: (4, 4) affine of the map.
        """
        image = image_of(array.astype(np.float32), affine)
        scan = image_of(self.like.array, self.like.affine)
        from_scan = self._to_scan.GetInverse()
        return array_of(sitk.Resample(image, scan, from_scan, sitk.sitkLinear, 0.0))

    def to_scan(self) -> np.ndarray:
        """Return the transform from the middle space to the scan: (4, 4), mm to mm (RAS)."""
        start, *ends = (
            RAS_TO_LPS @ np.array(self._to_scan.TransformPoint(point))
            for point in np.vstack([np.zeros(3), RAS_TO_LPS]).tolist()
        )
        return from_matvec(np.stack(ends, axis=1) - start[:, None], start)

    def points_in_middle(self, points: np.ndarray) -> np.ndarray:
        """Map points of the scan to points of the middle space, both (N, 3) mm (RAS)."""
        from_scan = self._to_scan.GetInverse()
        points = (points.reshape(-1, 3) @ RAS_TO_LPS).tolist()
        there = [from_scan.TransformPoint(point) for point in points]
        return np.reshape(there, (-1, 3)) @ RAS_TO_LPS

    def draw_in_middle(
        self, labels: np.ndarray, shape: tuple[int, int, int], affine: np.ndarray
    ) -> np.ndarray:
        """Resample numbered lesions from the scan's grid to a grid of the middle space: int32.

        Each voxel takes the number of the nearest voxel. A lesion that is too small for this gets
        the one voxel that is nearest to its centre.

        Args:
          labels: (i, j, k) int, 0 where there is no lesion.
          shape: shape of the grid in the middle space.
          affine: affine of this grid.
        """
        grid = image_of(np.broadcast_to(np.uint8(0), shape), affine)
        drawn = array_of(
            sitk.Resample(
                image_of(labels.astype(np.int32), self.like.affine), grid, self._to_scan,
                sitk.sitkNearestNeighbor, 0,
            )
        )  # fmt: skip
        for number in np.setdiff1d(labels[labels > 0], drawn[drawn > 0]):
            centre = np.argwhere(labels == number).mean(axis=0)
            point = self.points_in_middle(apply_affine(self.like.affine, centre[None]))
            (voxel,) = np.rint(apply_affine(np.linalg.inv(affine), point)).astype(int)
            drawn[tuple(np.clip(voxel, 0, np.array(shape) - 1))] = number
        return drawn


def _read_dicom_volume(path: Path, choice: Choice) -> tuple[Volume, tuple[int, ...]]:
    scan = read_scan(path, choice)
    image = scan.image
    affine = affine_of(image)
    header = nib.Nifti1Image(np.zeros(image.GetSize(), np.uint8), affine).header
    header.set_xyzt_units("mm")
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    return Volume(path, array_of(image), affine, header), scan.slice_numbers
