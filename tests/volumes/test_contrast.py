import math

import numpy as np
import pytest

from msseg_jax.volumes.contrast import surface_to_depth

SIDE, RADIUS_MM = 60, 50.0  # voxels of 2 mm


def make_brain(cortex: float, white: float):
    """Return a ball with a cortex of 8 mm, and its mask."""
    axes = np.meshgrid(*[(np.arange(SIDE) - SIDE / 2 + 0.5) * 2.0] * 3, indexing="ij")
    depth_mm = RADIUS_MM - np.sqrt(sum(axis**2 for axis in axes))
    return np.where(depth_mm < 8, cortex, white), depth_mm > 0


@pytest.mark.parametrize(("cortex", "white"), [(120.0, 100.0), (80.0, 100.0)])
def test_the_ratio_is_that_of_cortex_and_white_matter(cortex, white):
    image, brain = make_brain(cortex, white)
    assert surface_to_depth(image, brain, 2.0) == pytest.approx(cortex / white)
    finer = (np.kron(array, np.ones((2, 2, 2))) for array in (image, brain))
    assert surface_to_depth(next(finer), next(finer) > 0, 1.0) == pytest.approx(cortex / white)


def test_fluid_in_half_of_the_layer_does_not_hide_the_cortex(rng):
    image, brain = make_brain(120.0, 100.0)
    image = np.where((image == 120.0) & (rng.random(image.shape) < 0.5), 20.0, image)
    assert surface_to_depth(image, brain, 2.0) == pytest.approx(1.2)


def test_a_brain_that_is_too_small_has_no_ratio():
    image, brain = make_brain(120.0, 100.0)
    assert math.isnan(surface_to_depth(image[25:35], brain[25:35], 2.0))
    assert math.isnan(surface_to_depth(image, np.zeros_like(brain), 2.0))
