from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from msseg_jax.data.augmentation.smooth import control_points, spline_field
from msseg_jax.data.augmentation.spatial import (
    Misregistration,
    Spatial,
    cut_deformed,
    interpolate,
)
from msseg_jax.data.cache import CachedPatient
from msseg_jax.data.packing import pack_images, pack_targets, unpack_images, unpack_target
from msseg_jax.data.patches import crop

SHAPE = (30, 31, 34)
SIZE = 12
CORNER = (8, 9, 11)
NO_SHIFT = np.zeros(3)


def make_patient(images: np.ndarray, targets=None, brain=None) -> CachedPatient:
    targets = np.zeros((1, *SHAPE)) if targets is None else targets
    brain = np.ones(SHAPE, bool) if brain is None else brain
    return CachedPatient(
        "made", pack_images(images), pack_targets(targets), brain, np.argwhere(targets[0]),
        np.eye(4), np.ones(len(targets), bool), np.array([np.count_nonzero(targets[0])]),
    )  # fmt: skip


def noise_patient() -> CachedPatient:
    generator = np.random.default_rng(0)
    return make_patient(
        generator.normal(size=(2, *SHAPE)),
        generator.random((5, *SHAPE)) > 0.5,
    )


def rotation(degrees: float, axis: int) -> np.ndarray:
    return Rotation.from_rotvec(np.radians(degrees) * np.eye(3)[axis]).as_matrix()


def plain(patient: CachedPatient, corner=CORNER):
    shape = (SIZE,) * 3
    return (
        unpack_images(crop(patient.images, corner, shape, 0)),
        crop(patient.targets, corner, shape, 0),
        crop(patient.brain, corner, shape, False),
    )


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("corner", [CORNER, (-5, 25, 30)])
@pytest.mark.parametrize(
    "spatial",
    [
        Spatial(),
        Spatial(matrix=np.eye(3)),
        Spatial(displacement=np.zeros((3, 5, 5, 5))),
        Spatial(misregistration=Misregistration(np.eye(3), NO_SHIFT)),
    ],
)
def test_a_neutral_deformation_is_exactly_the_plain_crop(spatial, corner):
    patient = noise_patient()
    assert_same(cut_deformed(patient, corner, SIZE, spatial), plain(patient, corner))


@pytest.mark.parametrize("flips", [(True, False, False), (False, True, True), (True, True, True)])
def test_flips_equal_those_of_the_plain_crop(flips):
    patient = noise_patient()
    axes = [axis - 3 for axis in range(3) if flips[axis]]
    expected = [np.flip(array, axes) for array in plain(patient)]
    assert_same(cut_deformed(patient, CORNER, SIZE, Spatial(flips=flips)), expected)


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_a_quarter_turn_equals_that_of_the_plain_crop(axis, plane):
    patient = noise_patient()
    turned = cut_deformed(patient, CORNER, SIZE, Spatial(matrix=rotation(90, axis)))
    axes = [a - 3 for a in plane]
    # The voxel at p is looked up at matrix p, so the image rotates in the opposite direction.
    images, targets, brain = (np.rot90(array, -1, axes) for array in plain(patient))
    np.testing.assert_allclose(turned[0], images, atol=1e-4)
    assert_same(turned[1:], (targets, brain))


def test_a_misregistration_by_whole_voxels_shifts_only_time01():
    patient = noise_patient()
    moved = Spatial(misregistration=Misregistration(np.eye(3), np.array([1.0, 0.0, -2.0])))
    images, targets, brain = cut_deformed(patient, CORNER, SIZE, moved)
    here, there = plain(patient), plain(patient, (9, 9, 9))
    np.testing.assert_array_equal(images[0], there[0][0])
    assert_same((images[1], targets, brain), (here[0][1], *here[1:]))


def test_vanished_lesions_and_those_of_the_first_visit_move_with_time01():
    patient = noise_patient()
    patient = replace(patient, lesion_counts=np.append(patient.lesion_counts, [0, 0]))  # changes
    moved = Spatial(
        (False, True, False),
        misregistration=Misregistration(np.eye(3), np.array([1.0, 0.0, -2.0])),
    )
    _, targets, _ = cut_deformed(patient, CORNER, SIZE, moved)
    here, there = (plain(patient, corner)[1] for corner in (CORNER, (9, 9, 9)))
    for target, source in enumerate((here, here, there, there, here)):
        expected = np.flip(unpack_target(source, target), 1)
        np.testing.assert_array_equal(unpack_target(targets, target), expected)
    assert (unpack_target(here, 2) != unpack_target(there, 2)).any()


def test_every_voxel_is_taken_from_the_position_in_the_formula():
    """Use ramps: linear interpolation of a ramp is exact, so its values are the positions."""
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")).astype(float)
    generator = np.random.default_rng(1)
    spatial = Spatial(
        matrix=rotation(10, 1) @ np.diag([1.1, 0.95, 1.0]),
        displacement=generator.uniform(-0.4, 0.4, (3, 5, 5, 5)),
        misregistration=Misregistration(rotation(1, 2), np.array([0.3, -0.8, 0.1])),
    )
    centre = np.array(CORNER) + (SIZE - 1) / 2
    offsets = np.stack(np.meshgrid(*[np.arange(SIZE) - (SIZE - 1) / 2] * 3, indexing="ij"))
    bent = offsets + spline_field(SIZE / 2 * spatial.displacement, SIZE)  # cells of 6 voxels
    time02 = np.einsum("ab,bijk->aijk", spatial.matrix, bent)
    time01 = np.einsum("ab,bijk->aijk", spatial.misregistration.rotation, time02)
    time01 += spatial.misregistration.shift_voxels[:, None, None, None]
    for axis in range(3):
        ramp = places[axis] / 4  # intensities are limited to 32
        images, _, _ = cut_deformed(make_patient(np.stack([ramp] * 2)), CORNER, SIZE, spatial)
        expected = (np.stack([time01[axis], time02[axis]]) + centre[axis]) / 4
        np.testing.assert_allclose(images, expected, atol=1e-4)


def test_targets_follow_the_images():
    axes = np.meshgrid(*[np.arange(n) - n / 2 for n in SHAPE], indexing="ij")
    depth = 6 - np.sqrt(sum(axis**2 for axis in axes))  # voxels below the surface of a ball
    ball = depth > 0
    patient = make_patient(np.stack([depth, depth]), np.stack([ball, ~ball, ball]))
    displacement = np.random.default_rng(2).uniform(-0.4, 0.4, (3, 5, 5, 5))
    spatial = Spatial((True, False, False), rotation(20, 2), displacement)
    (time01, time02), targets, _ = cut_deformed(patient, CORNER, SIZE, spatial)
    np.testing.assert_array_equal(time01, time02)
    consensus = unpack_target(targets, 0).astype(bool)
    assert 0.1 < consensus.mean() < 0.9
    for target, expected in ((1, ~consensus), (2, consensus)):
        np.testing.assert_array_equal(unpack_target(targets, target), expected)
    # The nearest voxel is at most half a voxel diagonal away.
    assert consensus[time02 > 0.9].all()
    assert not consensus[time02 < -0.9].any()


def test_a_rotation_brings_in_tissue_and_not_padding():
    images = np.ones((2, *SHAPE))
    turned, _, _ = cut_deformed(make_patient(images), CORNER, SIZE, Spatial(matrix=rotation(45, 0)))
    np.testing.assert_allclose(turned, 1, atol=1e-5)


@pytest.mark.parametrize("shift_voxels", [-1.0, 1.0])
def test_voxels_outside_the_brain_are_background_after_any_deformation(shift_voxels):
    brain = np.zeros(SHAPE, bool)
    brain[:15] = True
    patient = make_patient(np.where(brain, 3.0, 0.0) * np.ones((2, *SHAPE)), brain=brain)
    spatial = Spatial(
        matrix=rotation(10, 2),
        misregistration=Misregistration(rotation(1, 1), np.array([shift_voxels, 0.0, 0.0])),
    )
    images, _, inside = cut_deformed(patient, CORNER, SIZE, spatial)
    assert 0.3 < inside.mean() < 0.8
    assert (images[:, ~inside] == 0).all()
    np.testing.assert_allclose(images[:, inside], 3, rtol=1e-4)  # also at the rim


def test_voxels_moved_out_of_the_brain_are_background_in_both_visits():
    brain = np.zeros(SHAPE, bool)
    brain[:15] = True
    targets = np.ones((1, *SHAPE))
    patient = make_patient(np.where(brain, -3.0, 0.0) * np.ones((2, *SHAPE)), targets, brain)
    moved = Spatial(misregistration=Misregistration(np.eye(3), np.array([2.0, 0.0, 0.0])))
    images, targets, inside = cut_deformed(patient, CORNER, SIZE, moved)
    rows = 15 - CORNER[0]  # rows of the patch with brain at time02; at time01 there are two fewer
    assert inside[: rows - 2].all()
    assert not inside[rows - 2 :].any()
    for visit in images:
        np.testing.assert_array_equal(visit, np.where(inside, -3, 0))
    assert unpack_target(targets, 0).all()  # targets are kept inside and outside the brain


def test_interpolation_equals_that_of_scipy():
    generator = np.random.default_rng(3)
    volume = generator.normal(size=(5, 7, 6)).astype(np.float32)
    places = (generator.random((3, 400)) * [[4], [6], [5]] * 0.9999).astype(np.float32)
    expected = ndimage.map_coordinates(volume, places, order=1)
    np.testing.assert_allclose(interpolate(volume, places), expected, atol=1e-5)


def test_a_spline_of_equal_values_is_constant_and_a_ramp_stays_a_ramp():
    constant = spline_field(np.full((2, 6, 6, 6), 1.5), 9)
    np.testing.assert_allclose(constant, 1.5, rtol=1e-6)
    ramp = spline_field(np.broadcast_to(np.arange(6.0)[:, None, None], (6, 6, 6)), 9)
    assert ramp.shape == (9, 9, 9)
    # There are 3 cells over 9 voxels. The first control value lies one cell before the patch.
    expected = 1 + (np.arange(9) + 0.5) / 3
    np.testing.assert_allclose(ramp[:, 4, 7], expected, rtol=1e-5)
    np.testing.assert_allclose(ramp[:, 0, 0], expected, rtol=1e-5)


def test_the_largest_allowed_displacement_does_not_fold_space():
    size, cells = 24, 4
    limit = 0.4 * size / cells
    generator = np.random.default_rng(4)
    for _ in range(20):
        control = limit * generator.choice([-1.0, 1.0], (3, *(control_points(cells),) * 3))
        field = spline_field(control, size)
        assert np.abs(field).max() <= limit * (1 + 1e-6)
        slopes = np.stack([np.stack(np.gradient(one)) for one in field])  # (3, 3, S, S, S)
        jacobian = np.moveaxis(slopes, (0, 1), (-2, -1)) + np.eye(3)
        assert np.linalg.det(jacobian).min() > 0
