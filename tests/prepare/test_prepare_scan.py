import gzip
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from msseg_jax.prepare.images import (
    affine_of,
    array_of,
    by_usual,
    capped,
    image_of,
    without_fat,
    without_peaks,
    write_image,
)
from msseg_jax.prepare.patient import _read_scans
from msseg_jax.prepare.request import Choice, Request
from msseg_jax.prepare.scan import _sum_of_bits, check_two_visits, read_scan
from msseg_jax.system.errors import InputError
from tests.support.dicom import TURNED, check_same, make_image, set_raw, write_series

SHAPE = (10, 12, 14)
SPACING_MM = (7.0, 6.0, 5.0)  # coarse, so that few voxels cover the field of view of a head
GRIDS = {
    "straight": np.diag(SPACING_MM),
    "oblique": np.array(TURNED).reshape(3, 3) * SPACING_MM,
    "flipped": np.diag(SPACING_MM) * (-1, 1, 1),
    "permuted": np.array([[0.0, 0, 5], [7, 0, 0], [0, -6, 0]]),
}


def affine_from(axes_mm):
    affine = np.eye(4)
    affine[:3, :3] = axes_mm
    affine[:3, 3] = (-40, 25, 10)
    return affine


@pytest.fixture(params=GRIDS)
def affine(request):
    return affine_from(GRIDS[request.param])


def numbered(dtype=np.int16):
    """Return an array with a different value in each voxel."""
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def save(path, array=None, affine=None, code=1):
    image = nib.Nifti1Image(
        numbered() if array is None else array,
        affine_from(GRIDS["straight"]) if affine is None else affine,
    )
    image.set_sform(image.affine, code)
    image.set_qform(image.affine if code else None, code)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def save_scaled(path, stored, slope, intercept):
    """Save integers with a slope and an intercept in the header, as converters write them."""
    plain = path.with_name("plain.nii")
    content = bytearray(save(plain, stored).read_bytes())
    plain.unlink()
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def head_sized():
    """Return an image of 14 slices of 8 x 10 voxels, with values that DICOM can store."""
    image = sitk.ConstantPad(make_image(14, (8.0, 8.0, 5.0), TURNED), (0, 4, 0), (0, 0, 0), 0)
    image.SetOrigin((1, 2, 3))
    return image


# -------------------------------------------------------------------------------- NIfTI and ITK


def test_a_grid_is_the_one_that_simpleitk_reads_from_the_same_file(tmp_path, affine):
    path = save(tmp_path / "image.nii.gz", affine=affine)
    theirs = sitk.ReadImage(str(path))
    check_same(image_of(numbered(), affine), theirs)
    np.testing.assert_allclose(affine_of(theirs), affine, atol=1e-5)
    np.testing.assert_array_equal(array_of(theirs), numbered())


def test_the_affine_gives_the_position_of_a_voxel(affine):
    image = image_of(numbered(), affine)
    assert image[3, 1, 2] == numbered()[3, 1, 2]
    x, y, z = nib.affines.apply_affine(affine, (3, 1, 2))
    found = image.TransformIndexToPhysicalPoint((3, 1, 2))
    assert found == pytest.approx((-x, -y, z))  # RAS to LPS


def test_voxels_and_affine_survive_the_conversion_to_itk_and_back(affine):
    image = image_of(numbered(), affine)
    np.testing.assert_array_equal(array_of(image), numbered())
    np.testing.assert_allclose(affine_of(image), affine, atol=1e-9)


def test_real_numbers_are_scaled_to_the_whole_range_of_integers(tmp_path, affine):
    array = np.random.default_rng(0).uniform(-3, 1000, SHAPE).astype(np.float32)
    write_image(tmp_path / "image.nii.gz", image_of(array, affine), np.int16)
    written = nib.load(tmp_path / "image.nii.gz")
    assert written.get_data_dtype() == np.int16
    steps = (array.max() - array.min()) / (2**16 - 1)
    error = np.abs(written.get_fdata() - array).max()
    assert 0 < error < 0.51 * steps  # half a step, plus rounding of float32
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)


def test_a_mask_is_written_unscaled_with_units_and_codes(tmp_path, affine):
    mask = (numbered() % 3 == 0).astype(np.uint8)
    write_image(tmp_path / "mask.nii.gz", image_of(mask, affine), np.uint8)
    written = nib.load(tmp_path / "mask.nii.gz")
    assert written.get_data_dtype() == np.uint8
    assert written.dataobj.slope == 1
    np.testing.assert_array_equal(np.asarray(written.dataobj), mask)
    assert written.header.get_xyzt_units()[0] == "mm"
    for form, code in (written.get_sform(coded=True), written.get_qform(coded=True)):
        assert code == 2
        np.testing.assert_allclose(form, affine, atol=1e-4)


def test_a_written_image_has_the_position_that_it_had_in_simpleitk(tmp_path, affine):
    image = image_of(numbered(np.uint8), affine)
    write_image(tmp_path / "image.nii.gz", image, np.uint8)
    check_same(sitk.ReadImage(str(tmp_path / "image.nii.gz")), image)


def test_the_brightest_voxels_are_clipped_and_the_others_scaled():
    array = np.zeros((4, 5, 10), np.float32)
    array[..., 5:] = 50
    array[0, 0, 5:7] = -10, 900  # one of the 99 voxels above the mean is far above it
    found = array_of(without_peaks(image_of(array, np.eye(4))))
    assert found[0, 0, 4:8].tolist() == [0, 0, 1, 1]
    assert found[2, 2].tolist() == [0] * 5 + [1] * 5


def test_fat_is_darkened_and_the_brain_is_scaled():
    array = np.zeros((2, 2, 7), np.float32)
    array[...] = -10, 0, 50, 100, 150, 200, 900
    found = array_of(without_fat(image_of(array, np.eye(4)), 100.0))
    np.testing.assert_allclose(found[1, 0], [0, 0, 1 / 3, 2 / 3, 1, 0.5, 0], rtol=1e-6)


@pytest.mark.parametrize("fat", [100.0, 250.0, 450.0])
def test_the_usual_brightness_does_not_depend_on_fat(fat):
    array = np.zeros((4, 5, 10), np.float32)
    array[..., 4:] = 100
    array[..., 9] = fat
    found = by_usual(image_of(array, np.eye(4)))
    np.testing.assert_allclose(array_of(found)[2, 2], [0] * 4 + [1] * 5 + [fat / 100])
    np.testing.assert_allclose(array_of(capped(found))[2, 2, 4:], [1] * 5 + [min(fat / 100, 1.5)])


# ------------------------------------------------------------------------------- valid scans


def test_a_nifti_file_is_read_on_its_grid(tmp_path, affine):
    scan = read_scan(save(tmp_path / "flair.nii.gz", affine=affine))
    np.testing.assert_array_equal(array_of(scan.image), numbered())
    np.testing.assert_allclose(affine_of(scan.image), affine, atol=1e-5)
    assert scan.image.GetPixelID() == sitk.sitkFloat32
    assert scan.series is None
    assert scan.is_oriented


def test_stored_values_are_scaled_when_they_are_read(tmp_path):
    scan = read_scan(save_scaled(tmp_path / "flair.nii.gz", numbered(), 0.5, 3))
    np.testing.assert_array_equal(array_of(scan.image), numbered() * 0.5 + 3)


def test_slightly_negative_values_are_set_to_0(tmp_path):
    scan = read_scan(save_scaled(tmp_path / "flair.nii.gz", numbered(), 0.5, -3))
    np.testing.assert_array_equal(array_of(scan.image), np.maximum(numbered() * 0.5 - 3, 0))
    assert scan.warnings == ()


def test_a_header_without_the_orientation_of_the_patient_is_detected(tmp_path):
    assert not read_scan(save(tmp_path / "flair.nii", code=0)).is_oriented


def test_a_folder_of_dicom_files_is_read_with_the_description_of_the_series(tmp_path):
    write_series(tmp_path / "scan", head_sized())
    scan = read_scan(tmp_path / "scan")
    check_same(scan.image, head_sized())
    assert scan.series == "series 5: 't2 flair', MR, 14 files, UID 1.2.3"
    assert scan.is_oriented


def test_one_of_several_series_in_a_folder_is_chosen(tmp_path):
    write_series(tmp_path, head_sized(), "1.2.3", "3", "t1", "a{}")
    write_series(tmp_path, head_sized() + 1, "1.2.4", "4", "flair", "b{}")
    scan = read_scan(tmp_path, Choice("flair"))
    assert "UID 1.2.4" in scan.series
    check_same(scan.image, head_sized() + 1)


def test_a_choice_for_both_visits_is_used_only_where_there_is_one(tmp_path):
    """Let the first visit have two series, of which the second has two acquisitions."""
    first, second = tmp_path / "first", tmp_path / "second"
    write_series(first / "a", head_sized(), "1.2.3", "3", "t1")
    for number in (1, 2):
        stack = write_series(
            first / str(number), head_sized() + number, "1.2.4", "4", "flair", first=100 * number
        )
        set_raw(stack, AcquisitionNumber=b"%d" % number)
    set_raw(write_series(second, head_sized() + 3, number="7"), AcquisitionNumber=b"1")
    request = Request(first, second, series=("#2", "#2"), acquisitions=("2", "2"))
    scans = _read_scans(request)
    for scan, image in zip(scans, (head_sized() + 2, head_sized() + 3), strict=True):
        check_same(scan.image, image)
    assert scans[0].series.endswith("acquisition number 2")
    with pytest.raises(InputError, match=r"second: --series=#3 matches 0 of the series"):
        _read_scans(replace(request, series=("#2", "#3")))
    with pytest.raises(InputError, match=r"second.*--acquisition=3 matches 0 of its stacks"):
        _read_scans(replace(request, acquisitions=("2", "3")))
    # The number of the series may tell that the second scan is the wrong one.
    with pytest.raises(InputError, match=r"second: --series=4 matches 0 of the series"):
        _read_scans(replace(request, series=("4", "4")))
    with pytest.raises(InputError, match="contains 2 series"):
        read_scan(tmp_path)


# ----------------------------------------------------------------------------- refused scans


def _nan(path):
    array = numbered(np.float32)
    array[1, 2, 3:6] = np.nan, np.inf, -np.inf
    save(path, array)


def _constant(path):
    save(path, np.full(SHAPE, 42, np.int16))


def _sheared(path):
    axes = GRIDS["straight"].copy()
    axes[0, 2] = 5 * np.tan(np.radians(7))  # the third axis leans towards the first
    image = nib.Nifti1Image(numbered(), affine_from(axes))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _small(path):
    save(path, affine=affine_from(np.diag((0.7, 6, 5))))


def _huge(path):
    save(path, np.resize(numbered(), (101, 12, 14)), affine_from(np.diag((6.0, 6, 5))))


def _metres(path):
    save(path, affine=affine_from(np.diag((0.007, 0.006, 0.005))))


def _coarse(path):
    save(path, affine=affine_from(np.diag((7, 6, 10.5))))


def _four_dimensions(path):
    save(path, numbered()[..., None].repeat(2, 3))


def _text(path):
    path.write_text("FLAIR")


def _cut_off(path):
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    path.write_bytes(save(path, noise).read_bytes()[:3000])


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("flair.nii.gz", lambda path: None, "no such file"),
        ("absent", lambda path: None, "no such file"),
        ("flair.nii.gz", _nan, r"3 voxels are NaN or infinite\. Expected finite numbers"),
        ("flair.nii.gz", _constant, "every voxel is 42; expected a FLAIR image"),
        (
            "flair.nii.gz",
            _sheared,
            r"its axes are 7\.0 degrees away from right angles .*expected right angles",
        ),
        (
            "flair.nii.gz",
            _small,
            "field of view is 7 x 72 x 70 mm; expected 60 to 600 mm along each axis",
        ),
        ("flair.nii.gz", _huge, "field of view is 606 x 72 x 70 mm; expected 60 to 600"),
        (
            "flair.nii.gz",
            _metres,
            "field of view is 0 x 0 x 0 mm; expected 60 .* voxel size in its header is right",
        ),
        ("flair.nii.gz", _coarse, r"voxels measure 7\.0 x 6\.0 x 10\.5 mm; expected at most 10 mm"),
        ("flair.nii.gz", _four_dimensions, r"4 dimensions, \(10, 12, 14, 2\)\. Expected 3"),
        ("flair.nii.gz", _text, "not a readable NIfTI|truncated or damaged"),
        ("flair.nii.gz", _cut_off, "truncated or damaged"),
        (
            "flair.txt",
            _text,
            r"neither a NIfTI file nor a folder; expected .*\.nii.*or the folder of a DIC",
        ),
        ("IM0001", _text, "or the folder of a DICOM series"),
    ],
)
def test_refuses_a_file_that_is_not_a_scan_of_a_head(tmp_path, name, spoil, message):
    path = tmp_path / name
    spoil(path)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{message}"):
        read_scan(path)


def test_refuses_a_dicom_series_with_constant_voxels(tmp_path):
    write_series(tmp_path, head_sized() * 0 + 3)
    with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path))}: every voxel is 3"):
        read_scan(tmp_path)


def test_a_rounded_affine_is_not_refused_as_sheared(tmp_path):
    axes = GRIDS["oblique"].copy()
    axes[0, 2] += 5 * np.radians(0.1)
    path = tmp_path / "flair.nii.gz"
    nib.save(nib.Nifti1Image(numbered(), affine_from(axes)), path)
    np.testing.assert_allclose(affine_of(read_scan(path).image), affine_from(axes), atol=1e-5)


# ---------------------------------------------------------------------------- identical visits


def _another_type(path):
    save(path, numbered(np.float64))


def _another_header(path):
    affine = affine_from(GRIDS["oblique"])
    affine[:3, 3] += 5
    image = nib.Nifti1Image(numbered(), affine)
    image.header["descrip"] = b"second visit"
    nib.save(image, path)


def _another_scaling(path):
    save_scaled(path, 2 * numbered() - 6, 0.5, 3)


@pytest.mark.parametrize("name", ["second.nii", "second.nii.gz"])
@pytest.mark.parametrize("write", [save, _another_type, _another_header, _another_scaling])
def test_the_same_voxels_are_recognised_in_another_file(tmp_path, name, write):
    first = save(tmp_path / "first.nii.gz")
    write(tmp_path / name)
    scans = read_scan(first), read_scan(tmp_path / name)
    assert scans[0].digest == scans[1].digest
    with pytest.raises(InputError, match="same scan was given twice") as error:
        check_two_visits(*scans)
    assert f"{first} and {tmp_path / name} hold the same voxels" in str(error.value)


def test_the_same_voxels_are_recognised_in_dicom_files(tmp_path):
    image = head_sized()
    write_series(tmp_path / "dicom", image)
    save(tmp_path / "flair.nii.gz", array_of(image), affine_of(image))
    scans = read_scan(tmp_path / "dicom"), read_scan(tmp_path / "flair.nii.gz")
    with pytest.raises(InputError, match="the same scan was given twice"):
        check_two_visits(*scans)


def test_the_sum_of_bits_depends_on_the_values_and_not_on_their_order():
    array = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
    array[0, 0, :3] = 0, 0, 5
    bits = _sum_of_bits(array)
    assert bits == sum(int(value) for value in array.view(np.uint32).ravel())
    assert _sum_of_bits(array[::-1].transpose(2, 0, 1)) == bits
    negative = array.copy()
    negative[0, 0, 0] = -0.0  # equal to 0, with another bit pattern
    assert _sum_of_bits(negative) == bits
    negative[3, 3, 3] = np.nextafter(negative[3, 3, 3], np.float32(2))
    assert _sum_of_bits(negative) == bits + 1


def test_scans_that_differ_in_one_voxel_are_different(tmp_path):
    later = numbered()
    later[4, 5, 6] += 1
    scans = [
        read_scan(save(tmp_path / name, array))
        for name, array in (("one.nii", numbered()), ("two.nii", later))
    ]
    check_two_visits(*scans)
    assert scans[0].digest != scans[1].digest
