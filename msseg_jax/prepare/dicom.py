"""A folder of DICOM files: which series are in it, and one of them as an image.

Files are told apart by what is in them, not by their names. Read are series of single-frame files,
as MR scanners write them; multi-frame ("enhanced") files are refused.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msseg_jax.system.errors import InputError

LEAST_SLICES = 10  # of a series that may be a head; scouts have fewer, and three orientations
GAP_TOLERANCE = 0.05  # of the slice distance: what rounding in a header may add
TILT_TOLERANCE_DEGREES = 0.2  # between the stack of slices and their normal
MOST_LISTED = 5  # gaps and the like, in a message
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"  # SOP class of a file with one slice
ENHANCED = MR_IMAGE + "."  # begins those of the others, whose places in space lie deeper


@dataclass(frozen=True)
class DicomSlice:
    """What the header of one file says."""

    path: Path
    position_mm: np.ndarray  # (3,) of the first voxel's centre, LPS
    axes: np.ndarray  # (2, 3) directions of a row and a column
    shape: tuple[str, str]  # rows and columns
    frames: int
    samples: int  # per voxel: 1 grey, 3 colour
    is_enhanced: bool  # another layout of the file; position and axes are 0 then


@dataclass(frozen=True)
class Series:
    """The files that belong together."""

    uid: str
    number: str
    description: str
    modality: str
    slices: list[DicomSlice]

    @property
    def frames(self) -> int:
        """Of all files together."""
        return sum(slice_.frames for slice_ in self.slices)

    def __str__(self) -> str:
        frames = f" of {self.frames} frames" if self.frames != len(self.slices) else ""
        return (
            f"series {self.number or '?'}: {self.description or 'no description'!r}, "
            f"{self.modality or 'no modality'}, {len(self.slices)} files{frames}, UID {self.uid}"
        )

    def is_meant_by(self, pick: str) -> bool:
        """Whether a user's word is its UID, its number, or a part of its description."""
        return pick in (self.uid, self.number) or pick.lower() in self.description.lower()


def list_series(folder: Path) -> list[Series]:
    """The series in a folder and below, by number. Files that are no DICOM image are passed over.

    Raises:
      InputError: there is none, or a file is an MR image that cannot be read.
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
        except (KeyError, ValueError):  # no DICOM, or none with a place in space
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
            f"{folder}: MR images that are cut off or damaged: {names}{more}; expected whole "
            "files: copy them again, or take them away if they are of another series"
        )
    if not slices:
        raise InputError(
            f"{folder}: no DICOM image in it; expected the files of a FLAIR series, or a NIfTI file"
        )
    found = [Series(uid, *facts[uid], files) for uid, files in slices.items()]
    return sorted(found, key=lambda s: (not s.number.isdigit(), s.number.zfill(9), s.uid))


def choose_series(folder: Path, found: list[Series], pick: str | None) -> Series:
    """The one that `pick` names, or the only one.

    Raises:
      InputError: several or none would do; all are listed.
    """
    listed = "\n".join(f"  {series}" for series in found)
    if pick is not None:
        meant = [s for s in found if pick in (s.uid, s.number)]
        meant = meant or [s for s in found if s.is_meant_by(pick)]
        if len(meant) != 1:
            raise InputError(
                f"{folder}: --series={pick} names {len(meant)} of the series in it; expected the "
                f"number, the UID or a part of the description of one:\n{listed}"
            )
        return meant[0]
    stacks = [series for series in found if series.frames >= LEAST_SLICES]
    if len(stacks) == 1:
        return stacks[0]
    if not stacks and len(found) == 1:
        return found[0]  # which `read_series` will say more about
    raise InputError(
        f"{folder}: {len(found)} series in it; expected one: give --series=NUMBER (or UID, or a "
        f"part of the description), or the folder of the FLAIR alone:\n{listed}"
    )


def read_series(folder: Path, pick: str | None = None) -> tuple[sitk.Image, str]:
    """The image of a series, float32, and what the series says of itself.

    Args:
      pick: number, UID or part of the description, where there are several.

    Raises:
      InputError: no series or several, slices missing or twice, a tilted gantry, files damaged.
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
            f"{name}: cannot be read ({_last_line(error)}): damaged, or compressed in a way that "
            "is not known here; export it again"
        ) from error
    return image, str(series)


def _check_stack(name: str, slices: list[DicomSlice]) -> list[DicomSlice]:
    """The slices in their order in space. Raises InputError unless they make one even stack."""
    if any(slice_.frames > 1 or slice_.is_enhanced for slice_ in slices):
        raise InputError(
            f"{name}: has several frames per file (enhanced DICOM), which is not read here; "
            "expected one slice per file, or NIfTI: convert it, with dcm2niix for example"
        )
    if any(slice_.samples > 1 for slice_ in slices):
        raise InputError(f"{name}: voxels are colours; expected grey values: choose another series")
    if len(slices) < LEAST_SLICES:
        raise InputError(
            f"{name}: expected at least {LEAST_SLICES} slices of a head: give the folder of a FLAIR"
        )
    axes = slices[0].axes
    if any(s.shape != slices[0].shape or np.abs(s.axes - axes).max() > 1e-3 for s in slices):
        raise InputError(
            f"{name}: its slices differ in orientation or size, as a scout's do; expected one "
            "stack: choose another series"
        )
    normal = np.cross(*axes)
    ordered = sorted(slices, key=lambda slice_: float(slice_.position_mm @ normal))
    positions = np.stack([slice_.position_mm for slice_ in ordered])
    heights = positions @ normal
    steps = np.diff(heights)
    step = float(np.median(steps))
    twice = np.flatnonzero(steps < 0.01)
    if twice.size:
        one, other = (ordered[twice[0] + k].path.name for k in (0, 1))
        raise InputError(
            f"{name}: {twice.size} slices lie where another lies ({one} and {other}, for example): "
            "several volumes in one series (echoes, repetitions) or files copied twice; expected "
            "each slice once"
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
            f"{name}: slices are {step:.2f} mm apart but not everywhere, so some are missing: "
            f"{where}{more}; expected all slices: copy or export the series again"
        )
    along = positions[-1] - positions[0]
    tilt = float(np.degrees(np.arccos(min(1.0, along @ normal / np.linalg.norm(along)))))
    if tilt > TILT_TOLERANCE_DEGREES:
        raise InputError(
            f"{name}: its stack of slices leans by {tilt:.1f} degrees (a tilted gantry); expected "
            "slices right above each other: resample it, with dcm2niix for example"
        )
    return ordered


def _read_tags(path: Path) -> dict[str, str]:
    """The header of a DICOM file; empty if it is none."""
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
    """A tag's text; ITK hands on the bytes of the file, whatever their character set."""
    content = value.encode("utf-8", "surrogateescape")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # what scanners in Europe write
    return text.strip(" \0")


def _claims_mr_image(path: Path) -> bool:
    """Whether a file begins as one slice of MR does. Reports, DICOMDIR and the like do not."""
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
