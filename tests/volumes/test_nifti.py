import contextlib
import gzip

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from msseg_jax.system.errors import InputError
from msseg_jax.volumes.grids import grid_difference
from msseg_jax.volumes.nifti import check_finite, read_volume, write_volume
from msseg_jax.volumes.resampling import Resampling, resampling_to
from msseg_jax.volumes.stored_size import check_stored_size
from tests.support.patients import save_nifti


@pytest.fixture
def oblique(tmp_path):
    """Write a rotated, anisotropic int16 volume with codes as a scanner writes them."""
    affine = np.array([[0.7, 0.1, 0, -60], [-0.1, 0.7, 0.2, 4], [0, -0.2, 2.9, 8], [0, 0, 0, 1.0]])
    array = np.arange(13 * 14 * 15, dtype=np.int16).reshape(13, 14, 15)
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 2)
    image.set_qform(None, 0)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "oblique.nii.gz")
    return tmp_path / "oblique.nii.gz"


def test_a_round_trip_keeps_values_grid_codes_and_units(oblique, tmp_path):
    volume = read_volume(oblique)
    write_volume(tmp_path / "copy.nii.gz", volume.array, volume)
    copy = nib.load(tmp_path / "copy.nii.gz")
    np.testing.assert_array_equal(copy.get_fdata(), np.arange(13 * 14 * 15).reshape(13, 14, 15))
    np.testing.assert_array_equal(copy.affine, nib.load(oblique).affine)
    assert int(copy.header["sform_code"]) == 2
    assert int(copy.header["qform_code"]) == 0
    assert copy.header.get_xyzt_units() == ("mm", "sec")
    assert copy.get_data_dtype() == np.float32


def test_a_scaled_input_does_not_scale_the_output(tmp_path):
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    image.header["cal_max"] = 99
    nib.save(image, tmp_path / "scaled.nii")
    mask = np.eye(4, dtype=np.uint8)[None].repeat(4, 0)
    write_volume(tmp_path / "mask.nii.gz", mask, read_volume(tmp_path / "scaled.nii"))
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(written.get_fdata(), mask)
    assert float(written.header["cal_max"]) == 0


def test_nifti_2_stays_nifti_2(tmp_path):
    nib.save(nib.Nifti2Image(np.ones((3, 4, 5), np.float32), np.eye(4)), tmp_path / "two.nii.gz")
    volume = read_volume(tmp_path / "two.nii.gz")
    write_volume(tmp_path / "out.nii.gz", volume.array, volume)
    assert isinstance(nib.load(tmp_path / "out.nii.gz"), nib.Nifti2Image)


def test_nothing_is_left_of_a_write_that_fails(oblique, tmp_path):
    volume = read_volume(oblique)
    (tmp_path / "out.nii.gz").write_bytes(b"old")
    with pytest.raises(nib.spatialimages.HeaderDataError):
        write_volume(tmp_path / "out.nii.gz", volume.array.astype("U1"), volume)
    assert (tmp_path / "out.nii.gz").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["oblique.nii.gz", "out.nii.gz"]


def test_invalid_names_and_folders_of_outputs_are_refused(oblique, tmp_path):
    volume = read_volume(oblique)
    with pytest.raises(InputError, match=r"out.mgz: expected a name that ends in .nii.gz"):
        write_volume(tmp_path / "out.mgz", volume.array, volume)
    write_volume(tmp_path / "absent" / "out.nii.gz", volume.array, volume)  # makes the folder
    with pytest.raises(InputError, match="cannot be written"):
        write_volume(tmp_path / "absent" / "out.nii.gz" / "out.nii.gz", volume.array, volume)


def _four_dimensions(path):
    save_nifti(path, np.zeros((3, 4, 5, 2), np.float32))


def _complex(path):
    save_nifti(path, np.zeros((3, 4, 5), np.complex64))


def _rgb(path):
    save_nifti(path, np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]))


def _truncated(path):
    noise = np.random.default_rng(0).normal(size=(30, 30, 30)).astype(np.float32)
    path.write_bytes(save_nifti(path, noise).read_bytes()[:5000])


def _no_nifti(path):
    path.write_bytes(gzip.compress(b"not an image" * 100))


def _no_gzip(path):
    path.write_bytes(b"not an image" * 100)


def _patch_header(path, offset, content):
    file = bytearray(gzip.decompress(save_nifti(path, np.ones((3, 4, 5), "i2")).read_bytes()))
    file[offset : offset + len(content)] = content
    path.write_bytes(gzip.compress(bytes(file)))


def _zero_voxel_size(path):
    _patch_header(path, 80, np.float32(0).tobytes())  # pixdim[1]


def _negative_voxel_size(path):
    _patch_header(path, 88, np.float32(-1).tobytes())  # pixdim[3]


def _nan_in_the_affine(path):
    _patch_header(path, 280 + 12, np.float32(np.nan).tobytes())  # srow_x[3]


def _bad_sizeof_data(path):
    _patch_header(path, 42, np.int16(-5).tobytes())  # dim[1]


def _micrometres(path):
    _patch_header(path, 123, b"\x03")  # xyzt_units


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: None, "no such file"),
        (_four_dimensions, r"has 4 dimensions, \(3, 4, 5, 2\)\. Expected 3"),
        (_complex, "voxels are complex"),
        (_rgb, "voxels are RGB"),
        (_truncated, "truncated or damaged"),
        (_no_nifti, "is not a readable NIfTI image"),
        (_no_gzip, "is not a readable NIfTI image"),
        (lambda path: path.mkdir(), r"is a folder\. Expected a 3-D NIfTI image"),
        (_zero_voxel_size, r"voxel size is \(0, 1, 0.8"),
        (_negative_voxel_size, r"voxel size is \(1, 1, -1\)"),
        (_nan_in_the_affine, "finite affine"),
        (_bad_sizeof_data, "image.nii.gz: "),
        (_micrometres, r"its unit of length is micron\. Expected mm"),
    ],
)
def test_an_invalid_file_is_refused_with_its_name(tmp_path, spoil, message):
    path = tmp_path / "image.nii.gz"
    spoil(path)
    with pytest.raises(InputError, match=message) as error:
        read_volume(path)
    assert str(path) in str(error.value)


def test_voxels_that_are_not_finite_are_refused(tmp_path):
    array = np.ones((3, 4, 5), np.float32)
    array[0, 0, :2] = np.nan, np.inf
    with pytest.raises(InputError, match="2 voxels are NaN or infinite"):
        check_finite(read_volume(save_nifti(tmp_path / "nan.nii.gz", array)))


def test_grids_that_differ_in_shape_or_position_are_recognised(tmp_path):
    ones = np.ones((3, 4, 5), np.float32)
    one = read_volume(save_nifti(tmp_path / "one.nii.gz", ones))
    same = read_volume(save_nifti(tmp_path / "same.nii.gz", ones, (1.0, 1.0, 0.80001)))
    shorter = read_volume(save_nifti(tmp_path / "shorter.nii.gz", ones[:2]))
    coarser = read_volume(save_nifti(tmp_path / "coarser.nii.gz", ones, (1.0, 1.5, 0.8)))
    assert grid_difference(one, same) is None
    assert "shorter.nii.gz has (2, 4, 5) voxels" in grid_difference(one, shorter)
    assert "up to 1.50 mm away" in grid_difference(one, coarser)  # 3 voxels, each larger by 0.5 mm


def test_resampling_to_the_same_spacing_changes_nothing():
    array = np.random.default_rng(0).normal(size=(13, 14, 15)).astype(np.float32)
    resampling = resampling_to(0.8, array.shape, np.array([0.8, 0.8, 0.8]))
    assert resampling.new_shape == (13, 14, 15)
    np.testing.assert_array_equal(resampling.forward(array), array)
    np.testing.assert_array_equal(resampling.backward(array), array)


def test_resampling_keeps_a_constant_and_covers_the_field_of_view():
    resampling = resampling_to(0.8, (13, 14, 15), np.array([0.5, 0.75, 3.0]))
    assert resampling.new_shape == (9, 14, 57)  # 6.5, 10.5 and 45 mm, rounded up
    forward = resampling.forward(np.full((13, 14, 15), 7, np.float32))
    np.testing.assert_allclose(forward, 7, rtol=1e-6)
    np.testing.assert_allclose(resampling.backward(forward), 7, rtol=1e-6)


def test_a_ramp_in_mm_is_a_ramp_on_both_grids():
    """Linear interpolation is exact for a linear image, so errors can only come from positions."""
    resampling = resampling_to(0.8, (20, 14, 15), np.array([0.5, 0.75, 3.0]))
    for axis, spacing_mm in enumerate((0.5, 0.75, 3.0)):
        shape, new_shape = resampling.old_shape, resampling.new_shape
        old_mm = (np.arange(shape[axis]) - (shape[axis] - 1) / 2) * spacing_mm
        new_mm = (np.arange(new_shape[axis]) - (new_shape[axis] - 1) / 2) * 0.8
        column = [1, 1, 1]
        column[axis] = -1
        ramp = np.broadcast_to(old_mm.reshape(column), shape).astype(np.float32)
        line = np.moveaxis(resampling.forward(ramp), axis, 0)[:, 3, 3]
        np.testing.assert_allclose(line, np.clip(new_mm, old_mm[0], old_mm[-1]), atol=1e-5)


def test_the_new_affine_matches_the_positions_from_which_voxels_are_resampled():
    """An image of scanner x, y or z must stay one after it is resampled to the new grid."""
    turn = np.radians(20)
    old_affine = np.diag([0.5, -0.75, 3.0, 1.0])
    old_affine[:2, :2] = old_affine[:2, :2] @ [
        [np.cos(turn), -0.75 / 0.5 * np.sin(turn)], [0.5 / 0.75 * np.sin(turn), np.cos(turn)],
    ]  # fmt: skip
    old_affine[:3, 3] = (-7, 11, 3)
    resampling = resampling_to(0.8, (20, 14, 15), nib.affines.voxel_sizes(old_affine))
    new_affine = resampling.new_affine(old_affine)
    np.testing.assert_allclose(nib.affines.voxel_sizes(new_affine), 0.8)

    def places_mm(affine, shape):
        return nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))

    inside = np.s_[4:-4, 4:-4, 4:-4]  # away from the ends, where values are repeated
    for axis in range(3):
        image = places_mm(old_affine, resampling.old_shape)[..., axis].astype(np.float32)
        expected = places_mm(new_affine, resampling.new_shape)[..., axis]
        np.testing.assert_allclose(resampling.forward(image)[inside], expected[inside], atol=1e-4)


def test_three_passes_in_1d_equal_trilinear_interpolation():
    array = np.random.default_rng(1).normal(size=(9, 10, 11)).astype(np.float32)
    resampling = resampling_to(0.8, array.shape, np.array([0.5, 1.1, 2.0]))
    centres = [
        (np.arange(new) - (new - 1) / 2) * scale + (old - 1) / 2
        for new, old, scale in zip(resampling.new_shape, array.shape, resampling.scale, strict=True)
    ]
    expected = map_coordinates(array, np.meshgrid(*centres, indexing="ij"), order=1, mode="nearest")
    np.testing.assert_allclose(resampling.forward(array), expected, atol=1e-5)


def test_resampled_labels_keep_their_values_and_type():
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[3:7, 3:7, 3:7] = 1
    halved = Resampling((10, 10, 10), (20, 20, 20), np.array([0.5, 0.5, 0.5]))
    result = halved.forward_labels(labels)
    assert result.dtype == np.uint8
    assert result.sum() == 8 * labels.sum()  # each voxel becomes 2 x 2 x 2
    assert result[6:14, 6:14, 6:14].all()


def _uncompressed(path, array=None):
    """Write a volume, and return its bytes before compression."""
    array = np.arange(60, dtype="i2").reshape(3, 4, 5) if array is None else array
    return bytearray(gzip.decompress(save_nifti(path, array).read_bytes()))


def test_a_compressed_file_with_a_wrong_checksum_is_refused(tmp_path):
    path = tmp_path / "a.nii.gz"
    content = _uncompressed(path, np.arange(1000, dtype="i2").reshape(10, 10, 10))
    packed = bytearray(gzip.compress(bytes(content), 0))  # stored, not deflated
    path.write_bytes(packed)
    assert read_volume(path).array[9, 9, 9] == 999
    packed[-20] ^= 1  # a voxel
    path.write_bytes(packed)
    with pytest.raises(
        InputError, match=r"a\.nii\.gz: cannot be read to its end \(CRC check failed"
    ):
        read_volume(path)


@pytest.mark.parametrize("name", ["a.nii.gz", "A.Nii.Gz"])
def test_a_file_that_cannot_hold_its_voxels_is_refused_before_they_are_read(tmp_path, name):
    path = tmp_path / name
    content = _uncompressed(tmp_path / "a.nii.gz")
    content[42:48] = np.array([20_000, 20_000, 300], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    message = r"announces \(20000, 20000, 300\) voxels of type int16, which take 240000000352 bytes"
    with pytest.raises(InputError, match=message):
        read_volume(path)


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = tmp_path / "bomb.nii.gz"
    content = _uncompressed(path)
    content[42:48] = np.array([1000, 1000, 400], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(content)) + gzip.compress(bytes(10**6)) * 800)
    with pytest.raises(InputError, match=r"bytes, and its \(1000, 1000, 400\) voxels would need"):
        read_volume(path)


@pytest.mark.parametrize(("slope", "is_allowed"), [(np.nan, True), (1, True), (2, False)])
def test_memory_for_scaling_counts_only_if_the_voxels_are_scaled(tmp_path, slope, is_allowed):
    """Check the empty mask of a head at 0.5 mm. Many programs write a slope of 1."""
    path = tmp_path / "empty.nii.gz"
    path.write_bytes(gzip.compress(bytes(512 * 512 * 320)))
    image = nib.Nifti1Image(np.broadcast_to(np.uint8(0), (512, 512, 320)), np.eye(4))
    image.header["scl_slope"] = slope
    image.header["scl_inter"] = 0
    refusal = pytest.raises(InputError, match="would need 1090519392 bytes of memory")
    with contextlib.nullcontext() if is_allowed else refusal:
        check_stored_size(path, image, path, 352)


def test_an_empty_mask_of_a_fine_grid_is_read(tmp_path):
    path = tmp_path / "empty.nii.gz"
    save_nifti(path, np.zeros((512, 512, 160), np.uint8))
    assert path.stat().st_size < 50_000 + 512 * 512 * 160 // 200
    assert not read_volume(path).array.any()


def test_a_volume_without_voxels_is_refused(tmp_path):
    path = tmp_path / "none.nii.gz"
    content = _uncompressed(path)
    content[44:46] = np.int16(0).tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(InputError, match=r"has \(3, 0, 5\) voxels. Expected at least one"):
        read_volume(path)


@pytest.mark.parametrize(("name", "place"), [("qform_code", 252), ("sform_code", 254)])
def test_an_unknown_code_of_the_geometry_is_refused(tmp_path, name, place):
    path = tmp_path / "code.nii.gz"
    content = _uncompressed(path)
    content[place : place + 2] = np.int16(544).tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(InputError, match=f"{name} of its header is 544. Expected 0 to 5"):
        read_volume(path)


def test_voxels_that_are_kilometres_long_are_refused_before_resampling():
    message = r"\(4, 5, 6\) voxels of \(1, 1, 1e\+06\) mm would become 1.2e\+08 voxels of 1 mm"
    with pytest.raises(InputError, match=message):
        resampling_to(1.0, (4, 5, 6), np.array([1.0, 1.0, 1e6]))
    assert resampling_to(0.5, (256, 256, 30), np.array([1.0, 1.0, 6.0])).new_shape == (
        512,
        512,
        360,
    )


def test_a_pair_of_files_that_lacks_one_is_refused_with_its_name(tmp_path):
    nib.save(nib.Nifti1Pair(np.ones((4, 5, 6), np.float32), np.eye(4)), tmp_path / "A.hdr")
    (tmp_path / "A.img").unlink()
    expected = r"A\.img: no such file\. A\.hdr is one of two files, \.hdr and \.img"
    with pytest.raises(InputError, match=expected):
        read_volume(tmp_path / "A.hdr")


def test_values_that_are_too_large_to_compute_with_are_refused(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", np.full((4, 5, 6), 1e30, np.float32))
    with pytest.raises(InputError, match=r"the largest value is 1e\+30\. Expected at most 1e\+12"):
        check_finite(read_volume(path))
