"""Damage the header of a NIfTI file, and read a file without the reader of the program.

`read_plain` follows the fields of the header and nothing else. It does no checks, so it is right
only for files that can be read.
"""

import gzip
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.nifti1 import header_dtype as NIFTI1
from nibabel.nifti2 import header_dtype as NIFTI2

_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
_FIELDS = (
    "dim", "dim", "pixdim", "pixdim", "datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter",
    "sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "magic", "sizeof_hdr", "xyzt_units", "intent_code", "cal_max", "slice_code",
)  # fmt: skip


@dataclass(frozen=True)
class Plain:
    """The content of a NIfTI file."""

    array: np.ndarray  # (D, H, W) float32
    affine: np.ndarray | None  # by the rule of `volumes.geometry`; None: the header has no form
    sides_mm: np.ndarray  # (3,), of pixdim


def content_of(path: Path) -> bytes:
    """Return the bytes of a file, unpacked if they are compressed."""
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def header_of(content: bytes) -> np.ndarray:
    """Return the header at the start of a NIfTI file, with its order of bytes."""
    form = NIFTI2 if content[4:7] in (b"n+2", b"ni2") else NIFTI1
    headers = [np.frombuffer(content, form.newbyteorder(order), 1)[0] for order in "<>"]
    return max(
        headers,
        key=lambda one: (one["sizeof_hdr"] == one.dtype.itemsize, 1 <= one["dim"][0] <= 7),
    )


def read_plain(path: Path) -> Plain:
    """Read a NIfTI file: .nii, .nii.gz, or .hdr with .img."""
    content = content_of(path)
    header = header_of(content)
    with np.errstate(all="ignore"):
        voxels = content
        if path.suffix == ".hdr":
            voxels = content_of(path.with_suffix(".img"))
        order = header.dtype["dim"].base.str[0].replace("=", "<").replace("|", "<")
        dtype = np.dtype(_DTYPES[int(header["datatype"])]).newbyteorder(order)
        shape = [int(n) for n in header["dim"][1:4]]
        array = np.frombuffer(voxels, dtype, int(np.prod(shape)), int(header["vox_offset"]))
        array = array.reshape(shape, order="F").astype(np.float64)
        slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
        if slope != 0 and np.isfinite(slope):
            array = array * slope + intercept
        return Plain(array.astype(np.float32), _affine(header), header["pixdim"][1:4].astype(float))


def _affine(header: np.ndarray) -> np.ndarray | None:
    sform = np.vstack([header["srow_x"], header["srow_y"], header["srow_z"], [0, 0, 0, 1]])
    sform = sform.astype(float)
    sides_mm = header["pixdim"][1:4].astype(float)
    if header["qform_code"] <= 0:
        return sform if header["sform_code"] > 0 else None
    axes = sform[:3, :3] / sides_mm
    rigid = np.abs(axes.T @ axes - np.eye(3)).max() <= 1e-3
    if header["sform_code"] == 1 and rigid:
        return sform
    b, c, d = (float(header[f"quatern_{name}"]) for name in "bcd")
    length = np.sqrt(b * b + c * c + d * d)
    if length > 1:
        b, c, d = b / length, c / length, d / length
    a = np.sqrt(max(1 - b * b - c * c - d * d, 0))
    # The formula of nifti1.h, method 2.
    turned = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip
    affine = np.eye(4)
    mirror = -1 if header["pixdim"][0] == -1 else 1
    affine[:3, :3] = turned * sides_mm * [1, 1, mirror]
    affine[:3, 3] = [header[f"qoffset_{name}"] for name in "xyz"]
    return affine


def same_array(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two arrays are equal up to rounding in single precision."""
    if one.shape != other.shape:
        return False
    with np.errstate(all="ignore"):
        finite = np.isfinite(one) & np.isfinite(other)
        close = np.abs(one - other) <= 1e-4 * np.abs(other) + 1e-30
    # Near the limits of float32, one of them may be infinite.
    extreme = (np.abs(one) > 3e38) | (np.abs(other) > 3e38)
    return bool(np.all(np.where(finite, close, extreme | (np.isnan(one) & np.isnan(other)))))


def mutate_header(rng: random.Random, content: bytes) -> bytes:
    """Return an unpacked NIfTI file with one or two fields of its header changed."""
    header = header_of(content).copy()
    for _ in range(rng.choice((1, 1, 1, 2))):
        if rng.random() < 0.15:
            _scale_geometry(rng, header)
        else:
            _change_field(rng, header)
    return header.tobytes() + content[header.dtype.itemsize :]


def _scale_geometry(rng: random.Random, header: np.ndarray) -> None:
    """Scale or move the geometry in all fields, so that they still agree."""
    factor = rng.choice((0.0, -1.0, 1.0, 1.001, 1.5, 10.0, 0.01, 1e-6, 1e6, 1e20, 1e-30))
    axis = rng.randrange(3)
    with np.errstate(all="ignore"):
        header["pixdim"][1 + axis] *= np.float32(abs(factor))
        for name in ("srow_x", "srow_y", "srow_z"):
            header[name][axis] *= np.float32(factor)
            header[name][3] += np.float32(rng.choice((0.0, 0.0, 5.0, 1e8)))


def _change_field(rng: random.Random, header: np.ndarray) -> None:
    name = rng.choice(_FIELDS)
    if name not in header.dtype.names:
        return
    base, shape = header.dtype[name].base, header.dtype[name].shape
    if base.kind == "S":
        header[name] = rng.choice((b"n+1", b"ni1", b"n+2", b"ni2", b"", b"\xff\xff\xff", b"n+1\0"))
        return
    value: float
    if name == "datatype":
        value = rng.choice((*_DTYPES, 0, 1, 32, 128, 1536, 1792, 2048, 2304, -1, 255))
    elif base.kind == "f":
        value = rng.choice((
            0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 100.0, 348.0, 352.0, 353.0, 540.0, 544.0, 1e9, 1e-9,
            1e30, -1e30, 1e-40, 3.4e38, float("nan"), float("inf"), -float("inf"), 2.0**31, 2.0**63,
        ))  # fmt: skip
    else:
        limits = np.iinfo(base)
        value = rng.choice((
            0, 1, 2, 3, 4, 5, 7, 8, -1, -2, 10, 100, 348, 352, 353, 540, 544, 1000, 20_000,
            limits.max, limits.min, limits.max // 2, 2**20, 2**31 - 1,
        ))  # fmt: skip
        value = max(min(value, limits.max), limits.min)
    if shape:
        header[name][rng.randrange(shape[0])] = value
    else:
        header[name] = value
