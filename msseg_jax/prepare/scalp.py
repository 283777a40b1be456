"""Remove the scalp from the scan of a head by its depth below the skin.

Fat is often so bright that it can be told from the brain (`images.without_fat`). In thick slices,
each voxel of the scalp mixes fat with air or bone, and is about as bright as the brain. The average
brain then fits to the scalp as well as to the brain. The depth below the skin still tells them
apart. Where scalp and skull are thinner than SCALP_MM, some cortex is removed as well. This does
not matter for a registration with an average brain.
"""

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

AIR = 0.3  # brightness of the darkest skin, as a multiple of the usual brightness (`by_usual`)
CHANNEL_MM = 8.0  # air that connects to the outside only through narrower channels is in the head
SCALP_MM = 12.0  # depth of the layer that is removed: the scalp and most of the skull


def below_scalp(head: sitk.Image) -> np.ndarray:
    """Return which voxels are more than SCALP_MM below the skin: (z, y, x) bool.

    Where the head leaves the field of view, nothing is removed.

    Args:
      head: a whole head, in which the usual brightness is 1 (`atlas.seen`).
    """
    spacing_mm = head.GetSpacing()[::-1]  # in the order of the array's axes
    tissue = sitk.GetArrayViewFromImage(head) > AIR
    # Bone, fluid and sinuses are as dark as air. Air outside the head is wide, and it continues to
    # the border of the image.
    wide = ndimage.distance_transform_edt(~tissue, spacing_mm) > CHANNEL_MM
    parts, _ = ndimage.label(wide)
    ends = [np.take(parts, end, axis) for axis in range(3) for end in (0, -1)]
    outside = np.isin(parts, np.setdiff1d(np.concatenate([end.ravel() for end in ends]), [0]))
    if not outside.any():
        return np.ones(tissue.shape, bool)
    inside: np.ndarray = (
        ndimage.distance_transform_edt(~outside, spacing_mm) > CHANNEL_MM + SCALP_MM
    )
    return inside


def without_scalp(image: sitk.Image, head: sitk.Image) -> sitk.Image:
    """Return an image, with 0 where the head on its grid has scalp or air: float32."""
    kept = np.where(below_scalp(head), sitk.GetArrayViewFromImage(image), np.float32(0))
    result = sitk.GetImageFromArray(kept)
    result.CopyInformation(image)
    return result
