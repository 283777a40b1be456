"""Volumes with their geometry: NIfTI in and out, and resampling between grids.

A grid is a shape (voxels) and an affine (voxel indices to scanner mm). Arrays keep the file's own
axis order (i, j, k), written (D, H, W).
"""

import os
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from msseg_jax.data.files import write_beside
from msseg_jax.errors import InputError

SUFFIXES = (".nii.gz", ".nii")
GRID_TOLERANCE_MM = 0.05  # corners further apart than this are on different grids


class VolumeError(InputError):
    """A file that cannot be used as a volume; the message names it and says what to do."""


@dataclass(frozen=True)
class Volume:
    """A 3-D image as it lies in its file."""

    path: Path
    array: np.ndarray  # (D, H, W) float32
    affine: np.ndarray  # (4, 4), voxel indices to scanner mm
    header: nib.Nifti1Header  # the file's own, from which outputs take codes and units

    @property
    def is_oriented(self) -> bool:
        """Whether the file says how the patient lies; where not, nibabel guesses."""
        return bool(self.header["sform_code"] or self.header["qform_code"])

    @property
    def spacing_mm(self) -> np.ndarray:  # (3,)
        return nib.affines.voxel_sizes(self.affine)


def read_volume(path: Path | str) -> Volume:
    """Read a 3-D NIfTI image as float32.

    Raises:
      VolumeError: missing, no NIfTI, truncated, not 3-D, RGB or complex, or a voxel size or unit
        that makes no sense. NaN and infinite voxels are the caller's to refuse (`check_finite`).
    """
    path = Path(path)
    if path.is_dir():
        raise VolumeError(f"{path}: is a folder; wanted a 3-D NIfTI image (.nii or .nii.gz)")
    if not path.is_file():
        raise VolumeError(f"{path}: no such file; wanted a 3-D NIfTI image (.nii or .nii.gz)")
    try:
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Image):  # NIfTI-2 is a subclass
            raise VolumeError(
                f"{path}: is {type(image).__name__}; wanted NIfTI (.nii or .nii.gz): convert it"
            )
        _check_kind(path, image)
        array = np.asarray(image.dataobj, dtype=np.float32)
    except VolumeError:
        raise
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise VolumeError(
            f"{path}: no readable NIfTI image, whatever its name says ({error}); wanted a 3-D one: "
            "is it a file of another kind, or a damaged copy?"
        ) from error
    except Exception as error:  # a damaged file makes nibabel fail in many ways
        raise VolumeError(
            f"{path}: cannot be read to its end ({error}): truncated or damaged; copy it again"
        ) from error
    return Volume(path, array, image.affine, image.header)


def _check_kind(path: Path, image: nib.Nifti1Image) -> None:
    """Refuse what the header alone shows to be unusable, before its voxels are read."""
    dtype = image.get_data_dtype()
    if dtype.kind not in "iufb":
        kind = "complex" if dtype.kind == "c" else "RGB"
        raise VolumeError(
            f"{path}: voxels are {kind} ({dtype}); wanted one real number per voxel: "
            "export the magnitude image"
        )
    if len(image.shape) != 3:
        raise VolumeError(
            f"{path}: has {len(image.shape)} dimensions, {image.shape}; wanted 3: "
            "write one volume per file"
        )
    # nibabel mends a zero or negative size in silence, so look at what the file says.
    with nib.openers.ImageOpener(path) as file:
        stored = type(image.header).from_fileobj(file, check=False)["pixdim"][1:4]
    sizes = np.concatenate([stored, nib.affines.voxel_sizes(image.affine)])
    if not (np.isfinite(image.affine).all() and np.isfinite(sizes).all() and (sizes > 0).all()):
        raise VolumeError(
            f"{path}: voxel size is {tuple(float(s) for s in stored)} mm; wanted three positive "
            "numbers and a finite affine: mend the header (pixdim, sform, qform)"
        )
    if abs(np.linalg.det(image.affine[:3, :3] / nib.affines.voxel_sizes(image.affine))) < 1e-3:
        raise VolumeError(
            f"{path}: two axes of its affine are parallel; wanted an invertible one: mend the sform"
        )
    unit = image.header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise VolumeError(f"{path}: its unit of length is {unit}; wanted mm: rewrite the header")


def check_finite(volume: Volume) -> None:
    """Raises VolumeError if a voxel is NaN or infinite."""
    wrong = int(volume.array.size - np.isfinite(volume.array).sum())
    if wrong:
        raise VolumeError(
            f"{volume.path}: {wrong} voxels are NaN or infinite; wanted finite numbers: "
            "set them to 0 or export the image again"
        )


def read_checked(path: Path, like: Volume | None, problems: list[str]) -> Volume | None:
    """A finite volume on the grid of `like`; what is wrong with it is added to `problems`.

    None where it cannot be read at all.
    """
    try:
        volume = read_volume(path)
        check_finite(volume)
    except VolumeError as error:
        problems.append(str(error))
        return None
    if like is not None and (difference := grid_difference(like, volume)):
        problems.append(difference)
    return volume


def mask_problem(name: Path | str, array: np.ndarray) -> str | None:
    """What keeps an array from being a binary mask, in words; None if nothing does."""
    wrong = array[(array != 0) & (array != 1)]
    if not wrong.size:
        return None
    if (wrong == np.rint(wrong)).all():
        cure = "it looks like a label map: keep the new lesions alone, as 1"
    elif wrong.min() >= 0 and wrong.max() <= 1:
        cure = "it looks like a probability map: threshold it"
    else:
        cure = "make it binary"
    return (
        f"{name}: {wrong.size} voxels have values other than 0 and 1, {wrong[0]:g} for one; "
        f"wanted a mask of the new lesions alone: {cure}"
    )


def grid_difference(one: Volume, other: Volume) -> str | None:
    """What keeps two volumes from being on one grid, in words; None if nothing does."""
    if one.array.shape != other.array.shape:
        return (
            f"{other.path} has {other.array.shape} voxels, {one.path} has {one.array.shape}; "
            "wanted one grid for both: resample one onto the other"
        )
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in one.array.shape])).reshape(3, 8)
    apart = nib.affines.apply_affine(one.affine, corners.T) - nib.affines.apply_affine(
        other.affine, corners.T
    )
    furthest_mm = float(np.linalg.norm(apart, axis=1).max())
    if furthest_mm > GRID_TOLERANCE_MM:
        return (
            f"{other.path} lies up to {furthest_mm:.2f} mm away from {one.path} (their affines "
            f"differ); wanted at most {GRID_TOLERANCE_MM} mm: register and resample one onto the "
            "other"
        )
    return None


def check_output(path: Path | str, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """The path of a file to write. Raises VolumeError if its name or folder will not do."""
    path = Path(path)
    if not path.name.endswith(suffixes):
        raise VolumeError(f"{path}: wanted a name that ends in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise VolumeError(f"{path}: the folder {path.parent} does not exist: make it first")
    if not os.access(path.parent, os.W_OK):
        raise VolumeError(f"{path}: the folder {path.parent} cannot be written: choose another")
    return path


def write_volume(path: Path | str, array: np.ndarray, like: Volume) -> None:
    """Write `array` (D, H, W) on the grid of `like`, with its affine, codes and units.

    The file is written beside its place and renamed when it is complete.
    """
    path = check_output(path)
    header = like.header.copy()
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    write_beside(path, lambda file: nib.save(kind(array, like.affine, header), file))


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box that holds every true voxel of a (D, H, W) mask; empty if there is none."""
    box = []
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0, 0))
    return tuple(box)


# ---------------------------------------------------------------------------- resampling


@dataclass(frozen=True)
class Resampling:
    """The way from a grid to another with the same axes, centre and field of view, and back.

    The axes are common, so linear interpolation in 3-D is three passes in 1-D.
    """

    old_shape: tuple[int, int, int]
    new_shape: tuple[int, int, int]
    scale: np.ndarray  # (3,), new voxel side / old voxel side

    def forward(self, array: np.ndarray) -> np.ndarray:
        """Old grid to new, linear: (D, H, W) float32 to (D', H', W') float32."""
        return _along_each_axis(_linear, array, self._old_positions())

    def backward(self, array: np.ndarray) -> np.ndarray:
        """New grid to old, linear."""
        return _along_each_axis(_linear, array, self._new_positions())

    def forward_labels(self, array: np.ndarray) -> np.ndarray:
        """Old grid to new, nearest voxel: any dtype."""
        return _along_each_axis(_nearest, array, self._old_positions())

    def new_affine(self, old_affine: np.ndarray) -> np.ndarray:
        """(4, 4), voxel indices of the new grid to scanner mm, from that of the old grid."""
        to_old = np.diag([*self.scale, 1.0])
        to_old[:3, 3] = [positions[0] for positions in self._old_positions()]
        return old_affine @ to_old

    def _old_positions(self) -> list[np.ndarray]:
        """Where the new grid's voxels lie on the old one, by axis: both centres coincide."""
        return [
            (np.arange(new) - (new - 1) / 2) * scale + (old - 1) / 2
            for new, old, scale in zip(self.new_shape, self.old_shape, self.scale, strict=True)
        ]

    def _new_positions(self) -> list[np.ndarray]:
        return [
            (np.arange(old) - (old - 1) / 2) / scale + (new - 1) / 2
            for new, old, scale in zip(self.new_shape, self.old_shape, self.scale, strict=True)
        ]


def _along_each_axis(interpolate, array: np.ndarray, positions: list[np.ndarray]) -> np.ndarray:
    # The axis that shrinks most goes first, so that the later passes have less to do.
    order = np.argsort([len(p) / n for p, n in zip(positions, array.shape, strict=True)])
    for axis in order:
        # Past the outermost voxel centres the image continues with its outermost value.
        inside = np.clip(positions[axis], 0, array.shape[axis] - 1)
        array = interpolate(array, int(axis), inside)
    return array


def _linear(array: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    below = np.floor(positions).astype(int)
    above = np.minimum(below + 1, array.shape[axis] - 1)
    column = [1, 1, 1]
    column[axis] = -1
    weight = (positions - below).astype(array.dtype).reshape(column)
    result = np.take(array, above, axis) * weight
    result += np.take(array, below, axis) * (1 - weight)
    return result


def _nearest(array: np.ndarray, axis: int, positions: np.ndarray) -> np.ndarray:
    return np.take(array, np.rint(positions).astype(int), axis)


def resampling_to(
    spacing_mm: float, shape: tuple[int, int, int], old_spacing_mm: np.ndarray
) -> Resampling:
    """The resampling of a grid of `shape` voxels to isotropic voxels of `spacing_mm`.

    The new grid has the same centre and the fewest voxels that cover the old field of view.
    """
    extent_mm = np.asarray(shape) * old_spacing_mm
    new_shape = np.ceil(extent_mm / spacing_mm - 1e-6)  # 1e-6: 56.0000001 voxels are 56
    return Resampling(
        tuple(int(n) for n in shape),
        tuple(int(n) for n in new_shape),
        spacing_mm / np.asarray(old_spacing_mm, dtype=np.float64),
    )
