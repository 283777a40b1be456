"""List the series in a folder of DICOM files, and read one of them as an image.

Files are sorted into series by their headers, not by their names. Only series of single-frame files
can be read, as most MR scanners write them. Multi-frame ("enhanced") files are refused.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msseg_jax.system.errors import InputError

LEAST_SLICES = 10  # in a scan of a head; scouts have fewer slices, in three orientations
GAP_TOLERANCE = 0.05  # share of the slice distance; allows for rounded numbers in a header
TILT_TOLERANCE_DEGREES = 0.2  # between the direction of the stack and the normal of the slices
MOST_LISTED = 5  # gaps or files in a message
MOST_ODD_SHARE = 0.2  # of the slices; more of another orientation are a scout, not a mistake
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"  # SOP class of a file with one slice
ENHANCED = MR_IMAGE + "."  # prefix of the other SOP classes, which store positions in nested tags


@dataclass(frozen=True)
class DicomSlice:
    """The header of one file."""

    path: Path
    position_mm: np.ndarray  # (3,) centre of the first voxel, LPS
    axes: np.ndarray  # (2, 3) directions of a row and a column
    shape: tuple[str, str]  # rows and columns
    frames: int
    samples: int  # per voxel: 1 for grey values, 3 for colours
    is_enhanced: bool  # if True, the header has another layout, and position and axes are 0


@dataclass(frozen=True)
class Series:
    """The files of one series."""

    uid: str
    number: str
    description: str
    modality: str
    slices: list[DicomSlice]

    @property
    def frames(self) -> int:
        """The number of frames in all files."""
        return sum(slice_.frames for slice_ in self.slices)

    def __str__(self) -> str:
        frames = f" of {self.frames} frames" if self.frames != len(self.slices) else ""
        return (
            f"series {self.number or '?'}: {self.description or 'no description'!r}, "
            f"{self.modality or 'no modality'}, {len(self.slices)} files{frames}, UID {self.uid}"
        )

    def is_meant_by(self, pick: str) -> bool:
        """Check if `pick` is the UID, the number, or a part of the description of this series."""
        return pick in (self.uid, self.number) or pick.lower() in self.description.lower()


def list_series(folder: Path) -> list[Series]:
    """List the series in a folder and its subfolders, sorted by number.

    Files that are not DICOM images are skipped.

    Raises:
      InputError: There is no series, or a file is an MR image that cannot be read.
    """
    slices: dict[str, list[DicomSlice]] = defaultdict(list)
    facts: dict[str, tuple[str, str, str]] = {}
    damaged = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        tags = _read_tags(path)
        if not tags and _claims_mr_image(path):
            damaged.append(path)
        uid = tags.get("0020|000e", "")
        is_enhanced = tags.get("0008|0016", "").startswith(ENHANCED)
        try:
            position, orientation = _numbers(tags["0020|0032"], 3), _numbers(tags["0020|0037"], 6)
        except (KeyError, ValueError):  # not DICOM, or without a position and an orientation
            if not is_enhanced:
                continue
            position, orientation = np.zeros(3), np.zeros(6)
        number, description, modality = (
            tags.get(tag, "") for tag in ("0020|0011", "0008|103e", "0008|0060")
        )
        facts.setdefault(uid, (number, description, modality))
        slices[uid].append(
            DicomSlice(
                path, position, orientation.reshape(2, 3),
                (tags.get("0028|0010", ""), tags.get("0028|0011", "")),
                int(tags.get("0028|0008") or 1), int(tags.get("0028|0002") or 1), is_enhanced,
            )
        )  # fmt: skip
    if damaged:
        names = ", ".join(str(path.relative_to(folder)) for path in damaged[:MOST_LISTED])
        more = f" and {len(damaged) - MOST_LISTED} more" if len(damaged) > MOST_LISTED else ""
        raise InputError(
            f"{folder}: these MR images are cut off or damaged: {names}{more}; expected complete "
            "files. Copy them again, or move them elsewhere if they belong to another series."
        )
    if not slices:
        raise InputError(
            f"{folder}: contains no DICOM image; expected the files of a FLAIR series. Instead of "
            "a folder, you can give a NIfTI file."
        )
    found = [Series(uid, *facts[uid], files) for uid, files in slices.items()]
    return sorted(found, key=lambda s: (not s.number.isdigit(), s.number.zfill(9), s.uid))


def choose_series(folder: Path, found: list[Series], pick: str | None) -> Series:
    """Return the series that `pick` names. Without `pick`, return the only one.

    Raises:
      InputError: Several series match, or none. The message lists all series.
    """
    listed = "\n".join(f"  {series}" for series in found)
    if pick is not None:
        meant = [s for s in found if pick in (s.uid, s.number)]
        meant = meant or [s for s in found if s.is_meant_by(pick)]
        if len(meant) != 1:
            raise InputError(
                f"{folder}: --series={pick} matches {len(meant)} of the series; expected the "
                f"number, the UID or a part of the description of exactly one:\n{listed}"
            )
        return meant[0]
    stacks = [series for series in found if series.frames >= LEAST_SLICES]
    if len(stacks) == 1:
        return stacks[0]
    if not stacks and len(found) == 1:
        return found[0]  # too few slices; `read_series` raises an error with more details
    raise InputError(
        f"{folder}: contains {len(found)} series; expected one. Choose one with --series=NUMBER "
        "(or its UID, or a part of its description), or give a folder with only the FLAIR:\n"
        f"{listed}"
    )


def read_series(folder: Path, pick: str | None = None) -> tuple[sitk.Image, str]:
    """Read the image of a series as float32.

    Args:
      pick: number, UID or part of the description. It is needed if there are several series.

    Returns:
      The image, and a description of the series in words.

    Raises:
      InputError: There is no series, or there are several. Slices are missing or occur twice, the
        gantry is tilted, or files are damaged.
    """
    series = choose_series(folder, list_series(folder), pick)
    name = f"{folder}, {series}"
    ordered = _check_stack(name, series.slices)
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(slice_.path) for slice_ in ordered])
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(
            f"{name}: cannot be read ({_last_line(error)}). It is damaged, or compressed in a way "
            "that is not supported. Export it again."
        ) from error
    return image, str(series)


def _check_stack(name: str, slices: list[DicomSlice]) -> list[DicomSlice]:
    """Sort slices by their position. Raise InputError unless they form one regular stack."""
    if any(slice_.frames > 1 or slice_.is_enhanced for slice_ in slices):
        raise InputError(
            f"{name}: has several frames per file (enhanced DICOM), which is not supported; "
            "expected one slice per file. Convert it to NIfTI, for example with dcm2niix."
        )
    if any(slice_.samples > 1 for slice_ in slices):
        raise InputError(
            f"{name}: its voxels contain colours; expected grey values. Choose another series."
        )
    if len(slices) < LEAST_SLICES:
        raise InputError(
            f"{name}: has too few slices; expected at least {LEAST_SLICES} slices of a head. Give "
            "the folder of a FLAIR."
        )
    odd = _odd_slices(slices)
    if len(odd) > MOST_ODD_SHARE * len(slices):
        raise InputError(
            f"{name}: its slices differ in orientation or size, like those of a scout; expected "
            "one stack. Choose another series."
        )
    if odd:
        names = ", ".join(slice_.path.name for slice_ in odd[:MOST_LISTED])
        more = f" and {len(odd) - MOST_LISTED} more" if len(odd) > MOST_LISTED else ""
        raise InputError(
            f"{name}: these files differ in orientation or size from the other "
            f"{len(slices) - len(odd)} slices, like a reference image: {names}{more}; expected one "
            "stack. Move these files elsewhere."
        )
    normal = np.cross(*slices[0].axes)
    ordered = sorted(slices, key=lambda slice_: float(slice_.position_mm @ normal))
    positions = np.stack([slice_.position_mm for slice_ in ordered])
    heights = positions @ normal
    steps = np.diff(heights)
    step = float(np.median(steps))
    twice = np.flatnonzero(steps < 0.01)
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
    along = positions[-1] - positions[0]
    tilt = float(np.degrees(np.arccos(min(1.0, along @ normal / np.linalg.norm(along)))))
    if tilt > TILT_TOLERANCE_DEGREES:
        raise InputError(
            f"{name}: its stack of slices leans by {tilt:.1f} degrees (a tilted gantry); expected "
            "slices exactly above each other. Resample it, for example with dcm2niix."
        )
    return ordered


def _odd_slices(slices: list[DicomSlice]) -> list[DicomSlice]:
    """Return the slices that differ in orientation or size from the largest group of slices."""
    groups: dict[tuple, list[DicomSlice]] = {}
    for slice_ in slices:
        # If rounding gives the slices of one stack two keys, the comparison below joins them.
        key = (slice_.shape, *np.round(slice_.axes, 2).ravel().tolist())
        groups.setdefault(key, []).append(slice_)
    first = max(groups.values(), key=len)[0]
    return [
        slice_
        for slice_ in slices
        if slice_.shape != first.shape or np.abs(slice_.axes - first.axes).max() > 1e-3
    ]


def _read_tags(path: Path) -> dict[str, str]:
    """Read the header of a DICOM file. Return an empty dictionary for any other file."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return {}
    return {key: _text(reader.GetMetaData(key)) for key in reader.GetMetaDataKeys() if key in _TAGS}


_TAGS = {
    "0008|0016", "0008|0060", "0008|103e", "0020|000e", "0020|0011", "0020|0032", "0020|0037",
    "0028|0002", "0028|0008", "0028|0010", "0028|0011",
}  # fmt: skip


def _text(value: str) -> str:
    """Decode the text of a tag. ITK returns the bytes of the file and ignores their encoding."""
    content = value.encode("utf-8", "surrogateescape")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # the usual encoding of European scanners
    return text.strip(" \0")


def _claims_mr_image(path: Path) -> bool:
    """Check if a file begins like a slice of an MR scan. Reports, DICOMDIR etc. do not."""
    with path.open("rb") as file:
        start = file.read(1024)
    return start[128:132] == b"DICM" and MR_IMAGE.encode() + b"\0" in start


def _numbers(text: str, count: int) -> np.ndarray:
    values = np.array([float(part) for part in text.split("\\")])
    if values.shape != (count,) or not np.isfinite(values).all():
        raise ValueError(text)
    return values


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
