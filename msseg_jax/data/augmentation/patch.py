"""Cut a patch from a patient and apply the changes drawn for it."""

import numpy as np

from msseg_jax.data.augmentation.appearance import change_appearance
from msseg_jax.data.augmentation.draw import Augmentation
from msseg_jax.data.augmentation.spatial import cut_deformed
from msseg_jax.data.cache import CachedPatient
from msseg_jax.data.packing import pack_images
from msseg_jax.data.patches import Corner


def cut_augmented(
    patient: CachedPatient, corner: Corner, size: int, augmentation: Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """Cut an augmented patch. If no change was drawn, it equals the plain crop.

    Returns:
      images (2, S, S, S) int16 and targets (ceil(T / 8), S, S, S) uint8, packed as in the cache.
    """
    images, targets, brain = cut_deformed(patient, corner, size, augmentation.spatial)
    visits = [
        change_appearance(image, brain, appearance)
        for image, appearance in zip(images, augmentation.appearances, strict=True)
    ]
    return pack_images(np.stack(visits)), targets
