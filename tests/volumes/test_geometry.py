"""The geometry of a NIfTI image: the same as ITK sees, and never contradictory in silence."""

import itertools

import nibabel as nib
import numpy as np
import pytest

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.grids import grid_difference
from msseg_jax.volumes.nifti import read_volume, volume_of, write_volume

SHAPE = (5, 6, 7)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from NIfTI's axes to ITK's
QFORM = nib.affines.from_matvec(np.diag([1.0, 2.0, 3.0]), [10, 20, 30])


CODES = [codes for codes in itertools.product((0, 1, 2, 4), (0, 1, 2, 3, 4)) if any(codes)]


def rotated(affine, degrees=8.0, shift_mm=(5, 10, 10)):
    """Return an affine with another position of the head."""
    turn = nib.eulerangles.euler2mat(z=np.radians(degrees))
    return nib.affines.from_matvec(turn, shift_mm) @ affine


def save(path, qform=QFORM, sform=QFORM, qcode=1, scode=1, array=None, **fields):
    """Write an image with both forms and with fields of the header as they are given."""
    array = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE) if array is None else array
    image = nib.Nifti1Image(array, qform)
    image.set_qform(qform, 1)
    image.set_sform(sform, 1)
    image.header["qform_code"], image.header["sform_code"] = qcode, scode
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    header = np.frombuffer(bytes(raw[:348]), dtype=nib.Nifti1Header.template_dtype).copy()
    for name, value in fields.items():
        header[0][name] = value
    raw[:348] = header.tobytes()
    path.write_bytes(bytes(raw))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.nii"


@pytest.mark.parametrize(("qcode", "scode"), CODES)
@pytest.mark.parametrize("sform", [rotated(QFORM), rotated(QFORM, degrees=0)])
def test_the_geometry_is_that_of_itk(path, qcode, scode, sform):
    sitk = pytest.importorskip("SimpleITK")
    save(path, sform=sform, qcode=qcode, scode=scode)
    image = sitk.ReadImage(str(path))
    itk = np.eye(4)
    itk[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    itk[:3, 3] = image.GetOrigin()
    np.testing.assert_allclose(read_volume(path).affine, LPS @ itk, atol=1e-4)


def test_a_sheared_sform_gives_way_to_the_qform_as_in_itk(path):
    shear = np.eye(4)
    shear[0, 1] = 0.05
    volume = read_volume(save(path, sform=QFORM @ shear))
    np.testing.assert_allclose(volume.affine, QFORM, atol=1e-5)
    only = read_volume(save(path, sform=QFORM @ shear, qcode=0))
    np.testing.assert_allclose(only.affine, QFORM @ shear, atol=1e-5)


def test_forms_that_disagree_are_reported_with_both_places(path, caplog):
    volume = read_volume(save(path, sform=rotated(QFORM), scode=2))
    (warning,) = volume.warnings
    assert str(path) in warning
    assert "qform and sform of the header differ by up to 1" in warning
    assert "at (10, 20, 30) mm" in warning
    first = ", ".join(f"{value:.6g}" for value in rotated(QFORM)[:3, 3].astype(np.float32))
    assert f"({first}) mm" in warning
    assert warning in caplog.text
    np.testing.assert_allclose(volume.other_affine, rotated(QFORM), atol=1e-5)


def test_forms_that_differ_only_by_rounding_are_not_reported(path, caplog):
    nearly = rotated(QFORM, degrees=0.1, shift_mm=(0.1, 0.1, 0.1))
    volume = read_volume(save(path, sform=nearly, scode=2))
    assert volume.warnings == ()
    assert not caplog.text
    mask = save(path.with_name("mask.nii"), qform=nearly, sform=nearly, qcode=0, scode=2)
    assert grid_difference(volume, read_volume(mask)) is None


@pytest.mark.parametrize("from_file", [False, True])
def test_an_affine_that_was_changed_in_memory_is_used(path, from_file):
    image = nib.load(save(path)) if from_file else nib.Nifti1Image(np.ones(SHAPE), QFORM)
    image.affine[:3, 3] += [5, 6, 7]
    image.affine[:3, 0] *= 2
    volume = volume_of(image, path)
    np.testing.assert_allclose(volume.affine, image.affine)
    np.testing.assert_allclose(volume.header.get_zooms()[:3], [2, 2, 3])
    np.testing.assert_allclose(image.header.get_zooms()[:3], [1, 2, 3])  # not changed


def test_a_mask_with_the_other_geometry_of_its_scan_is_on_its_grid(path, tmp_path):
    """Programs that prefer the sform write it as the only geometry of the mask."""
    scan = read_volume(save(path, sform=rotated(QFORM), scode=2))
    for geometry, fits in ((QFORM, True), (rotated(QFORM), True), (rotated(QFORM, -8), False)):
        mask = save(tmp_path / "mask.nii", qform=geometry, sform=geometry, qcode=0, scode=2)
        assert (grid_difference(scan, read_volume(mask)) is None) == fits


def test_an_output_keeps_both_geometries_of_its_scan(path, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    scan = read_volume(save(path, sform=rotated(QFORM), scode=2))
    output = tmp_path / "mask.nii.gz"
    write_volume(output, np.zeros(SHAPE, np.uint8), scan)
    np.testing.assert_allclose(nib.load(output).affine, nib.load(path).affine, atol=1e-6)
    for image in (sitk.ReadImage(str(output)),):
        assert image.GetOrigin() == sitk.ReadImage(str(path)).GetOrigin()
        assert image.GetDirection() == sitk.ReadImage(str(path)).GetDirection()
    np.testing.assert_array_equal(read_volume(output).affine, scan.affine)


def test_voxel_sizes_that_contradict_the_sform_are_refused_with_both(path):
    save(path, sform=QFORM, qcode=0, pixdim=[1, 2, 4, 6, 0, 0, 0, 0])
    with pytest.raises(InputError, match=r"pixdim \(2, 4, 6\) mm and sform \(1, 2, 3\) mm"):
        read_volume(path)
    save(path, sform=QFORM, qcode=0, pixdim=[1, 1.001, 2, 3, 0, 0, 0, 0])
    assert read_volume(path).array.shape == SHAPE


def test_a_quaternion_that_rounding_made_too_long_is_read_as_itk_reads_it(path):
    sitk = pytest.importorskip("SimpleITK")
    turn = {"quatern_b": 0.6002, "quatern_c": 0.8003, "quatern_d": 0.0}
    save(path, scode=0, **turn)
    image = sitk.ReadImage(str(path))
    direction = LPS[:3, :3] @ np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    volume = read_volume(path)
    np.testing.assert_allclose(volume.affine[:3, :3], direction, atol=1e-5)
    output = path.with_name("output.nii")
    write_volume(output, np.zeros(SHAPE, np.uint8), volume)
    np.testing.assert_allclose(nib.load(output).affine, volume.affine, atol=1e-5)


@pytest.mark.parametrize("value", [1.2, np.nan])
def test_a_quaternion_that_is_far_too_long_is_refused_by_name(path, value):
    save(path, scode=0, quatern_b=value)
    with pytest.raises(InputError, match="quatern_b"):
        read_volume(path)


@pytest.mark.parametrize("trailing", [(1,), (1, 1)])
def test_trailing_dimensions_of_1_are_harmless(path, trailing):
    array = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    nib.save(nib.Nifti1Image(array.reshape(*SHAPE, *trailing), QFORM), path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array)
    write_volume(path.with_name("output.nii.gz"), np.ones(SHAPE, np.uint8), volume)
    assert nib.load(path.with_name("output.nii.gz")).shape == SHAPE


@pytest.mark.parametrize("offset", [0, 348, 351])
def test_voxels_that_would_start_inside_the_header_are_refused(path, offset):
    with pytest.raises(InputError, match=f"vox.offset.*{offset}"):
        read_volume(save(path, vox_offset=offset))


@pytest.mark.parametrize("name", ["scan.hdr", "scan.img"])
def test_a_pair_of_header_and_image_is_read_under_both_names(tmp_path, name):
    array = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    nib.save(nib.Nifti1Pair(array, QFORM), tmp_path / "scan.hdr")
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, QFORM)
    write_volume(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8), volume)
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii.gz").affine, QFORM)


def test_an_analyze_image_is_refused(tmp_path):
    nib.save(nib.AnalyzeImage(np.ones(SHAPE, np.float32), np.eye(4)), tmp_path / "old.hdr")
    with pytest.raises(InputError, match="Expected a 3-D NIfTI image"):
        read_volume(tmp_path / "old.hdr")


@pytest.mark.parametrize("name", ["SCAN.NII.GZ", "Scan.Nii.Gz", "scan.nii.GZ", "SCAN.NII", "a.Nii"])
def test_suffixes_may_be_in_upper_case(tmp_path, name):
    array = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    plain = tmp_path / ("plain.nii.gz" if name.lower().endswith("gz") else "plain.nii")
    nib.save(nib.Nifti1Image(array, QFORM), plain)
    plain.rename(tmp_path / name)
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, QFORM)
    output = tmp_path / f"out_{name}"
    write_volume(output, np.ones(SHAPE, np.uint8), volume)
    np.testing.assert_array_equal(read_volume(output).array, np.ones(SHAPE))
