"""Make patches differ as patients and scanners do: first draw the changes, then apply them.

`draw`: all randomness, a function of seed and patch. `spatial`: where voxels are taken from, which
is the same for both visits and the targets, except for a small misregistration. `appearance`: what
is done to the intensities of each visit. `smooth`: smooth functions, which both use. `patch`: all
of it together.
"""

from msseg_jax.data.augmentation.draw import Augmentation, draw_augmentation
from msseg_jax.data.augmentation.patch import cut_augmented

__all__ = ["Augmentation", "cut_augmented", "draw_augmentation"]
