import re
import struct

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from msseg_jax.prepare.dicom.reading import read_series
from msseg_jax.prepare.dicom.series import list_series
from msseg_jax.prepare.scan import read_scan
from msseg_jax.system.errors import InputError
from tests.support.dicom import (
    TURNED,
    check_same,
    make_image,
    set_raw,
    write_enhanced,
    write_series,
)

# ---------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), TURNED])
def test_reading_a_series_returns_the_image_that_was_written(tmp_path, direction):
    image = make_image(direction=direction)
    found = read_series(write_series(tmp_path, image))
    check_same(found.image, image)
    assert found.image.GetPixelID() == sitk.sitkFloat32
    assert found.said == "series 5: 't2 flair', MR, 12 files, UID 1.2.3"


def test_names_of_files_and_folders_do_not_matter(tmp_path):
    image = make_image(direction=TURNED)
    folder = tmp_path / "Müller, Jörg  2 (MS)"
    write_series(folder, image)
    shuffled = np.random.default_rng(0).permutation(12)
    for path, number in zip(sorted(folder.iterdir()), shuffled, strict=True):
        deeper = folder / f"part {number % 3}" / "ä"
        deeper.mkdir(parents=True, exist_ok=True)
        path.rename(deeper / f"{number:X}")
    check_same(read_series(folder).image, image)


@pytest.mark.parametrize("axis", [0, 2])
def test_slices_are_sorted_along_their_normal(tmp_path, axis):
    """Write an image with left-handed axes. DICOM files hold only right-handed axes."""
    mirrored = np.array(TURNED).reshape(3, 3)
    mirrored[:, axis] *= -1
    image = make_image(direction=mirrored.ravel().tolist())
    found = read_series(write_series(tmp_path, image)).image
    array = sitk.GetArrayFromImage(found)
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(image)[::-1])
    for k in (0, 11):
        there = image.TransformIndexToPhysicalPoint((3, 2, 11 - k))
        assert found.TransformIndexToPhysicalPoint((3, 2, k)) == pytest.approx(there, abs=1e-3)


@pytest.mark.parametrize(("spacing_mm", "digits", "atol"), [(1.2345, 2, 0.01), (4.0333, 1, 0.1)])
def test_rounded_positions_are_not_reported_as_gaps(tmp_path, spacing_mm, digits, atol):
    image = make_image(30, (1.0, 1.0, spacing_mm))
    found = read_series(write_series(tmp_path, image, digits=digits)).image
    check_same(found, image, atol)


def insert_rescale(path, slope, intercept):
    """Insert the tags for rescaling before the voxels of a DICOM file.

    For MR, SimpleITK does not write these tags, or writes 0 and 1.
    """
    content = path.read_bytes()
    voxels = content.index(b"\xe0\x7f\x10\x00")
    written = content.find(b"\x28\x00\x52\x10")
    added = b""
    for element, value in ((0x1052, intercept), (0x1053, slope)):
        added += struct.pack("<HHI", 0x28, element, 8) + f"{value:<8}".encode()
    path.write_bytes(content[: written if written > 0 else voxels] + added + content[voxels:])


def test_each_slice_is_rescaled_by_its_own_slope_and_intercept(tmp_path):
    image = make_image()
    write_series(tmp_path, image)
    for k, path in enumerate(sorted(tmp_path.iterdir())):
        insert_rescale(path, 0.5 if k % 2 else 3, -k)
    found = sitk.GetArrayFromImage(read_series(tmp_path).image)
    stored = sitk.GetArrayFromImage(image).astype(float)
    for k in range(12):
        np.testing.assert_array_equal(found[k], stored[k] * (0.5 if k % 2 else 3) - k)


def compressing_writer():
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG2000")
    return writer


def test_a_compressed_series_is_read(tmp_path):
    image = make_image()
    write_series(tmp_path, image, writer=compressing_writer())
    assert b"1.2.840.10008.1.2.4.90" in (tmp_path / "IM000").read_bytes()
    check_same(read_series(tmp_path).image, image)


# ----------------------------------------------------------------------- choosing a series


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Write three series into one folder, as a PACS exports them."""
    folder = tmp_path_factory.mktemp("study")
    for factor, number, description, slices in (
        (1, "4", "t1 mprage", 13), (2, "12", "t2 FLAIR sag post", 12), (3, "5", "t2 FLAIR sag", 11),
    ):  # fmt: skip
        image = make_image(slices) * factor
        write_series(folder, image, f"1.2.{number}", number, description, f"{number}_{{}}")
    return folder


@pytest.mark.parametrize(
    ("pick", "factor"),
    [("4", 1), ("12", 2), ("5", 3), ("1.2.12", 2), ("MPRage", 1), ("sag post", 2)],
)
def test_a_series_is_picked_by_number_uid_or_part_of_its_description(study, pick, factor):
    image = read_series(study, pick).image
    array = sitk.GetArrayFromImage(image)
    assert array.shape[0] == {1: 13, 2: 12, 3: 11}[factor]
    assert array[0, 0, :4].tolist() == [0, factor, 2 * factor, 3 * factor]


@pytest.mark.parametrize(
    ("pick", "said"),
    [
        (None, "contains 3 series; expected one. Choose one with --series=NUMBER"),
        ("flair", "--series=flair matches 2 of the series"),
        ("swi", "--series=swi matches 0 of the series"),
    ],
)
def test_all_series_are_listed_if_the_choice_is_not_clear(study, pick, said):
    with pytest.raises(InputError) as error:
        read_series(study, pick)
    first, *listed = str(error.value).splitlines()
    assert first.startswith(f"{study}: {said}")
    assert listed == [  # sorted by number, not as text
        "  series 4: 't1 mprage', MR, 13 files, UID 1.2.4",
        "  series 5: 't2 FLAIR sag', MR, 11 files, UID 1.2.5",
        "  series 12: 't2 FLAIR sag post', MR, 12 files, UID 1.2.12",
    ]


def test_a_matching_number_takes_precedence_over_a_matching_description(tmp_path):
    write_series(tmp_path, make_image(), "1.2.8", "8", "flair 3 mm", "a{}")
    write_series(tmp_path, make_image(), "1.2.9", "3", "flair", "b{}")
    assert "UID 1.2.9" in read_series(tmp_path, "3").said
    assert "UID 1.2.8" in read_series(tmp_path, "3 mm").said


def test_a_number_that_two_series_share_is_refused(tmp_path):
    write_series(tmp_path, make_image(), "1.2.3", name="a{}")
    write_series(tmp_path, make_image(), "1.2.4", name="b{}")
    with pytest.raises(InputError, match=r"--series=5 matches 2 (.|\n)*1\.2\.3\n(.|\n)*1\.2\.4"):
        read_series(tmp_path, "5")
    assert "UID 1.2.4" in read_series(tmp_path, "1.2.4").said


def test_a_scout_in_the_same_folder_is_ignored(tmp_path):
    image = make_image()
    write_series(tmp_path, image)
    for k, direction in enumerate([(1, 0, 0, 0, 1, 0, 0, 0, 1), TURNED, TURNED[3:] + TURNED[:3]]):
        write_series(
            tmp_path, make_image(1, direction=direction), "1.2.1", "1", "scout", "scout{}", k
        )
    assert len(list_series(tmp_path)) == 2
    check_same(read_series(tmp_path).image, image)


@pytest.mark.parametrize(
    ("charset", "encoding", "description"),
    [
        ("ISO_IR 100", "latin-1", "FLAIR Schädel"),
        ("ISO 2022 IR 100", "latin-1", "FLAIR Schädel"),
        ("ISO_IR 192", "utf-8", "FLAIR Hälfte 頭"),
        ("ISO_IR 144", "iso8859_5", "FLAIR голова"),
        (None, "latin-1", "FLAIR Schädel"),  # against the standard, but usual
        ("ISO_IR 999", "latin-1", "FLAIR Schädel"),  # does not exist
    ],
)
def test_a_description_is_decoded_by_its_character_set(tmp_path, charset, encoding, description):
    write_series(tmp_path, make_image())
    set_raw(tmp_path, SpecificCharacterSet=(charset or "").encode())
    set_raw(tmp_path, SeriesDescription=description.encode(encoding))
    (series,) = list_series(tmp_path)
    assert series.labels.description == description
    word = description.split()[1]
    assert f"'{description}', MR, 12 files" in read_series(tmp_path, word.upper()).said


def test_escape_sequences_of_iso_2022_are_decoded(tmp_path):
    write_series(tmp_path, make_image())
    set_raw(tmp_path, SpecificCharacterSet=rb"\ISO 2022 IR 87")
    set_raw(tmp_path, SeriesDescription="頭".encode("iso2022_jp"))
    assert list_series(tmp_path)[0].labels.description == "頭"


def test_control_characters_of_a_description_do_not_reach_the_terminal(tmp_path):
    write_series(tmp_path, make_image())
    set_raw(tmp_path, SeriesDescription=b"\x1b[31mred\n\r\x07", SeriesInstanceUID=b"1.2\x1b[0m\n")
    assert read_series(tmp_path).said == "series 5: '[31mred', MR, 12 files, UID 1.2 [0m"


# ------------------------------------------------------------------------- refused series


def test_missing_slices_are_described_by_the_slices_around_them(tmp_path):
    write_series(tmp_path, make_image())  # slices every 4 mm, starting at 7.25 mm
    (tmp_path / "IM005").unlink()
    with pytest.raises(InputError) as error:
        read_series(tmp_path)
    assert "series 5: 't2 flair', MR, 11 files" in str(error.value)
    assert (
        "slices are 4.00 mm apart, except between IM004 (23.2 mm) and IM006 (31.2 mm); expected "
        "the same distance everywhere, so slices are probably missing"
    ) in str(error.value)


def test_only_the_first_of_many_gaps_are_named(tmp_path):
    write_series(tmp_path, make_image(30))
    for k in (2, 5, 8, 11, 14, 17, 20):
        (tmp_path / f"IM{k:03}").unlink()
    with pytest.raises(InputError, match=r"IM013 .* and IM015 .* and 2 more; expected") as error:
        read_series(tmp_path)
    assert str(error.value).count("between") == 5


def test_refuses_slices_with_a_changing_distance(tmp_path):
    image = make_image()
    upper = image[:, :, 6:]
    upper.SetOrigin((-20.5, 30.0, 7.25 + 6 * 4 + 0.42))
    write_series(tmp_path, image[:, :, :6])
    write_series(tmp_path, upper, first=6)
    with pytest.raises(InputError, match=r"IM005 \(27\.2 mm\) and IM006 \(31\.7 mm\); expected"):
        read_series(tmp_path)


def test_refuses_a_duplicate_slice(tmp_path):
    write_series(tmp_path, make_image())
    (tmp_path / "copy").write_bytes((tmp_path / "IM007").read_bytes())
    message = r"1 slices have the same position as another one \((.*)\)"
    with pytest.raises(InputError, match=message) as error:
        read_series(tmp_path)
    assert "IM007" in str(error.value)
    assert "copy" in str(error.value)


def test_refuses_two_volumes_in_a_series(tmp_path):
    write_series(tmp_path, make_image())
    write_series(tmp_path, make_image(), first=12)
    with pytest.raises(InputError, match=r"24 files.*12 slices have the same position"):
        read_series(tmp_path)


def test_refuses_slices_of_different_orientations(tmp_path):
    write_series(tmp_path, make_image())
    write_series(tmp_path, make_image(1, direction=TURNED), first=12)
    with pytest.raises(InputError, match=r"13 files.*differ in orientation or size"):
        read_series(tmp_path)


@pytest.mark.parametrize("first", [12, -1])
def test_a_single_slice_that_does_not_belong_is_named_wherever_it_is_sorted(tmp_path, first):
    write_series(tmp_path, make_image(), name="M{:03}")
    name = "Z_reference_{}" if first > 0 else "A_reference_{}"
    write_series(tmp_path, make_image(1, direction=TURNED), first=99, name=name)
    with pytest.raises(InputError) as error:
        read_series(tmp_path)
    assert "from the other 12 slices" in str(error.value)
    assert "_reference_" in str(error.value)
    assert "M0" not in str(error.value)


def test_half_of_the_slices_in_another_orientation_are_another_series(tmp_path):
    write_series(tmp_path, make_image())
    write_series(tmp_path, make_image(12, direction=TURNED), first=12)
    with pytest.raises(InputError, match="Choose another series"):
        read_series(tmp_path)


def test_refuses_slices_of_different_sizes(tmp_path):
    image = make_image(13)
    write_series(tmp_path, image[:, :, :12])
    write_series(tmp_path, image[:7, :, 12:], first=12)
    with pytest.raises(InputError, match="differ in orientation or size"):
        read_series(tmp_path)


def test_refuses_a_stack_that_leans_but_accepts_rounding_of_the_header(tmp_path):
    write_series(tmp_path / "leans", make_image(), shift_mm=(0, 0.7053, 0))  # 4 mm * tan 10 deg
    with pytest.raises(InputError, match=r"leans by 10\.0 degrees \(a tilted gantry\)"):
        read_series(tmp_path / "leans")
    write_series(tmp_path / "rounded", make_image(), shift_mm=(0, 0.007, 0))  # 0.1 degrees
    assert read_series(tmp_path / "rounded").image.GetSize() == (8, 6, 12)


def test_refuses_multi_frame_files_and_says_how_to_convert_them(tmp_path):
    write_enhanced(tmp_path / "IM000", make_image(20))
    with pytest.raises(InputError) as error:
        read_series(tmp_path)
    assert "1 files of 20 frames, UID 1.2.9: has several frames per file" in str(error.value)
    assert "dcm2niix" in str(error.value)


def test_multi_frame_files_are_listed_together_with_other_series(tmp_path):
    write_enhanced(tmp_path / "flair", make_image(20))
    write_series(tmp_path, make_image(), description="t1 mprage")
    with pytest.raises(InputError, match="contains 2 series") as error:
        read_series(tmp_path)
    assert "1 files of 20 frames, UID 1.2.9" in str(error.value)
    assert "t1 mprage" in str(error.value)
    check_same(read_series(tmp_path, "5").image, make_image())


def test_refuses_colour_images(tmp_path):
    grey = sitk.Cast(make_image(), sitk.sitkUInt8)
    write_series(tmp_path, sitk.Compose(grey, grey, grey))
    with pytest.raises(InputError, match="voxels contain colours; expected grey values"):
        read_series(tmp_path)


def test_refuses_fewer_than_ten_slices(tmp_path):
    write_series(tmp_path, make_image(9))
    with pytest.raises(InputError, match=r"9 files.*expected at least 10 slices of a head"):
        read_series(tmp_path)


@pytest.mark.parametrize("number", [0, 5, 11])
@pytest.mark.parametrize("length", [400, -1])
def test_refuses_a_truncated_file_at_any_place_of_the_stack(tmp_path, number, length):
    """Check the ends of the stack, too. There, a missing slice would leave no gap."""
    path = write_series(tmp_path, make_image()) / f"IM{number:03}"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=f"cut off or damaged: {path.name}; expected complete"):
        read_series(tmp_path)


def test_refuses_a_folder_of_truncated_files(tmp_path):
    write_series(tmp_path, make_image(7))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="IM000, IM001, IM002, IM003, IM004 and 2 more"):
        read_series(tmp_path)


def test_refuses_voxels_that_cannot_be_decompressed(tmp_path):
    write_series(tmp_path, make_image(), writer=compressing_writer())
    path = tmp_path / "IM003"
    content = path.read_bytes()
    start = content.index(b"\xff\x4f\xff\x51")  # start of the JPEG 2000 stream
    path.write_bytes(content[:start] + bytes(40) + content[start + 40 :])
    with pytest.raises(InputError, match=r"cannot be read .*It is damaged, or compressed"):
        read_series(tmp_path)


# -------------------------------------------------------------------------- ignored files


def add_stray_files(folder):
    """Add files that exports often contain: text, an empty file, a cut-off index and report."""
    (folder / "README.txt").write_text("exported on Monday")
    (folder / "empty").write_bytes(b"")
    (folder / "._IM0001").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X" + bytes(100))
    for name, kind in (
        ("DICOMDIR", b"1.2.840.10008.1.3.10"),
        ("SR", b"1.2.840.10008.5.1.4.1.1.88"),
    ):
        group = struct.pack("<HH2sH", 2, 2, b"UI", len(kind)) + kind
        length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(group))
        (folder / name).write_bytes(bytes(128) + b"DICM" + length + group + b"\x04\x00")
    return folder


def test_files_that_are_not_slices_are_ignored(tmp_path):
    image = make_image()
    write_series(tmp_path, image)
    check_same(read_series(add_stray_files(tmp_path)).image, image)


@pytest.mark.parametrize("fill", [lambda folder: folder, add_stray_files])
def test_refuses_a_folder_without_slices_and_names_it(tmp_path, fill):
    folder = re.escape(str(fill(tmp_path)))
    with pytest.raises(InputError, match=f"^{folder}: contains no DICOM image"):
        read_series(tmp_path)


def test_a_dicom_file_instead_of_its_folder_is_refused_with_the_folder(tmp_path):
    folder = write_series(tmp_path / "visit", make_image(), name="IM{:03}.dcm")
    expected = rf"IM003\.dcm: is one DICOM file.*Give {re.escape(str(folder))} instead"
    with pytest.raises(InputError, match=expected):
        read_scan(folder / "IM003.dcm")


@pytest.mark.parametrize("numbers", [range(12, 0, -1), range(101, 113)])
def test_the_slices_have_the_numbers_of_their_series(tmp_path, numbers):
    folder = write_series(tmp_path, make_image())
    for path, number in zip(sorted(folder.iterdir()), numbers, strict=True):
        with_number(path, number)
    assert read_series(folder).slice_numbers == tuple(numbers)


def test_numbers_that_are_missing_or_occur_twice_are_left_out(tmp_path):
    folder = write_series(tmp_path, make_image())
    paths = sorted(folder.iterdir())
    for path in paths:
        with_number(path, 3)
    assert read_series(folder).slice_numbers == ()
    for number, path in enumerate(paths):
        with_number(path, number or None)
    assert read_series(folder).slice_numbers == ()


def with_number(path, number):
    """Write an InstanceNumber into a file; None deletes it."""
    dataset = pydicom.dcmread(path)
    if number is None:
        del dataset.InstanceNumber
    else:
        dataset.InstanceNumber = number
    dataset.save_as(path)
