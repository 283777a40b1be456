"""Check that the file of an image can hold its voxels, before they are read.

A damaged header may announce any number of voxels, and a small compressed file may unpack to more
than the memory holds.
"""

import gzip
import math
from pathlib import Path

import nibabel as nib

from msseg_jax.system.errors import InputError

GZIP = b"\x1f\x8b"  # first bytes of a compressed file
MOST_PACKED = 1032  # bytes in a byte: the limit of deflate (https://zlib.net/zlib_tech.html)
PLAUSIBLY_PACKED = 200  # scans reach about 3, masks a few hundred
# Of memory, if the file is packed more than plausible. Unpacking needs up to 0.3 GB in addition.
MOST_BYTES = 7 * 10**8
AFTER_VOXELS = 2**28  # bytes that may follow the voxels in a compressed file


def is_gzip(path: Path) -> bool:
    """Return whether a file is compressed with gzip."""
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP


def check_stored_size(path: Path, image: nib.Nifti1Pair, voxels: Path, offset: int) -> None:
    """Raise InputError if a file cannot hold the voxels of an image, or unpacks to too much.

    Args:
      path: names the image in messages.
      image: the image, whose voxels are not read.
      voxels: the file with the voxels.
      offset: number of bytes before the voxels.
    """
    count, dtype = math.prod(image.shape), image.get_data_dtype()
    if count <= 0 or min(image.shape) < 0:
        raise InputError(
            f"{path}: has {image.shape} voxels. Expected at least one along each axis. Export the "
            "image again."
        )
    size = voxels.stat().st_size
    needed = offset + count * dtype.itemsize
    packed = {".bz2": math.inf, ".zst": math.inf}.get(voxels.suffix.lower(), 1.0)
    if is_gzip(voxels):
        packed = MOST_PACKED
    if needed > size * packed:
        raise InputError(
            f"{path}: is truncated or damaged. Its header announces {image.shape} voxels of type "
            f"{dtype}, which take {needed} bytes. The file has {size} bytes"
            f"{', compressed' if packed > 1 else ''}. Copy it again."
        )
    # The bytes of the file, the float32 voxels, and float64 voxels during scaling. Many programs
    # write a slope of 1, which nibabel does not apply.
    is_scaled = image.header.get_slope_inter() not in ((None, None), (1, 0))
    memory = needed + count * (4 + 8 * is_scaled)
    if packed > 1 and memory > max(MOST_BYTES, PLAUSIBLY_PACKED * size):
        raise InputError(
            f"{path}: has {size} bytes, and its {image.shape} voxels would need {memory} bytes of "
            f"memory. Expected at most {MOST_BYTES} bytes for a file of this size. It is damaged, "
            "or nearly empty. Crop the image, or store it without compression."
        )


def check_to_end(path: Path, stream: gzip.GzipFile) -> None:
    """Read a compressed file to its end, which compares its checksum.

    Raises:
      InputError: very much follows the voxels.
      gzip.BadGzipFile, EOFError: the file is damaged or truncated.
    """
    for _ in range(AFTER_VOXELS // 2**20):
        if not stream.read(2**20):
            return
    raise InputError(
        f"{path}: more than {AFTER_VOXELS} bytes follow the voxels that its header announces. "
        "Expected no other data. Export the image again."
    )
