import itertools

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from msseg_jax.volumes.canonical import CANONICAL, Reordering

LETTERS = ("LR", "PA", "SI")
CODES = [
    tuple(letters[k] for letters, k in zip(order, flips, strict=True))
    for order in itertools.permutations(LETTERS)
    for flips in itertools.product((0, 1), repeat=3)
]


def store(array, affine, codes):
    """Return the array and the affine of the same image, stored in another order of axes."""
    orientation = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    stored = nib.apply_orientation(array, orientation)
    return stored, affine @ inv_ornt_aff(orientation, array.shape)


@pytest.fixture
def image(rng):
    """Return an array in the canonical order, and an oblique affine."""
    array = rng.random((5, 6, 7))
    turn = nib.eulerangles.euler2mat(0.2, -0.1, 0.15)
    affine = nib.affines.from_matvec(turn @ np.diag([-0.7, -0.8, 3.0]), [10, -20, 30])
    assert nib.aff2axcodes(affine) == CANONICAL
    return array, affine


def test_there_are_48_orders():
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("codes", CODES, ids="".join)
def test_every_order_becomes_the_canonical_one_and_comes_back(image, codes):
    array, affine = image
    stored, stored_affine = store(array, affine, codes)
    reordering = Reordering(stored_affine, stored.shape)
    np.testing.assert_array_equal(reordering.forward(stored), array)
    np.testing.assert_allclose(reordering.canonical_affine, affine, atol=1e-12)
    np.testing.assert_allclose(reordering.canonical_spacing_mm, [0.7, 0.8, 3.0])
    np.testing.assert_array_equal(reordering.backward(array), stored)


def test_an_array_in_the_canonical_order_stays_as_it_is(image):
    array, affine = image
    reordering = Reordering(affine, array.shape)
    assert reordering.forward(array) is array or np.shares_memory(reordering.forward(array), array)
    np.testing.assert_array_equal(reordering.canonical_affine, affine)
