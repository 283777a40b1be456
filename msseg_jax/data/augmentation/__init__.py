"""Augment patches with variation like that between patients and between scanners.

All changes of a patch are drawn first and applied afterwards. The modules are:

- `draw` draws all random numbers. They depend only on the seed and the number of the patch.
- `spatial` moves voxels. Both visits and the targets move together, except for a small
  misregistration of time01.
- `appearance` changes the intensities of each visit.
- `smooth` evaluates the smooth functions that `spatial` and `appearance` use.
- `patch` applies all changes to a patch.
"""

from msseg_jax.data.augmentation.draw import Augmentation, draw_augmentation
from msseg_jax.data.augmentation.patch import cut_augmented

__all__ = ["Augmentation", "cut_augmented", "draw_augmentation"]
