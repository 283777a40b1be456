"""Brain masks in the right and in the wrong place, on an artificial head."""

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import BRAIN_MASK, TIME01, TIME02, Patient
from msseg_jax.volumes.mask_fit import (
    DOUBTFUL_GAIN,
    TURNED_GAIN,
    WRONG_GAIN,
    find_misfit,
    measure_mask_fit,
)
from msseg_jax.volumes.nifti import read_volume
from msseg_jax.volumes.pair import read_pair

DATA = Path(__file__).parents[3] / "shared" / "data" / "open_ms" / "longitudinal"
SPACING_MM = np.array([2.0, 1.6, 3.0])
AFFINE = np.diag([*SPACING_MM, 1.0])  # towards the right, the front and the top
SHAPE = (100, 130, 70)


@pytest.fixture(scope="module")
def head():
    """Return an image and its brain mask: an egg with fluid, bone, scalp and a brain stem."""
    places = [(np.arange(n) - n / 2) * mm for n, mm in zip(SHAPE, SPACING_MM, strict=True)]
    x, y, z = np.meshgrid(*places, indexing="ij")
    narrow = 1 + 0.004 * z - 0.002 * y  # the top and the back are wider
    brain = (x / (62 * narrow)) ** 2 + (y / (80 * narrow)) ** 2 + ((z - 8) / 58) ** 2 < 1
    stem = (x**2 + (y + 15) ** 2 < 15**2) & (z < 0) & (z > -75)
    tissue = brain | stem
    away_mm = ndimage.distance_transform_edt(~tissue, SPACING_MM)
    image = np.where(tissue, 100.0, 0.0)
    image[(away_mm > 0) & (away_mm <= 4)] = 25  # fluid
    image[(away_mm > 4) & (away_mm <= 10)] = 10  # bone
    image[(away_mm > 10) & (away_mm <= 15)] = 160  # scalp
    image += np.random.default_rng(0).normal(0, 5, SHAPE)
    return np.abs(image).astype(np.float32), tissue


def moved(mask, axis, mm):
    voxels = round(mm / SPACING_MM[axis])
    return np.roll(mask, voxels, axis)


def message_for(image, mask, affine=AFFINE):
    found = find_misfit("mask.nii", {Path("flair.nii"): measure_mask_fit(image, mask, affine)})
    return found and (found.is_certain, found.message)


@pytest.mark.parametrize(
    "change",
    [
        lambda image, brain: (image, brain),
        lambda image, brain: (image * brain, brain),  # skull-stripped with this mask
        lambda image, brain: ((image - 50) * brain, brain),  # and without a natural zero
        lambda image, brain: (image - 300, brain),
        lambda image, brain: (np.where(brain, image, -1024), brain),
        lambda image, brain: (image, ndimage.binary_dilation(brain)),
        lambda image, brain: (image, ndimage.binary_erosion(brain, iterations=2)),
        lambda image, brain: (image, brain & (np.arange(SHAPE[2]) > 30)),  # without the stem
        lambda image, brain: (image * np.linspace(0.4, 1.6, SHAPE[1])[:, None], brain),
        lambda image, brain: (image[:, :, 25:], brain[:, :, 25:]),
    ],
    ids=["as it is", "stripped", "stripped, zero mean", "offset", "padded", "wider", "narrower",
         "part of it", "bias field", "cut off"],
)  # fmt: skip
def test_a_mask_in_the_right_place_is_accepted(head, change):
    assert message_for(*change(*head)) is None


@pytest.mark.parametrize("is_stripped", [False, True])
@pytest.mark.parametrize("mm", [15, -15])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_message_says_how_to_move_a_mask_that_lies_elsewhere(head, axis, mm, is_stripped):
    image, brain = head
    fit = measure_mask_fit(image * brain if is_stripped else image, moved(brain, axis, mm), AFFINE)
    assert fit.gain > WRONG_GAIN
    expected_mm = np.zeros(3)
    expected_mm[axis] = -round(mm / SPACING_MM[axis]) * SPACING_MM[axis]
    np.testing.assert_allclose(fit.shift_mm, expected_mm, atol=3)  # half a block, and a bit
    misfit = find_misfit("mask.nii", {Path("flair.nii"): fit})
    assert misfit.is_certain
    back = [("left", "right"), ("back", "front"), ("down", "up")][axis][mm < 0]
    assert misfit.message.startswith("mask.nii: the brain mask does not fit the head in flair.nii.")
    assert f" {abs(fit.shift_mm[axis]):.0f} mm " in misfit.message
    assert back in misfit.message.split(" (fit")[0]


def test_directions_are_those_of_the_patient_and_not_of_the_array(head):
    image, brain = (array[::-1].transpose(2, 0, 1) for array in head)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    affine[2, 0], affine[0, 1], affine[1, 2] = SPACING_MM[2], -SPACING_MM[0], SPACING_MM[1]
    right = measure_mask_fit(image, brain, affine)
    assert right.gain < 0.02
    # Along the second axis of the array, which points to the left.
    mask = np.roll(brain, round(16 / SPACING_MM[0]), 1)
    fit = measure_mask_fit(image, mask, affine)
    np.testing.assert_allclose(fit.shift_mm, [16, 0, 0], atol=3)


def test_a_small_shift_is_in_doubt(head):
    image, brain = head
    is_certain, message = message_for(image, moved(brain, 0, 6))
    assert "may not fit" in message or is_certain


@pytest.mark.parametrize(("axis", "ends"), [(2, "top and bottom"), (1, "front and back")])
def test_a_mask_that_is_turned_over_is_noticed(head, axis, ends):
    image, brain = head
    found = message_for(image, np.flip(brain, axis))
    assert found is not None
    assert found[0]


def test_a_mask_that_fits_one_of_two_visits_is_accepted(head):
    image, brain = head
    good, bad = (measure_mask_fit(image, mask, AFFINE) for mask in (brain, moved(brain, 0, 15)))
    visits = {Path("first.nii"): bad, Path("second.nii"): good}
    assert find_misfit("mask.nii", visits) is None
    assert find_misfit("mask.nii", dict.fromkeys(visits, bad)).is_certain


def test_between_both_bounds_there_is_a_warning(head):
    fit = measure_mask_fit(*head, AFFINE)
    for gain, expected in (
        (DOUBTFUL_GAIN - 0.01, None),
        (DOUBTFUL_GAIN + 0.01, False),
        (WRONG_GAIN - 0.01, False),
        (WRONG_GAIN + 0.01, True),
    ):
        changed = dataclasses.replace(fit, gain=gain, shift_mm=(-12.0, 1.0, 5.0), fit_there=0.8)
        found = find_misfit("mask.nii", {Path("flair.nii"): changed})
        assert (found and found.is_certain) == expected
        if found:
            assert "moved by 12 mm to the left and 5 mm up (fit 0.80 instead" in found.message
    turned = dataclasses.replace(fit, turned_gain=TURNED_GAIN, turned_fit=0.7, turned=(False, True))
    found = find_misfit("mask.nii", {Path("flair.nii"): turned})
    assert "It fits much better if top and bottom are exchanged." in found.message


def test_a_pair_with_a_mask_that_lies_elsewhere_is_refused(head, tmp_path, caplog):
    image, brain = head
    files = {"time01": image, "time02": image * 1.1, "right": brain, "wrong": moved(brain, 0, 15),
             "doubtful": moved(brain, 0, 8)}  # fmt: skip
    paths = {name: tmp_path / f"{name}.nii.gz" for name in files}
    for name, array in files.items():
        nib.save(nib.Nifti1Image(array.astype(np.float32), AFFINE), paths[name])

    def read(mask):
        return read_pair(Patient("anna", paths["time01"], paths["time02"], paths[mask]))

    assert read("right").warnings == ()
    with pytest.raises(
        InputError, match=r"wrong.nii.gz: the brain mask does not fit.* to the left"
    ):
        read("wrong")
    assert not caplog.records


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real scans are missing: {DATA}")
@pytest.mark.parametrize("name", ["01", "03"])
def test_the_published_masks_fit_and_moved_ones_do_not(name):
    brain = read_volume(DATA / name / BRAIN_MASK).array > 0
    for visit in (TIME01, TIME02):
        flair = read_volume(DATA / name / visit)
        fit = measure_mask_fit(flair.array, brain, flair.affine)
        assert fit.fit > 0.5
        assert fit.gain < DOUBTFUL_GAIN / 2
        wrong = np.roll(brain, round(20 / flair.spacing_mm[0]), 0)
        fit = measure_mask_fit(flair.array, wrong, flair.affine)
        assert fit.is_wrong
        assert np.linalg.norm(fit.shift_mm) == pytest.approx(20, abs=4)


def test_small_masks_and_images_without_contrast_are_not_judged(head):
    image, brain = head
    small = brain.copy()
    small[:45] = small[55:] = False
    small[:, :60] = small[:, 70:] = False
    assert measure_mask_fit(image, small, AFFINE) is None
    assert measure_mask_fit(np.zeros_like(image), brain, AFFINE) is None
    assert find_misfit("mask.nii", {Path("flair.nii"): None}) is None


def test_a_mask_that_is_much_too_wide_is_not_refused_for_its_place(head):
    image, brain = head
    found = message_for(image, ndimage.binary_dilation(brain, iterations=3))
    assert found is None or not found[0]
