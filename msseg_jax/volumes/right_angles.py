"""Refuse a grid whose axes are not at right angles.

Spacings, volumes of voxels and the axes of a scanner all assume right angles.
"""

import numpy as np

from msseg_jax.volumes.volume import Volume

TOLERANCE_DEGREES = 0.2  # rounding in headers is much smaller


def right_angle_problem(volume: Volume) -> str | None:
    """Return a message if the axes of a volume are sheared, and None if they are not."""
    axes = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    cosines = np.abs(axes.T @ axes - np.eye(3)).max()
    lean = float(np.degrees(np.arcsin(min(1.0, cosines))))
    if lean <= TOLERANCE_DEGREES:
        return None
    return (
        f"{volume.path}: its axes are {lean:.1f} degrees away from right angles (a tilted gantry, "
        "or an affine registration written into the header); expected right angles. Resample it "
        "to such a grid."
    )
