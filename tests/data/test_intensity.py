import numpy as np
import pytest

from msseg_jax.data.intensity import (
    fit_landmarks,
    measure_percentiles,
    normalise,
    standardise,
)
from msseg_jax.system.errors import InputError

PERCENTILES = (0, 50, 100)


def test_percentiles_are_measured_only_inside_the_brain():
    image = np.array([[[1.0, 2.0, 3.0, 1000.0]]])
    brain = np.array([[[True, True, True, False]]])
    assert measure_percentiles(image, brain, PERCENTILES).tolist() == [1, 2, 3]


def test_landmarks_are_means_on_the_scale_from_0_to_100():
    landmarks = fit_landmarks([np.array([0, 2, 10.0]), np.array([100, 160, 200.0])])
    np.testing.assert_allclose(landmarks, [0, (20 + 60) / 2, 100])


def test_standardise_maps_percentiles_to_landmarks_and_continues_the_outer_segments():
    measured, landmarks = np.array([10.0, 20, 40]), np.array([0.0, 50, 100])
    image = np.array([0, 10, 15, 20, 30, 40, 60])
    expected = [-50, 0, 25, 50, 75, 100, 150]
    np.testing.assert_allclose(standardise(image, measured, landmarks), expected, rtol=1e-6)


def test_equal_percentiles_of_a_coarse_image_give_finite_values():
    measured, landmarks = np.array([1.0, 1, 2]), np.array([0.0, 50, 100])
    assert np.isfinite(standardise(np.array([0.0, 1, 2, 3]), measured, landmarks)).all()


def test_normalised_brain_has_zero_mean_unit_variance_and_zeros_around_it():
    generator = np.random.default_rng(0)
    image = generator.gamma(9, 30, (13, 14, 15)).astype(np.float32)
    brain = generator.random((13, 14, 15)) < 0.5
    measured = measure_percentiles(image, brain, PERCENTILES)
    result = normalise(image, brain, measured, np.array([0, 40, 100.0]))
    assert result.dtype == np.float32
    assert result[brain].mean() == pytest.approx(0, abs=1e-5)
    assert result[brain].std() == pytest.approx(1, abs=1e-5)
    assert (result[~brain] == 0).all()


def test_normalisation_removes_the_gain_and_the_offset_of_the_scanner():
    generator = np.random.default_rng(0)
    image = generator.gamma(9, 30, (9, 9, 9)).astype(np.float32)
    brain = np.ones(image.shape, bool)
    landmarks = np.array([0, 40, 100.0])
    one, other = (
        normalise(i, brain, measure_percentiles(i, brain, PERCENTILES), landmarks)
        for i in (image, 3.5 * image + 70)
    )
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_refuses_a_constant_brain():
    with pytest.raises(InputError, match=r"constant inside the brain.* are both 5"):
        measure_percentiles(np.full((3, 3, 3), 5.0), np.ones((3, 3, 3), bool), PERCENTILES)
