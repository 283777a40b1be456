"""Bound the size of a volume in mm.

An error in a header may give voxels of metres. Resampled to a millimetre, such a volume would need
more memory than any computer has.
"""

from msseg_jax.volumes.volume import Volume

MOST_EXTENT_MM = 600.0  # field of view along an axis; that of a large coil


def extent_problem(volume: Volume) -> str | None:
    """Return a message if a volume is too large for a head, and None if it is not."""
    extent_mm = volume.spacing_mm * volume.array.shape
    if extent_mm.max() <= MOST_EXTENT_MM:
        return None
    extent, voxels = (" x ".join(f"{mm:.4g}" for mm in of) for of in (extent_mm, volume.spacing_mm))
    return (
        f"{volume.path}: its field of view is {extent} mm, with voxels of {voxels} mm. Expected at "
        f"most {MOST_EXTENT_MM:.0f} mm along each axis for a scan of a head. Correct the voxel "
        "size in its header."
    )
