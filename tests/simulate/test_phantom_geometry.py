"""Grids, affines and motion of phantoms."""

import nibabel as nib
import numpy as np
import pytest

from msseg_jax.simulate.phantom import plan_patient
from msseg_jax.simulate.phantom.acquisition import image_grid, small_motion, work_grid
from msseg_jax.simulate.phantom.fields import HeadGrid, stretch


def test_a_resized_grid_covers_the_same_field_of_view():
    grid = HeadGrid((10, 12, 14), np.diag([1.0, 2.0, 3.0, 1.0]))
    half = grid.resized((5, 6, 7))
    np.testing.assert_allclose(half.spacing_mm, [2, 4, 6])
    # The outer corner of the first voxel does not move.
    for g in (grid, half):
        np.testing.assert_allclose(g.to_head_mm @ [-0.5, -0.5, -0.5, 1], [-0.5, -1, -1.5, 1])


def test_stretch_preserves_a_constant_and_a_slope():
    np.testing.assert_allclose(stretch(np.full((4, 5, 6), 2.5, np.float32), (9, 7, 6)), 2.5)
    slope = np.arange(8, dtype=np.float32)[:, None, None] * np.ones((1, 3, 3), np.float32)
    fine = stretch(slope, (16, 3, 3))[:, 1, 1]
    np.testing.assert_allclose(fine[3:13], (np.arange(3, 13) - 0.5) / 2, atol=1e-5)


@pytest.mark.parametrize("index", range(0, 20, 3))
def test_the_affine_has_the_planned_voxel_size_and_orientation(index):
    plan = plan_patient(1, index)
    grid, affine = image_grid(plan, plan.rng("anatomy"))
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), plan.spacing_mm)
    assert "".join(nib.aff2axcodes(affine)) == plan.orientation
    # The affine contains only a rotation and the voxel size, but no shear.
    columns = affine[:3, :3] / plan.spacing_mm
    np.testing.assert_allclose(columns.T @ columns, np.eye(3), atol=1e-12)
    assert 215 < np.max(np.multiply(grid.shape, plan.spacing_mm)) < 250
    assert (work_grid(grid).spacing_mm > 0.99 * np.array(plan.spacing_mm)).all()


def test_motion_between_visits_is_below_one_millimetre_and_one_degree():
    centre = np.array([0.0, -17.0, 0.0, 1.0])
    for seed in range(200):
        motion = small_motion(np.random.default_rng(seed))
        shift = np.linalg.norm((motion @ centre - centre)[:3])
        angle = np.rad2deg(np.arccos((np.trace(motion[:3, :3]) - 1) / 2))
        assert 0.09 < shift < 0.71
        assert 0.09 < angle < 0.71
