"""From the middle space back to the second visit, as its scanner laid the voxels."""

from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from msseg_jax.data.volumes import Volume, read_volume
from msseg_jax.prepare.images import affine_of, array_of, image_of
from msseg_jax.prepare.patient import TRANSFORMS
from msseg_jax.prepare.scan import read_scan


@dataclass(frozen=True)
class ScannerGrid:
    """The grid of a scan, and the way there from the middle space."""

    like: Volume  # what outputs take grid, codes and units from; its voxels are all 0
    _from_scan: sitk.Transform  # from points of the scan to points of the middle space

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
        return ScannerGrid(replace(like, array=empty), to_scan.GetInverse())

    def bring(self, array: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """A map of the middle space (i, j, k) on the scan's grid: linear, 0 beyond, float32.

        Args:
          affine: (4, 4), of the map.
        """
        image = image_of(array.astype(np.float32), affine)
        scan = image_of(self.like.array, self.like.affine)
        return array_of(sitk.Resample(image, scan, self._from_scan, sitk.sitkLinear, 0.0))


def _of_dicom(path: Path, series: str | None) -> Volume:
    image = read_scan(path, series).image
    affine = affine_of(image)
    header = nib.Nifti1Image(np.zeros(image.GetSize(), np.uint8), affine).header
    header.set_xyzt_units("mm")
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    return Volume(path, array_of(image), affine, header)
