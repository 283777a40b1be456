"""Read the size of an image from compressed data: JPEG, JPEG-LS and JPEG 2000.

Decoders reserve memory for the size in the data, whatever the header of the DICOM file says.
"""

from dataclasses import dataclass

START_OF_IMAGE = 0xFFD8  # of JPEG and JPEG-LS
# Markers of the segment with the size: all kinds of JPEG frames (but not 0xFFC4, 0xFFC8 and 0xFFCC,
# which have another meaning), and JPEG-LS.
FRAMES = {*range(0xFFC0, 0xFFD0), 0xFFF7} - {0xFFC4, 0xFFC8, 0xFFCC}
JPEG_2000 = b"\xff\x4f\xff\x51"  # start of the data, and of the segment with the size


@dataclass(frozen=True)
class EncodedSize:
    """The size of an image in compressed data."""

    rows: int
    columns: int
    samples: int

    def __str__(self) -> str:
        return f"{self.rows} x {self.columns} x {self.samples}"


def encoded_size(data: bytes) -> EncodedSize | None:
    """Return the size of the image in one compressed frame; None if it is not given."""
    if data.startswith(JPEG_2000):
        # ISO/IEC 15444-1, A.5.1. Columns and rows are counted from the origin of the grid, so these
        # numbers bound the size.
        return EncodedSize(_number(data, 12, 4), _number(data, 8, 4), _number(data, 40, 2))
    if _number(data, 0, 2) != START_OF_IMAGE:
        return None
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:  # ISO/IEC 10918-1, B.2
        marker = _number(data, place, 2)
        if marker in FRAMES:
            return EncodedSize(
                _number(data, place + 5, 2), _number(data, place + 7, 2), data[place + 9]
            )
        if marker == 0xFFFF:  # a byte that only fills up
            place += 1
        else:
            place += 2 + max(_number(data, place + 2, 2), 2)
    return None


def _number(data: bytes, place: int, size: int) -> int:
    return int.from_bytes(data[place : place + size], "big")
