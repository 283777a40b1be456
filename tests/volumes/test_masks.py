import nibabel as nib
import numpy as np
import pytest

from msseg_jax.volumes.masks import brain_mask_problem, is_inside, mask_problem
from msseg_jax.volumes.volume import Volume

ROUNDED = np.array([0, 1e-7, -1e-7, 0.999999, 1.0000001, 1.0], np.float32)


def test_rounding_is_no_problem_and_does_not_count_as_a_lesion():
    assert mask_problem("mask", ROUNDED) is None
    np.testing.assert_array_equal(is_inside(ROUNDED), [False, False, False, True, True, True])


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.5, "probability map"), (0.9, "probability map"), (2.0, "label map"), (-0.7, "binary")],
)
def test_other_values_are_reported_with_what_they_look_like(value, words):
    problem = mask_problem("mask", np.append(ROUNDED, np.float32(value)))
    assert "1 voxels have values other than 0 and 1" in problem
    assert words in problem


def test_a_label_map_of_the_brain_may_be_rounded_too():
    labels = Volume("brain", np.array([0, 1.00001, 41.9999, 255.0]), np.eye(4), nib.Nifti1Header())
    assert brain_mask_problem(labels) is None
    image = Volume("brain", np.array([0, 1.1, 41.9999, 255.0]), np.eye(4), nib.Nifti1Header())
    assert "not integers" in brain_mask_problem(image)
