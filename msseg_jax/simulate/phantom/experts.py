"""Simulate four experts who outline new lesions, and the consensus rule of MSSEG-2."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from msseg_jax.simulate.phantom.fields import HeadGrid, Waves
from msseg_jax.simulate.phantom.lesions import LesionLoad
from msseg_jax.volumes.grids import bounding_box

EXPERTS = 4
TOUCHING = np.ones((3, 3, 3), bool)  # 26-connectivity: voxels that share a corner are connected


def consensus(expert_masks: np.ndarray, *, needed: int = 3) -> np.ndarray:
    """Merge the maps of the experts by the rule of the challenge.

    A lesion is a connected component (26 neighbours) of the union of the maps. It is kept if at
    least `needed` experts drew a part of it. A voxel of a kept lesion is kept if at least half of
    the experts who drew that lesion drew the voxel.

    Args:
        expert_masks: (experts, D, H, W), bool or 0/1.
        needed: minimum number of experts who drew a lesion that is kept.

    Returns:
        The consensus map, (D, H, W), bool.

    Raises:
        ValueError: `expert_masks` does not have four axes.
    """
    masks = np.asarray(expert_masks).astype(bool)
    if masks.ndim != 4:
        raise ValueError(f"expert_masks has shape {masks.shape}. Expected (experts, D, H, W).")
    result = np.zeros(masks.shape[1:], bool)
    union = np.any(masks, axis=0)
    if not union.any():
        return result
    # Lesions fill a small part of the volume, so it is faster to label only their bounding box.
    box = bounding_box(union)
    masks = masks[(slice(None), *box)]
    lesions, count = ndimage.label(union[box], TOUCHING)
    drew = np.zeros((count + 1, len(masks)), bool)  # (lesion, expert); lesion 0 is background
    for expert, mask in enumerate(masks):
        drew[np.unique(lesions[mask]), expert] = True
    drawers = drew.sum(1)
    votes = masks.sum(0)
    kept = drawers >= needed
    kept[0] = False
    result[box] = kept[lesions] & (2 * votes >= drawers[lesions])
    return result


def count_components(mask: np.ndarray) -> int:
    """Return the number of connected components (26 neighbours) of a mask."""
    return ndimage.label(mask, TOUCHING)[1]


def draw_experts(load: LesionLoad, grid: HeadGrid, rng: np.random.Generator) -> np.ndarray:
    """Draw the outlines of new lesions by each expert.

    Each expert tends to draw slightly too large or too small, and the outline wavers along the
    border. At most one expert misses a new lesion, and only one or two experts draw a doubtful one.
    Therefore the consensus contains exactly the new lesions.

    Returns:
        The map of each expert, (EXPERTS, *grid.shape), bool.
    """
    masks = np.zeros((EXPERTS, *grid.shape), bool)
    habit_mm = rng.normal(0.0, 0.22, EXPERTS)
    habit_mm -= habit_mm.mean()  # on average, the experts are not biased
    for owner, (lesion, drawn) in enumerate(load.recent, start=1):
        points = grid.coordinates(drawn.box)
        if lesion.kind == "new":
            drawers = list(range(EXPERTS))
            if rng.random() < (0.35 if lesion.radius_mm < 3 else 0.15):
                drawers.pop(rng.integers(EXPERTS))
        else:
            drawers = rng.choice(EXPERTS, rng.integers(1, 3), replace=False).tolist()
        # An outline may not leave the region claimed by its lesion, so that no two lesions merge.
        own = load.claims[drawn.box] == owner
        limit_mm = 0.16 * lesion.radius_mm
        for expert in drawers:
            waver = Waves.draw(rng, max(3.0, lesion.radius_mm))
            shift = np.clip(habit_mm[expert], -limit_mm, limit_mm)
            shift = shift + min(0.22, 0.6 * limit_mm) * waver(*points)
            pieces, count = ndimage.label((drawn.level - shift < drawn.cut) & own)
            if count == 0:
                outline = drawn.mask
            else:
                outline = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
            masks[expert][drawn.box] |= outline
    return masks
