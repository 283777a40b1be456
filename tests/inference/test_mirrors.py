"""Mirror images: which there are, and the average over them."""

import numpy as np
import pytest

from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.forward import segment_volume
from msseg_jax.inference.mirrors import AXES, mirror_axes, mirrored
from msseg_jax.inference.tiles import Tiling
from msseg_jax.volumes import layout
from msseg_jax.volumes.canonical import CANONICAL
from msseg_jax.volumes.pair import read_pair


def test_more_flips_use_more_axes_left_right_first():
    assert mirror_axes(1) == [()]
    assert mirror_axes(2) == [(), (0,)]
    assert mirror_axes(4) == [(), (0,), (1,), (0, 1)]
    assert [CANONICAL[axis] for axis in AXES] == ["L", "P", "S"]  # left, posterior, superior
    assert mirror_axes(8)[4:] == [(0, 1), (0, 2), (1, 2), (0, 1, 2)]


def ramps(time01, time02):
    """Stand in for a network with two maps that are not symmetric.

    The first map is the second visit times the numbers of the voxel along the three axes, as digits
    of one number. The second map is the same with the first visit.
    """
    sides = time01.shape[1:4]
    weights = sum(
        10.0**axis * np.arange(side).reshape([-1 if k == axis else 1 for k in range(3)])
        for axis, side in enumerate(sides)
    )
    return np.stack([time02[..., 0] * weights, time01[..., 0] * weights], axis=1)


@pytest.mark.parametrize("flips", [1, 2, 4, 8])
def test_the_maps_are_averaged_over_the_mirror_images_of_both_visits(flips):
    sides = (4, 6, 8)
    visits = np.random.default_rng(0).normal(size=(2, 3, *sides, 1)).astype(np.float32)
    maps = mirrored(ramps, flips)(*visits)
    # Mirrored along an axis of n voxels, voxel k has the weight n - 1 - k. The mean is (n - 1) / 2.
    weights = np.zeros(sides)
    for axis, side in enumerate(sides):
        along = np.arange(side) if 2**axis >= flips else np.full(side, (side - 1) / 2)
        weights += 10.0**axis * along.reshape([-1 if k == axis else 1 for k in range(3)])
    np.testing.assert_allclose(maps[:, 0], visits[1, ..., 0] * weights, rtol=1e-5)
    np.testing.assert_allclose(maps[:, 1], visits[0, ..., 0] * weights, rtol=1e-5)


@pytest.mark.parametrize("flips", [2, 4, 8])
def test_a_network_that_sees_no_direction_gives_the_same_maps(flips):
    images = np.random.default_rng(0).normal(size=(2, 13, 14, 20)).astype(np.float32)
    brain = np.ones(images.shape[1:], bool)

    def symmetric(time01, time02):
        return (np.tanh(time02) - time01)[..., 0][:, None]

    maps = [
        segment_volume(mirrored(symmetric, count), images, brain, Tiling((8, 8, 8), 3, 4))
        for count in (1, flips)
    ]
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-6)
    assert np.ptp(maps[0]) > 1


def test_mirror_images_change_the_result_of_a_network_and_compile_nothing(runs, patients_root):
    ensemble = Ensemble(runs[:1])
    (member,) = ensemble.members
    patient = layout.find_patients(patients_root, 0)[0]
    pair = read_pair(patient)
    plain = ensemble.segment(patient, pair, ensemble.options())
    compiled = member._forward._cache_size()
    found = ensemble.segment(patient, pair, ensemble.options(flips=2))
    assert member._forward._cache_size() == compiled
    assert np.abs(found.probability - plain.probability).max() > 1e-4
    assert (found.probability[~pair.brain] == 0).all()
    assert np.isfinite(found.probability).all()
