"""Grey values of both visits."""

import numpy as np

from msseg_jax.report.grey import brightness_of_both


def test_a_large_new_lesion_does_not_change_how_bright_the_tissue_is_drawn():
    rng = np.random.default_rng(0)
    brain = np.ones((30, 30, 30), bool)
    first = rng.normal(100, 5, brain.shape)
    second = 3 * (first + rng.normal(0, 1, brain.shape)) - 40  # another scanner
    second[5:13, 5:13, 5:13] += 400
    drawn = brightness_of_both((first, second), brain)
    assert abs(np.median(drawn[1] - drawn[0])) < 0.01
    assert (drawn[1][5:13, 5:13, 5:13] > 1).all()
    low, high = np.percentile(first, (0.5, 99.8))
    np.testing.assert_allclose(drawn[0], (first - low) / (high - low))


def test_pictures_of_scans_need_no_double_precision():
    brain = np.ones((6, 6, 6), bool)
    visit = np.arange(216, dtype=np.float32).reshape(brain.shape)
    assert {one.dtype for one in brightness_of_both((visit, 2 * visit), brain)} == {visit.dtype}


def test_constant_visits_are_drawn():
    brain = np.ones((4, 4, 4), bool)
    for visits in (
        (np.ones(brain.shape), np.ones(brain.shape)),
        (np.eye(4)[..., None] * brain,) * 2,
    ):
        assert all(np.isfinite(one).all() for one in brightness_of_both(visits, brain))
