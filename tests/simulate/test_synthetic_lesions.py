"""Lesions read from real masks, and painting and erasing of lesions in an image."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from msseg_jax.simulate.synthetic.bank import read_bank
from msseg_jax.simulate.synthetic.erase import _dilate, erase, make_alike
from msseg_jax.simulate.synthetic.paint import TEXTURE, paint, place
from msseg_jax.simulate.synthetic.plan import LEAST_FADED, Kind, draw_lesion, draw_lesions
from msseg_jax.system.errors import InputError
from tests.support.brains import MNI_SHIFT_MM, make_bank, make_lesion, make_shape, make_source


def save_mask(path, voxels, affine=None, value=1):
    """Save a mask of 60^3 voxels of 1 mm, centred at the origin, with `value` in some boxes."""
    array = np.zeros((60, 60, 60), np.uint8)
    for box in voxels:
        array[box] = value
    if affine is None:
        affine = nib.affines.from_matvec(np.eye(3), (-30, -30, -30))
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


CUBE = np.s_[20:23, 30:33, 40:43]


def test_each_component_of_a_mask_becomes_a_shape_with_its_centre(tmp_path):
    path = save_mask(
        tmp_path / "a.nii.gz", [CUBE, np.s_[5:10, 5:10, 5:9], np.s_[50:51, 50:51, 50:51]]
    )
    bank = read_bank([path])
    found = {shape.volume_mm3: shape for shape in bank.shapes}
    assert set(found) == {27.0, 100.0}, "a single voxel is noise"
    np.testing.assert_allclose(found[27.0].centre_mm, (-9, 1, 11))
    np.testing.assert_allclose(found[100.0].centre_mm, (-23, -23, -23.5))
    assert found[27.0].mask.sum() == 27
    assert found[27.0].radius_mm == pytest.approx(np.sqrt(3))


def test_brain_size_scales_masks_that_were_registered_rigidly(tmp_path):
    path = save_mask(tmp_path / "a.nii.gz", [CUBE])
    (shape,) = read_bank([path], brain_size=0.9).shapes
    np.testing.assert_allclose(shape.centre_mm, np.array([-9, 1, 11]) / 0.9)
    assert shape.volume_mm3 == pytest.approx(27 / 0.9**3)
    assert shape.radius_mm == pytest.approx(np.sqrt(3) / 0.9)


def test_voxels_that_touch_at_a_corner_are_one_lesion(tmp_path):
    path = save_mask(
        tmp_path / "a.nii.gz", [np.s_[10:12, 10:12, 10:12], np.s_[12:14, 12:14, 12:14]]
    )
    assert [shape.volume_mm3 for shape in read_bank([path]).shapes] == [16.0]


def test_a_mask_that_is_not_in_mni_space_is_refused_by_name(tmp_path):
    affine = nib.affines.from_matvec(np.eye(3), (200, -30, -30))
    path = save_mask(tmp_path / "far.nii.gz", [CUBE], affine)
    with pytest.raises(InputError, match=r"far\.nii\.gz: 100 % .* outside .* MNI"):
        read_bank([path])
    bank = read_bank([save_mask(tmp_path / "near.nii.gz", [CUBE])], shapes=[path])
    assert [shape.centre_mm is None for shape in bank.shapes] == [False, True]


def test_a_file_that_is_not_a_mask_is_refused_by_name(tmp_path):
    path = save_mask(tmp_path / "labels.nii.gz", [CUBE], value=3)
    with pytest.raises(InputError, match=r"labels\.nii\.gz.*for example 3\."):
        read_bank([path])


def test_masks_without_any_lesion_are_refused(tmp_path):
    with pytest.raises(InputError, match="the 1 files contain no lesion of 8 to 8000 mm3"):
        read_bank([save_mask(tmp_path / "empty.nii.gz", [])])


def test_a_shape_of_about_the_requested_volume_is_drawn_with_its_own_centre(rng):
    bank = make_bank()
    for volume_mm3, sides in ((64, {4}), (729, {9}), (1e6, {9}), (120, {4, 6})):
        drawn = [bank.draw(rng, volume_mm3) for _ in range(40)]
        assert {round(shape.volume_mm3 ** (1 / 3)) for shape, _ in drawn} == sides
        assert all(place is shape.centre_mm for shape, place in drawn)


def test_a_shape_without_a_centre_gets_the_centre_of_another_lesion(rng):
    bank = make_bank()
    without_centre = make_shape(20, centre_mm=None)
    bank = type(bank)((*bank.shapes, without_centre))
    shape, place_mm = bank.draw(rng, 8000)
    assert shape is without_centre
    assert any((place_mm == other.centre_mm).all() for other in bank.shapes[:-1])


@pytest.mark.parametrize("has_new", [True, False])
def test_a_pair_has_lesions_of_all_kinds_but_new_ones_only_if_it_should(rng, has_new):
    bank = make_bank()
    drawn = [[lesion.kind for lesion in draw_lesions(bank, has_new, rng)] for _ in range(300)]
    new = np.array([kinds.count(Kind.NEW) for kinds in drawn])
    assert ((new > 0) == has_new).all()
    if has_new:
        assert 2 < new.mean() < 4
    others = {kind for kinds in drawn for kind in kinds} - {Kind.NEW}
    assert others == set(Kind) - {Kind.NEW}


def test_contrasts_and_sizes_follow_from_the_kind_of_a_lesion(rng):
    for _ in range(50):
        lesions = {kind: draw_lesion(kind, make_bank(), rng) for kind in Kind}
        assert lesions[Kind.NEW].contrasts[0] == 0 < lesions[Kind.NEW].contrasts[1]
        assert lesions[Kind.VANISHES].contrasts[1] == 0 < lesions[Kind.VANISHES].contrasts[0]
        assert lesions[Kind.ENLARGES].sizes[0] < lesions[Kind.ENLARGES].sizes[1]
        low, high = sorted(lesions[Kind.FADES].contrasts)
        assert LEAST_FADED <= low < 0.9 * high
        low, high = sorted(lesions[Kind.PERSISTS].contrasts)
        assert 0.85 * high < low


# ------------------------------------------------------------------------- painting of lesions


def placed_in(source, lesion):
    taken = np.zeros(source.brain.shape, bool)
    return place(lesion, source, source.images[0], taken)


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (1.0, 1.5, 4.0)])
def test_a_placed_lesion_has_the_right_volume_and_centre(spacing_mm):
    source = make_source(spacing_mm)
    lesion = make_lesion(make_shape(8, np.add(MNI_SHIFT_MM, (25, 3, -6))))
    placed = placed_in(source, lesion)
    share = np.zeros(source.brain.shape)
    share[placed.box] = placed.shares[1]
    assert share.max() <= 1
    assert share.sum() * np.prod(spacing_mm) == pytest.approx(8**3, rel=0.08)
    centre = np.array(ndimage.center_of_mass(share))
    np.testing.assert_allclose(
        nib.affines.apply_affine(source.affine, centre), (25, 3, -6), atol=0.35
    )


def test_the_matrix_of_a_lesion_rotates_and_scales_it_in_mni_space():
    source = make_source((1.0, 1.0, 1.0))
    matrix = np.array([[0.0, -1, 0], [3, 0, 0], [0, 0, 1]])  # rotates x to y, and scales it by 3
    placed = placed_in(
        source, make_lesion(make_shape(5, np.add(MNI_SHIFT_MM, (28, 0, 0))), matrix=matrix)
    )
    sides = [np.ptp(where) + 1 for where in np.nonzero(placed.shares[1] > 0.5)]
    np.testing.assert_allclose(sides, (5, 15, 5), atol=1)


def test_a_lesion_is_placed_correctly_in_a_scan_of_any_orientation():
    """The axes are permuted, the head is turned in the scanner, and the brain is small."""
    turn = Rotation.from_euler("xyz", (15, -10, 20), degrees=True).as_matrix()
    ball = make_source((1.5, 1.5, 1.5))
    order = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, -1]])  # directions of the array axes
    affine = nib.affines.from_matvec(1.5 * order, (40, -30, 60))
    middle = affine[:3, :3] @ (np.array(ball.brain.shape) - 1) / 2 + affine[:3, 3]
    linear = 1.1 * turn
    to_mni = nib.affines.from_matvec(linear, MNI_SHIFT_MM - linear @ middle)
    source = replace(ball, affine=affine, to_mni=to_mni)
    offset_mm = np.array([25.0, 8, -6])  # from the middle of the brain, in scanner coordinates
    centre_mm = nib.affines.apply_affine(to_mni, middle + offset_mm)
    placed = placed_in(source, make_lesion(make_shape(9, centre_mm)))
    share = np.zeros(source.brain.shape)
    share[placed.box] = placed.shares[1]
    found = nib.affines.apply_affine(affine, np.array(ndimage.center_of_mass(share)))
    np.testing.assert_allclose(found, middle + offset_mm, atol=0.3)
    assert share.sum() * 1.5**3 == pytest.approx(9**3 / 1.1**3, rel=0.08)
    # A rod along x in MNI space points along the x axis of the turned head.
    rod = np.diag([3.0, 1, 1])
    placed = placed_in(source, make_lesion(make_shape(5, centre_mm), matrix=rod))
    voxels = np.argwhere(placed.shares[1] > 0.4) @ affine[:3, :3].T
    direction = np.linalg.svd(voxels - voxels.mean(axis=0))[2][0]
    assert abs(direction @ np.linalg.inv(turn)[:, 0]) > 0.98


@pytest.mark.parametrize("spacing_mm", [0.4, 0.5, 2.0])
def test_a_soft_border_does_not_depend_on_the_voxel_size_of_the_mask(spacing_mm):
    source = make_source((1.0, 1.0, 1.0))
    shares = []
    for mm in (1.0, spacing_mm):
        shape = make_shape(round(6 / mm), np.add(MNI_SHIFT_MM, (28, 0, 0)), (mm,) * 3)
        lesion = make_lesion(shape, border_mm=1.1)
        placed = placed_in(source, lesion)
        whole = np.zeros(source.brain.shape, np.float32)
        whole[placed.box] = placed.shares[1]
        shares.append(whole)
    # The shares differ slightly, because the smoothing is done on voxels of another size.
    assert np.abs(shares[1] - shares[0]).max() < 0.15
    assert shares[1].sum() == pytest.approx(shares[0].sum(), rel=0.05)
    rim = shares[1][np.nonzero(shares[1])].min()
    assert rim < 0.02, "the border must not be cut off"


def test_painting_gives_a_lesion_its_contrast_and_changes_no_other_voxel():
    source = make_source()
    placed = placed_in(source, make_lesion(make_shape(10, np.add(MNI_SHIFT_MM, (25, 0, 0)))))
    image = source.images[0].copy()
    paint(image, placed, visit=1)
    share = np.zeros_like(image)
    share[placed.box] = placed.shares[1]
    whole = image[share == share.max()]
    assert whole.mean() == pytest.approx(1.4, abs=0.05)
    assert 1.4 * TEXTURE * 0.1 < whole.std() < 1.4 * TEXTURE, "the lesion has a texture"
    assert (image[share == 0] == source.images[0][share == 0]).all()
    assert (image >= source.images[0]).all(), "no voxel becomes darker"
    before = source.images[0].copy()
    paint(before, placed, visit=0)
    assert (before == source.images[0]).all(), "the lesion is absent in the first visit"


def test_a_lesion_next_to_fluid_does_not_brighten_the_fluid():
    source = make_source((1.0, 1.0, 1.0))
    placed = placed_in(source, make_lesion(make_shape(9, np.add(MNI_SHIFT_MM, (11, 0, 0)))))
    image = source.images[0].copy()
    paint(image, placed, visit=1)
    fluid = (source.images[0] < 0.45) & source.brain
    assert (image[fluid] == source.images[0][fluid]).all()
    assert image.max() > 1.3


@pytest.mark.parametrize(
    ("place_mm", "reason"),
    [
        ((46, 0, 0), "half outside the brain"),
        ((0, 0, 0), "in fluid"),
        ((80, 0, 0), "outside the image"),
    ],
)
def test_a_lesion_is_only_placed_in_tissue_of_the_brain(place_mm, reason):
    assert (
        placed_in(make_source(), make_lesion(make_shape(8, np.add(MNI_SHIFT_MM, place_mm)))) is None
    ), reason


def test_a_lesion_is_not_placed_over_another_or_if_it_is_too_faint():
    source = make_source()
    lesion = make_lesion(make_shape(8, np.add(MNI_SHIFT_MM, (25, 0, 0))))
    taken = np.zeros(source.brain.shape, bool)
    assert place(lesion, source, source.images[0], taken) is not None
    centre = np.linalg.inv(source.affine)[:3] @ (25, 0, 0, 1)
    taken[tuple(np.rint(centre).astype(int))] = True
    assert place(lesion, source, source.images[0], taken) is None
    faint = make_lesion(lesion.shape, contrasts=(0.0, 0.05))
    assert placed_in(source, faint) is None


@pytest.mark.parametrize(
    ("contrasts", "found"), [((0.4, 0.05), False), ((0.05, 0.4), False), ((0.1, 0.4), True)]
)
def test_a_lesion_present_in_both_visits_must_be_visible_in_both(contrasts, found):
    lesion = make_lesion(make_shape(6, np.add(MNI_SHIFT_MM, (28, 0, 0))), Kind.FADES, contrasts)
    assert (placed_in(make_source(), lesion) is not None) == found


# -------------------------------------------------------------------------- erasing of lesions


def test_an_erased_lesion_looks_like_the_tissue_around_it(rng):
    source = make_source(noise=0.04)
    lesion = np.zeros(source.brain.shape, bool)
    lesion[36:41, 24:29, 24:29] = True
    image = source.images[0] * np.where(lesion, np.float32(1.6), np.float32(1))
    clean = erase(image, lesion, lesion, source.spacing_mm, rng)
    assert clean[lesion].mean() == pytest.approx(1.0, abs=0.02)
    assert clean[lesion].std() == pytest.approx(0.04, rel=0.4), "the noise is kept"
    far = ndimage.distance_transform_edt(~lesion) > 4
    np.testing.assert_allclose(clean[far], image[far], atol=1e-5)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 0.75, 1.5), (0.9, 0.9, 6.4)])
@pytest.mark.parametrize("by_mm", [1.5, 3.0])
def test_a_margin_contains_exactly_the_voxels_within_its_width(rng, spacing_mm, by_mm):
    mask = rng.random((23, 20, 17)) < 0.003
    assert mask.any()
    distance_mm = ndimage.distance_transform_edt(~mask, spacing_mm)
    widened = _dilate(mask, by_mm, np.array(spacing_mm))
    np.testing.assert_array_equal(widened, distance_mm <= by_mm)
    assert not _dilate(np.zeros_like(mask), by_mm, np.array(spacing_mm)).any()


@pytest.mark.parametrize("shown", [0, 1])
def test_make_alike_copies_lesion_changes_from_one_visit_to_the_other(shown):
    source = make_source()
    change = np.zeros(source.brain.shape, bool)
    change[36:41, 24:29, 24:29] = True
    second = 1.2 * source.images[0] * np.where(change, 1.5, 1)  # brighter, and with a lesion
    images = np.stack([source.images[0], second.astype(np.float32)])
    alike = make_alike(images, change, source.brain, source.spacing_mm, shown)
    expected = {0: (1.0, 1.2), 1: (1.5, 1.8)}[shown]
    for visit in (0, 1):
        assert alike[visit][change].mean() == pytest.approx(expected[visit], abs=0.03)
    far = ndimage.distance_transform_edt(~change) > 4
    np.testing.assert_allclose(alike[:, far], images[:, far], atol=1e-4)
