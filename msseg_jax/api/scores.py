"""Score a mask against a reference mask."""

import numpy as np

from msseg_jax.api.images import Image, as_volume
from msseg_jax.evaluation.raters import score_pair, spacing_of
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.grids import grid_difference
from msseg_jax.volumes.masks import is_inside, mask_problem


def score_mask(
    prediction: Image, reference: Image, *, affine: np.ndarray | None = None
) -> dict[str, float | str]:
    """Return the scores of a predicted mask, by the rules of the MSSEG-2 challenge.

    Args:
      prediction: a mask of 0 and 1, as a path, a nibabel image, or an array (D, H, W).
      reference: a mask on the same grid, in the same way.
      affine: (4, 4), voxel indices to scanner mm. Needed if a mask is an array. If you only know
        the voxel spacing, give `np.diag([*spacing_mm, 1])`.

    Returns:
      The columns of `scores.csv`, such as Dice, F1_score, SensL, PPVL and Hausdorff95_mm. Scores
      that are not defined are NaN or absent.

    Raises:
      InputError: a mask cannot be used, or the grids differ.
    """
    volumes = [
        as_volume(image, name, affine)
        for name, image in (("prediction", prediction), ("reference", reference))
    ]
    problems = [mask_problem(volume.path, volume.array) for volume in volumes]
    problems.append(grid_difference(volumes[1], volumes[0]))
    if found := [problem for problem in problems if problem]:
        raise InputError("\n".join(found))
    predicted, expected = (is_inside(volume.array) for volume in volumes)
    return score_pair(expected, predicted, spacing_of(volumes[1]))
