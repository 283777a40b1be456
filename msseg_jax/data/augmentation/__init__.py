"""Patches made to differ as patients and scanners do: each drawn, then done.

`draw` (all randomness, a function of seed and patch), `spatial` (where voxels are taken from, the
same for both visits and the targets, but for a small misregistration), `appearance` (what is done
to the intensities of each visit), `smooth` (smooth functions, which both use), `patch` (all of it).
"""

from msseg_jax.data.augmentation.draw import Augmentation, draw_augmentation
from msseg_jax.data.augmentation.patch import cut_augmented

__all__ = ["Augmentation", "cut_augmented", "draw_augmentation"]
