"""The brightest differences that were not marked."""

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from msseg_jax.inference.unmarked import APART_MM, MOST, RIM_MM, brightest_unmarked
from msseg_jax.report.drawn import DrawnPair
from msseg_jax.volumes.pair import Pair
from msseg_jax.volumes.volume import Volume

SHAPE = (60, 70, 40)
AFFINE = np.array([[-1.0, 0, 0, 30], [0, 1, 0, -20], [0, 0, 2, 5], [0, 0, 0, 1]])


def prediction_with(spots, marked=()):
    """Return a prediction of a pair with bright spots at the second visit.

    Args:
      spots: {voxel: rise}.
      marked: voxels of new lesions that were marked.
    """
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    middle = (np.array(SHAPE) - 1) / 2
    brain = np.linalg.norm((places - middle) * (1, 1, 2) / 29, axis=-1) < 1
    rng = np.random.default_rng(0)
    first = np.where(brain, 100 + rng.normal(0, 5, SHAPE), 0)
    second = first.copy()
    mask = np.zeros(SHAPE, np.uint8)
    for voxel, rise in spots.items():
        near = np.linalg.norm((places - voxel) * (1, 1, 2), axis=-1) < 3
        second += np.where(brain & near, rise, 0)
        mask |= near & (voxel in marked)
    visits = [
        Volume(Path("visit.nii.gz"), image.astype(np.float32), AFFINE, nib.Nifti1Header())
        for image in (first, second)
    ]
    pair = Pair(*visits, brain, np.zeros((0, *SHAPE), np.uint8), np.zeros(0, bool))
    probability = np.zeros(SHAPE, np.float32)
    probability[30, 35, 21] = 0.4  # 2 mm from the first spot
    found = SimpleNamespace(mask=mask, probability=probability)
    drawn = DrawnPair.of((visits[0].array, visits[1].array), brain, AFFINE)
    return SimpleNamespace(pair=pair, found=found, drawn=drawn)


def brightest(prediction):
    return brightest_unmarked(prediction, prediction.drawn)


def voxels_of(found):
    indices = [nib.affines.apply_affine(np.linalg.inv(AFFINE), one.point_mm) for one in found]
    return np.rint(indices).astype(int)


def test_the_brightest_places_come_first_with_their_probability():
    spots = {(30, 35, 20): 20.0, (18, 40, 22): 14.0, (42, 30, 18): 9.0}
    found = brightest(prediction_with(spots))
    assert len(found) == MOST
    assert np.abs(voxels_of(found) - list(spots)).max() <= 2
    percents = [one.brighter_percent for one in found]
    assert percents == sorted(percents, reverse=True)
    assert [one.probability for one in found] == pytest.approx([0.4, 0, 0])


def test_marked_lesions_and_the_rim_of_the_brain_are_left_out():
    spots = {(30, 35, 20): 30.0, (30, 64, 20): 30.0, (18, 40, 22): 10.0}  # the second is at the rim
    prediction = prediction_with(spots, marked=[(30, 35, 20)])
    found = brightest(prediction)
    assert np.abs(voxels_of(found[:1]) - [(18, 40, 22)]).max() <= 2
    for voxel in voxels_of(found):
        assert prediction.pair.brain[tuple(voxel)]
        assert np.linalg.norm((voxel - (30, 35, 20)) * np.array([1, 1, 2])) > APART_MM
        assert np.linalg.norm(voxel[:2] - np.array([29.5, 34.5])) < 29 - RIM_MM + 1


def test_places_are_apart_from_each_other():
    # The second spot is 6 mm from the first, and belongs to the same place.
    spots = {(30, 35, 20): 30.0, (30, 41, 20): 25.0, (30, 51, 20): 10.0}
    voxels = voxels_of(brightest(prediction_with(spots)))
    gaps = [
        np.linalg.norm((a - b) * np.array([1, 1, 2]))
        for k, a in enumerate(voxels)
        for b in voxels[:k]
    ]
    assert min(gaps) > APART_MM - 1
    assert np.abs(voxels - (30, 51, 20)).max(axis=1).min() <= 2


def test_a_brain_that_is_too_small_for_a_place_gives_none():
    prediction = prediction_with({})
    brain = np.zeros(SHAPE, bool)
    brain[28:32, 33:37, 19:21] = True  # no voxel is far enough from the edge
    pair = prediction.pair
    drawn = DrawnPair.of((pair.time01.array, pair.time02.array), brain, AFFINE)
    assert brightest_unmarked(prediction, drawn) == []
