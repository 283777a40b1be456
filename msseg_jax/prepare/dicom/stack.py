"""Check that the slices of a series form one regular stack."""

import numpy as np

from msseg_jax.prepare.dicom.header import DicomSlice
from msseg_jax.system.errors import InputError

LEAST_SLICES = 10  # in a scan of a head; scouts have fewer slices, in three orientations
GAP_TOLERANCE = 0.05  # share of the slice distance; allows for rounded numbers in a header
SAME_PLACE_MM = 0.01  # slices that are nearer to each other are at the same position
TILT_TOLERANCE_DEGREES = 0.2  # between the direction of the stack and the normal of the slices
AXES_TOLERANCE = 1e-3  # between the directions of two slices
SPACING_TOLERANCE = 1e-3  # relative, between the spacings of two slices
ASIDE_TOLERANCE_MM = 1.0  # between a slice and the line through the first and the last one
MOST_LISTED = 5  # gaps or files in a message
MOST_ODD_SHARE = 0.2  # of the slices; more of another orientation are a scout, not a mistake


def check_stack(name: str, slices: list[DicomSlice]) -> list[DicomSlice]:
    """Sort slices by their position.

    Args:
      name: the series, for messages.

    Raises:
      InputError: The slices do not form one regular stack. The message names the files.
    """
    main, odd = _split_odd(slices)
    if main[0].frames > 1 or main[0].is_enhanced:
        raise InputError(
            f"{name}: has several frames per file (enhanced DICOM), which is not supported; "
            "expected one slice per file. Convert it to NIfTI, for example with dcm2niix."
        )
    if main[0].is_coloured:
        raise InputError(
            f"{name}: its voxels contain colours; expected grey values. Choose another series."
        )
    if len(slices) < LEAST_SLICES:
        raise InputError(
            f"{name}: has too few slices; expected at least {LEAST_SLICES} slices of a head. Give "
            "the folder of a FLAIR."
        )
    if len(odd) > MOST_ODD_SHARE * len(slices):
        raise InputError(
            f"{name}: its slices differ in orientation or size, like those of a scout; expected "
            "one stack. Choose another series."
        )
    if odd:
        names = ", ".join(slice_.path.name for slice_ in odd[:MOST_LISTED])
        more = f" and {len(odd) - MOST_LISTED} more" if len(odd) > MOST_LISTED else ""
        raise InputError(
            f"{name}: these files differ in orientation or size from the other {len(main)} "
            f"slices, like a reference image: {names}{more}; expected one stack. Move these files "
            "elsewhere."
        )
    ordered, heights = _by_height(slices)
    steps = np.diff(heights)
    step = float(np.median(steps))
    twice = np.flatnonzero(steps < SAME_PLACE_MM)
    if twice.size:
        one, other = (ordered[twice[0] + k].path.name for k in (0, 1))
        raise InputError(
            f"{name}: {twice.size} slices have the same position as another one ({one} and "
            f"{other}, for example); expected each slice once. Remove files that were copied "
            "twice. If the series contains several volumes (echoes, repetitions), export only one."
        )
    gaps = np.flatnonzero(np.abs(steps - step) > max(GAP_TOLERANCE * step, 0.02))
    if gaps.size:
        where = ", ".join(
            f"between {ordered[k].path.name} ({heights[k]:.1f} mm) and {ordered[k + 1].path.name} "
            f"({heights[k + 1]:.1f} mm)"
            for k in gaps[:MOST_LISTED]
        )
        more = f" and {gaps.size - MOST_LISTED} more" if gaps.size > MOST_LISTED else ""
        raise InputError(
            f"{name}: slices are {step:.2f} mm apart, except {where}{more}; expected the same "
            "distance everywhere, so slices are probably missing. Copy or export the series again."
        )
    positions = np.stack([slice_.position_mm for slice_ in ordered])
    along = positions[-1] - positions[0]
    normal = np.cross(*ordered[0].axes)
    tilt = float(np.degrees(np.arccos(min(1.0, along @ normal / np.linalg.norm(along)))))
    if tilt > TILT_TOLERANCE_DEGREES:
        raise InputError(
            f"{name}: its stack of slices leans by {tilt:.1f} degrees (a tilted gantry); expected "
            "slices exactly above each other. Resample it, for example with dcm2niix."
        )
    share = (heights - heights[0]) / (heights[-1] - heights[0])
    aside_mm = np.linalg.norm(positions - (positions[0] + np.outer(share, along)), axis=1)
    if (worst := int(aside_mm.argmax())) and aside_mm[worst] > ASIDE_TOLERANCE_MM:
        raise InputError(
            f"{name}: {ordered[worst].path.name} lies {aside_mm[worst]:.1f} mm beside the other "
            "slices; expected slices exactly above each other. Copy or export the series again."
        )
    return ordered


def has_repeats(slices: list[DicomSlice]) -> bool:
    """Check if slices of one orientation have the same position."""
    _, heights = _by_height(_split_odd(slices)[0])
    return bool((np.diff(heights) < SAME_PLACE_MM).any())


def _by_height(slices: list[DicomSlice]) -> tuple[list[DicomSlice], np.ndarray]:
    """Sort slices along their normal. Return them, and their positions on it in mm."""
    normal = np.cross(*slices[0].axes)
    heights = np.array([slice_.position_mm @ normal for slice_ in slices])
    order = np.argsort(heights, kind="stable")
    return [slices[k] for k in order], heights[order]


def _split_odd(slices: list[DicomSlice]) -> tuple[list[DicomSlice], list[DicomSlice]]:
    """Return the largest group of slices of one orientation, size and kind, and all others."""
    groups: dict[tuple, list[DicomSlice]] = {}
    for slice_ in slices:
        # If rounding gives the slices of one stack two keys, the comparison below joins them.
        key = (*_kind(slice_), *np.round(slice_.axes, 2).ravel().tolist())
        groups.setdefault(key, []).append(slice_)
    first = max(groups.values(), key=len)[0]
    main: list[DicomSlice] = []
    odd: list[DicomSlice] = []
    for slice_ in slices:
        is_same = (
            _kind(slice_) == _kind(first)
            and np.abs(slice_.axes - first.axes).max() <= AXES_TOLERANCE
            and np.allclose(slice_.spacing_mm, first.spacing_mm, rtol=SPACING_TOLERANCE)
        )
        (main if is_same else odd).append(slice_)
    return main, odd


def _kind(slice_: DicomSlice) -> tuple:
    return slice_.shape, slice_.frames, slice_.is_coloured, slice_.is_enhanced
