"""Tiles: their corners, their average, and their size."""

import numpy as np
import pytest

from msseg_jax.data.patches import crop
from msseg_jax.inference.tiles import TileAverage, fit_tile, tile_corners


def cube(side):
    return (side,) * 3


def test_tiles_have_equal_steps_and_the_last_ends_at_the_edge():
    corners = tile_corners((56, 98, 131), cube(56), 14)
    assert sorted({c[0] for c in corners}) == [0]
    assert sorted({c[1] for c in corners}) == [0, 42]
    assert sorted({c[2] for c in corners}) == [0, 42, 75]
    assert len(corners) == 6


@pytest.mark.parametrize(
    ("shape", "tile", "overlap"),
    [
        ((13, 14, 15), cube(8), 2),
        ((8, 9, 31), cube(8), 7),
        ((10, 8, 8), cube(8), 0),
        ((13, 14, 15), (16, 8, 12), 3),  # longer than the volume along the first axis
    ],
)
def test_constant_tiles_give_a_constant_volume(shape, tile, overlap):
    average = TileAverage(2, shape)
    constants = np.array([0.3, 0.7], np.float32).reshape(2, 1, 1, 1)
    for corner in tile_corners(shape, tile, overlap):
        average.add(np.broadcast_to(constants, (2, *tile)), corner)
    np.testing.assert_allclose(average.mean(), np.broadcast_to(constants, (2, *shape)), rtol=1e-6)


@pytest.mark.parametrize("tile", [cube(8), (16, 8, 12), cube(24)])
def test_tiles_cut_from_a_volume_give_the_same_volume(tile):
    volume = np.random.default_rng(0).normal(size=(13, 14, 15)).astype(np.float32)
    average = TileAverage(1, volume.shape)
    for corner in tile_corners(volume.shape, tile, 3):
        average.add(crop(volume, corner, tile, fill=0)[None], corner)
    np.testing.assert_allclose(average.mean(), volume[None], atol=1e-6)


def test_overlapping_tiles_are_averaged_and_the_rest_is_zero():
    average = TileAverage(1, (2, 2, 4))
    average.add(np.full((1, 2, 2, 2), 1, np.float32), (0, 0, 0))
    average.add(np.full((1, 2, 2, 2), 4, np.float32), (0, 0, 1))
    assert average.mean()[0, 0, 0].tolist() == [1, 2.5, 4, 0]


def test_an_overlap_as_large_as_a_tile_is_refused():
    with pytest.raises(ValueError, match="overlap is 8; expected 0 to 7"):
        tile_corners((9, 9, 9), (16, 8, 16), 8)


@pytest.mark.parametrize(
    ("shape", "largest", "expected"),
    [
        ((100, 100, 100), 112, (104, 104, 104)),  # one tile is enough
        ((112, 113, 210), 112, (112, 64, 112)),  # 64 + 64 - 14 >= 113, 112 + 112 - 14 >= 210
        ((5, 8, 9), 56, (8, 8, 16)),
    ],
)
def test_a_fitted_tile_is_as_small_as_possible(shape, largest, expected):
    assert fit_tile(shape, largest, overlap=14 if largest > 56 else 0, multiple=8) == expected


def test_fitted_tiles_are_no_more_than_the_largest_tiles_would_be():
    generator = np.random.default_rng(0)
    for _ in range(200):
        shape = tuple(int(n) for n in generator.integers(20, 260, 3))
        largest, overlap = int(8 * generator.integers(3, 16)), int(generator.integers(0, 20))
        tile = fit_tile(shape, largest, overlap, 8)
        assert max(tile) <= largest
        assert not any(side % 8 for side in tile)
        fitted = tile_corners(shape, tile, overlap)
        assert len(fitted) == len(tile_corners(shape, cube(largest), overlap))
