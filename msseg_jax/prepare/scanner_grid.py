"""Between the middle space and the second visit, as its scanner laid the voxels."""

from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.affines import apply_affine

from msseg_jax.prepare.folder import TRANSFORMS
from msseg_jax.prepare.images import RAS_TO_LPS, affine_of, array_of, image_of
from msseg_jax.prepare.scan import read_scan
from msseg_jax.volumes.nifti import read_volume
from msseg_jax.volumes.volume import Volume


@dataclass(frozen=True)
class ScannerGrid:
    """The grid of a scan, and the way there from the middle space and back."""

    like: Volume  # what outputs take grid, codes and units from; its voxels are all 0
    _to_scan: sitk.Transform  # from points of the middle space to points of the scan

    @staticmethod
    def of(folder: Path, time02: Path, series: str | None) -> "ScannerGrid":
        """The grid of the second visit of a prepared pair.

        Args:
          folder: that `prepare_patient` made.
          time02, series: the scan, as it was prepared.
        """
        to_scan = sitk.ReadTransform(str(folder / TRANSFORMS / "middle_to_time02.txt"))
        like = _of_dicom(time02, series) if time02.is_dir() else read_volume(time02)
        # One 0 that stands for all voxels: of the scan's own none is needed.
        empty = np.broadcast_to(np.float32(0), like.array.shape)
        return ScannerGrid(replace(like, array=empty), to_scan)

    def bring(self, array: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """A map of the middle space (i, j, k) on the scan's grid: linear, 0 beyond, float32.

        Args:
          affine: (4, 4), of the map.
        """
        image = image_of(array.astype(np.float32), affine)
        scan = image_of(self.like.array, self.like.affine)
        from_scan = self._to_scan.GetInverse()
        return array_of(sitk.Resample(image, scan, from_scan, sitk.sitkLinear, 0.0))

    def points_in_middle(self, points: np.ndarray) -> np.ndarray:
        """Points of the scan as points of the middle space, both (N, 3) mm (RAS)."""
        from_scan = self._to_scan.GetInverse()
        points = (points.reshape(-1, 3) @ RAS_TO_LPS).tolist()
        there = [from_scan.TransformPoint(point) for point in points]
        return np.reshape(there, (-1, 3)) @ RAS_TO_LPS

    def draw_in_middle(
        self, labels: np.ndarray, shape: tuple[int, int, int], affine: np.ndarray
    ) -> np.ndarray:
        """Numbered lesions of the scan's grid on one of the middle space, nearest voxel: int32.

        Args:
          labels: (i, j, k) int, 0 where there is no lesion.
          shape, affine: of the grid to draw on.

        A lesion so small that no voxel falls on it is drawn as the one that is nearest to it.
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


def _of_dicom(path: Path, series: str | None) -> Volume:
    image = read_scan(path, series).image
    affine = affine_of(image)
    header = nib.Nifti1Image(np.zeros(image.GetSize(), np.uint8), affine).header
    header.set_xyzt_units("mm")
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    return Volume(path, array_of(image), affine, header)
