"""The volumes of the viewer: their place, their size, and what the browser makes of them."""

import base64
import zlib

import numpy as np
import pytest
from nibabel.affines import apply_affine

from msseg_jax.report import packed as module
from msseg_jax.report.drawn import DrawnPair
from msseg_jax.report.packed import pack
from tests.support.grids import CODES, grid_of


def unpacked(text, shape, dtype=np.uint8):
    """Return what the script of the page unpacks."""
    array = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)
    if dtype == np.uint8:  # the script sums up the differences, modulo 256
        array = np.cumsum(array, dtype=np.uint8)
    return array.reshape(shape)


def pair_on(codes, shape=(30, 40, 20), size_mm=(1.0, 1.5, 3.0)):
    """Return a pair with one bright voxel at the second visit, and its place in mm."""
    affine, shape = grid_of(codes, size_mm, shape)
    rng = np.random.default_rng(0)
    first = rng.uniform(0, 50, shape)
    second = first.copy()
    place = tuple(n // 3 for n in shape)
    second[place] = 400
    labels = np.zeros(shape, int)
    labels[place] = 7
    brain = np.ones(shape, bool)
    return (first, second), brain, labels, affine, apply_affine(affine, place)


@pytest.mark.parametrize("codes", CODES)
def test_a_voxel_keeps_its_place_and_its_number(codes):
    visits, brain, labels, affine, place_mm = pair_on(codes)
    packed = pack(DrawnPair.of(visits, brain, affine), labels)
    second = unpacked(packed.visits[1], packed.shape)
    numbers = unpacked(packed.labels, packed.shape, np.dtype("<u2"))
    voxel = tuple(packed.voxel_of(place_mm))
    assert second[voxel] == 255 == second.max()
    assert np.argwhere(numbers).tolist() == [list(voxel)]
    assert numbers[voxel] == 7
    np.testing.assert_allclose(apply_affine(packed.affine, voxel), place_mm, atol=1e-4)
    # To the head, to the back, and to the patient's left.
    axes = packed.affine[:3, :3] / packed.spacing_mm
    np.testing.assert_allclose(axes, [[0, 0, -1], [0, -1, 0], [1, 0, 0]], atol=1e-6)
    assert packed.spacing_mm == pytest.approx((3.0, 1.5, 1.0))


def test_grey_values_are_those_of_the_visit():
    visits, brain, labels, affine, _ = pair_on("RAS")
    packed = pack(DrawnPair.of(visits, brain, affine), labels)
    first = unpacked(packed.visits[0], packed.shape)
    low, high = np.percentile(visits[0], (0.5, 99.8))
    expected = np.clip(255 * (visits[0] - low) / (high - low), 0, 255)
    assert np.abs(first - expected[::-1, ::-1].transpose(2, 1, 0)).max() <= 1


@pytest.mark.parametrize("limit", ["MOST_VOXELS", "MOST_CHARACTERS"])
def test_a_large_volume_gets_larger_voxels_and_keeps_its_place(monkeypatch, limit):
    visits, brain, labels, affine, place_mm = pair_on("LPS", (60, 60, 60), (1.0, 1.0, 1.0))
    visits[1][18:23, 18:23, 18:23] = 400
    labels[18:23, 18:23, 18:23] = 7
    monkeypatch.setattr(module, limit, 40_000)
    packed = pack(DrawnPair.of(visits, brain, affine), labels)
    if limit == "MOST_VOXELS":
        assert 25_000 < np.prod(packed.shape) <= 40_000
    else:
        assert 20_000 < sum(map(len, packed.visits)) <= 40_000
    extent_mm = np.array(packed.shape) * packed.spacing_mm
    assert np.abs(extent_mm - 60).max() < max(packed.spacing_mm)
    numbers = unpacked(packed.labels, packed.shape, np.dtype("<u2"))
    second = unpacked(packed.visits[1], packed.shape)
    centre = apply_affine(packed.affine, np.argwhere(numbers).mean(axis=0))
    np.testing.assert_allclose(centre, place_mm, atol=0.6)
    assert second[tuple(packed.voxel_of(place_mm))] == 255


def test_no_lesion_is_lost_on_larger_voxels(monkeypatch):
    visits, brain, labels, affine, _ = pair_on("RAS", (60, 60, 60), (1.0, 1.0, 1.0))
    labels[:] = 0
    labels[5:55:5, 5:55:5, 5:55:10] = np.arange(1, 501).reshape(10, 10, 5)
    monkeypatch.setattr(module, "MOST_VOXELS", 60_000)
    packed = pack(DrawnPair.of(visits, brain, affine), labels)
    numbers = unpacked(packed.labels, packed.shape, np.dtype("<u2"))
    assert set(np.unique(numbers)) == set(range(501))
