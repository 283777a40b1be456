"""Choose the affine of a NIfTI image. Its header may hold two: the qform and the sform.

The rule is that of ITK, so that a mask made by an ITK program (ANTs, HD-BET, 3D Slicer) lies where
the scan lies:

1. Only one of them has a code above 0: take that one.
2. Both have: take the sform if its code is 1 (scanner) and it is rigid, or else the qform.
3. None has: nibabel guesses an affine from the voxel sizes.
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from msseg_jax.system.errors import InputError

SCANNER = 1  # code of a form that leads to the coordinates of the scanner
RIGID_TOLERANCE = 1e-3  # largest deviation of a rigid sform from orthonormal axes
LONGEST_QUATERNION = 1.01  # length of (b, c, d) up to which a quaternion is only rounded
SAME_SIZE = 0.01  # relative difference of voxel sizes that may be due to rounding
SAME_PLACE_MM = 0.5  # forms that differ by less than this are the same


@dataclass(frozen=True)
class Geometry:
    """The geometry of an image."""

    affine: np.ndarray  # (4, 4), voxel indices to scanner mm
    header: nib.Nifti1Header  # with a valid quaternion
    other_affine: np.ndarray | None  # (4, 4), of the form that is not used, if there are two
    warnings: tuple[str, ...]  # a contradiction that matters


def choose_geometry(
    header: nib.Nifti1Header, shape: tuple[int, ...], path: Path, stored_mm: np.ndarray
) -> Geometry:
    """Return the geometry of an image.

    Args:
      header: its header.
      shape: its shape; the first three numbers count.
      path: names the image in messages.
      stored_mm: (3,), voxel sides of the header (pixdim), as they are in the file.

    Raises:
      InputError: a field of the header is invalid, or the affine contradicts the voxel sizes.
    """
    header = with_valid_quaternion(header, path)
    qform, sform = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    if qform is None and sform is None:
        affine, other = header.get_best_affine(), None
    elif qform is None or (sform is not None and _is_preferred(header, stored_mm)):
        affine, other = sform, qform
    else:
        affine, other = qform, sform
    _check_affine(affine, path, stored_mm)
    if other is None or not np.isfinite(other).all():
        return Geometry(affine, header, None, ())
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[:3]])).reshape(3, 8).T
    here, there = (nib.affines.apply_affine(one, corners) for one in (affine, other))
    furthest_mm = float(np.linalg.norm(here - there, axis=1).max())
    if furthest_mm <= SAME_PLACE_MM:
        return Geometry(affine, header, other, ())
    used, unused = ("sform", "qform") if affine is sform else ("qform", "sform")
    warning = (
        f"{path}: qform and sform of the header differ by up to {furthest_mm:.1f} mm. The {used} "
        f"is used, as ITK programs do: the first voxel is at {_point(here[0])} mm. By the {unused} "
        f"it is at {_point(there[0])} mm. Programs that use the {unused} see the image there."
    )
    return Geometry(affine, header, other, (warning,))


def is_in_header(affine: np.ndarray, header: nib.Nifti1Header) -> bool:
    """Return whether an affine is that of the qform or of the sform of a header."""
    forms = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    return any(form is not None and np.allclose(affine, form) for form in forms)


def _is_preferred(header: nib.Nifti1Header, stored_mm: np.ndarray) -> bool:
    """Return whether the sform is used although there is a qform."""
    if int(header["sform_code"]) != SCANNER:
        return False
    with np.errstate(divide="ignore", invalid="ignore"):
        axes = header.get_sform()[:3, :3] / stored_mm
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() <= RIGID_TOLERANCE)


def with_valid_quaternion(header: nib.Nifti1Header, path: Path) -> nib.Nifti1Header:
    """Return a header with a quaternion of length 1 at most. Rounding may have made it longer.

    Raises:
      InputError: it is longer than rounding can make it.
    """
    if not int(header["qform_code"]) > 0:
        return header
    names = ("quatern_b", "quatern_c", "quatern_d")
    quaternion = np.array([float(header[name]) for name in names])
    length = float(np.linalg.norm(quaternion))
    if not length <= LONGEST_QUATERNION:  # NaN included
        raise InputError(
            f"{path}: the quaternion of the header ({', '.join(names)}) is {_point(quaternion)}, "
            f"of length {length:.3g}. Expected at most 1. Correct the qform in the header."
        )
    if length > 1:
        header = header.copy()
        for name, value in zip(names, quaternion / length, strict=True):
            header[name] = value
    return header


def _check_affine(affine: np.ndarray, path: Path, stored_mm: np.ndarray) -> None:
    sizes = nib.affines.voxel_sizes(affine)
    both = np.concatenate([stored_mm, sizes])
    if not (np.isfinite(affine).all() and np.isfinite(both).all() and (both > 0).all()):
        raise InputError(
            f"{path}: voxel size is {_point(stored_mm)} mm. Expected three positive "
            "numbers and a finite affine. Correct the header (pixdim, sform, qform)."
        )
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-3:
        raise InputError(
            f"{path}: two axes of its affine are parallel. Expected an invertible affine. Correct "
            "the sform in the header."
        )
    if (np.abs(sizes / stored_mm - 1) > SAME_SIZE).any():
        raise InputError(
            f"{path}: the header gives two voxel sizes: pixdim {_point(stored_mm)} mm and sform "
            f"{_point(sizes)} mm. Expected the same. Correct the one that is wrong."
        )


def _point(values: np.ndarray) -> str:
    return f"({', '.join(f'{float(value):.6g}' for value in values)})"
