"""The network sees the same voxels, in whatever order the files store them."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data.preprocess import resample
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.pair import Pair
from msseg_jax.volumes.volume import Volume

PATIENT = Patient("anna", "time01", "time02", None)
SETTINGS = PreprocessingSettings(spacing_mm=1.5, percentiles=(1.0, 50.0, 99.0), patch_size=8)


def make_pair(arrays, brain, target, affine, codes) -> Pair:
    """Return a pair with arrays that are stored in the order `codes`."""
    orientation = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    stored_affine = affine @ inv_ornt_aff(orientation, brain.shape)

    def store(array):
        return np.ascontiguousarray(nib.apply_orientation(array, orientation))

    visits = [Volume(None, store(array), stored_affine, nib.Nifti1Header()) for array in arrays]
    return Pair(*visits, store(brain), np.stack([store(target)]), np.ones(1, bool))


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR", "SLA", "IPL"])
def test_a_pair_becomes_the_same_arrays_and_a_map_goes_back_to_its_own_order(rng, codes):
    shape = (20, 24, 16)
    arrays = rng.random((2, *shape)).astype(np.float32)
    brain = np.zeros(shape, bool)
    brain[2:18, 3:22, 1:15] = True
    target = (arrays[1] > 0.9).astype(np.uint8)
    affine = nib.affines.from_matvec(np.diag([-1.0, -1.2, 2.0]), [5, 6, 7])
    canonical = resample(PATIENT, make_pair(arrays, brain, target, affine, "LPS"), SETTINGS)
    other_pair = make_pair(arrays, brain, target, affine, codes)
    other = resample(PATIENT, other_pair, SETTINGS)
    np.testing.assert_allclose(other.images, canonical.images, atol=1e-5)
    np.testing.assert_array_equal(other.brain, canonical.brain)
    np.testing.assert_array_equal(other.targets, canonical.targets)
    np.testing.assert_allclose(other.affine, canonical.affine, atol=1e-9)

    probability = rng.random(canonical.brain.shape).astype(np.float32)
    there = other.to_file_grid(probability)
    assert there.shape == other_pair.brain.shape
    back = make_pair([canonical.to_file_grid(probability)] * 2, brain, target, affine, codes)
    np.testing.assert_allclose(there, back.time01.array, atol=1e-5)
