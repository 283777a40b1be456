"""Names of NIfTI files. This module imports nothing that is slow to import."""

from pathlib import Path

SUFFIXES = (".nii.gz", ".nii")  # of files to write
# Added to the name of a mask: the same lesions with numbers, and the table of the lesions (.csv).
LESIONS = "_lesions"
READABLE = (*SUFFIXES, ".hdr")  # of files to look for; the voxels of .hdr are in .img


def stem(path: Path) -> str:
    """Return the name of a NIfTI file without its suffix."""
    name = path.name
    for suffix in (*SUFFIXES, ".hdr", ".img"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
