import math

import numpy as np
import pytest
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

from msseg_jax.data.quality import LEAST_SURFACE
from msseg_jax.volumes.contrast import (
    DEEP_MM,
    SURFACE_MM,
    SURFACE_PERCENTILE,
    surface_to_depth,
)

EXTENT_MM, RADIUS_MM = 120.0, 50.0


def depths_mm(spacing_mm: float = 2.0) -> np.ndarray:
    """Return the depth of each voxel in a ball, negative outside."""
    side = round(EXTENT_MM / spacing_mm)
    axes = np.meshgrid(*[(np.arange(side) - side / 2 + 0.5) * spacing_mm] * 3, indexing="ij")
    return RADIUS_MM - np.sqrt(sum(axis**2 for axis in axes))


def make_brain(cortex: float, white: float):
    """Return a ball with a cortex of 8 mm, and its mask."""
    depth_mm = depths_mm()
    return np.where(depth_mm < 8, cortex, white), depth_mm > 0


@pytest.mark.parametrize(("cortex", "white"), [(120.0, 100.0), (80.0, 100.0)])
def test_the_ratio_is_that_of_cortex_and_white_matter(cortex, white):
    image, brain = make_brain(cortex, white)
    assert surface_to_depth(image, brain, 2.0) == pytest.approx(cortex / white)
    finer = (np.kron(array, np.ones((2, 2, 2))) for array in (image, brain))
    assert surface_to_depth(next(finer), next(finer) > 0, 1.0) == pytest.approx(cortex / white)


@pytest.mark.parametrize("spacing_mm", [0.6, 0.8, 1.0, 1.2, 1.6, 2.0, 2.5])
def test_the_ratio_does_not_depend_on_the_size_of_the_voxels(spacing_mm):
    """Make a brain that becomes darker with depth, so that other layers give another ratio."""

    def darker(depth_mm):
        return 120 - 2 * depth_mm

    true_mm = depths_mm(1.0)
    surface, deep = (
        darker(true_mm[(true_mm > low) & (true_mm <= high)]) for low, high in (SURFACE_MM, DEEP_MM)
    )
    expected = np.percentile(surface, SURFACE_PERCENTILE) / np.median(deep)  # 1.28
    depth_mm = depths_mm(spacing_mm)
    found = surface_to_depth(darker(depth_mm), depth_mm > 0, spacing_mm)
    assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("spacing_mm", [1, 2])
def test_a_t1_does_not_look_like_a_flair(spacing_mm):
    template = load_mni152_template(resolution=spacing_mm).get_fdata()
    brain = load_mni152_brain_mask(resolution=spacing_mm).get_fdata() > 0
    assert surface_to_depth(template, brain, spacing_mm) == pytest.approx(0.95, abs=0.01)
    assert LEAST_SURFACE > 0.96


def test_fluid_in_half_of_the_layer_does_not_hide_the_cortex(rng):
    image, brain = make_brain(120.0, 100.0)
    image = np.where((image == 120.0) & (rng.random(image.shape) < 0.5), 20.0, image)
    assert surface_to_depth(image, brain, 2.0) == pytest.approx(1.2)


def test_a_brain_that_is_too_small_has_no_ratio():
    image, brain = make_brain(120.0, 100.0)
    assert math.isnan(surface_to_depth(image[25:35], brain[25:35], 2.0))
    assert math.isnan(surface_to_depth(image, np.zeros_like(brain), 2.0))
