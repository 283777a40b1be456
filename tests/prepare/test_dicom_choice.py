"""Test the choice of a series without a number, and of one of several stacks in a series."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from msseg_jax.prepare.dicom.reading import read_series
from msseg_jax.system.errors import InputError
from tests.support.dicom import TURNED, check_same, make_image, set_raw, write_series


def message(folder, *picks):
    with pytest.raises(InputError) as error:
        read_series(folder, *picks)
    return str(error.value)


def write_stack(folder, factor, slices=12, first=0, **values):
    """Write a stack into a series, with a factor on its voxels and other values in its headers."""
    part = folder / f"stack {factor}"
    write_series(part, make_image(slices) * factor, first=100 * factor + first)
    set_raw(part, **values)
    return part


def factor_of(found) -> int:
    """Return the factor of the stack that was read."""
    return int(sitk.GetArrayFromImage(found.image)[0, 0, 1])


# ------------------------------------------------------------------- damage in other series


@pytest.fixture
def with_derived(tmp_path):
    """Write a good series, and another one of which one image has no position."""
    write_series(tmp_path / "flair", make_image(), "1.2.1", number="5", description="flair")
    other = write_series(tmp_path / "mip", make_image() * 2, "1.2.2", number="6", description="mip")
    set_raw(other / "IM004", ImagePositionPatient=None)
    return tmp_path


def test_a_damaged_file_of_another_series_does_not_matter_if_a_series_is_chosen(with_derived):
    assert factor_of(read_series(with_derived, "flair")) == 1


@pytest.mark.parametrize("pick", [None, "mip", "nothing"])
def test_a_damaged_file_that_may_be_needed_is_named(with_derived, pick):
    said = message(with_derived, pick)
    assert f"cut off or damaged: {Path('mip', 'IM004')}; expected complete files" in said
    assert "ImagePositionPatient is missing" in said
    assert "choose yours with --series" in said


def test_a_damaged_file_without_a_series_may_belong_to_the_chosen_one(with_derived):
    set_raw(with_derived / "mip" / "IM004", SeriesInstanceUID=None)
    assert "IM004; expected complete files" in message(with_derived, "flair")


# ------------------------------------------------------------------ series without a number


@pytest.fixture
def unnumbered(tmp_path):
    """Write four series: one with a number, two without one, and one without number and UID."""
    for factor, name in enumerate(("t1", "flair", "flair post", ""), start=1):
        folder = write_series(tmp_path / str(factor), make_image() * factor, f"1.2.{factor}")
        set_raw(folder, SeriesDescription=name.encode())
        if factor > 1:
            set_raw(folder, SeriesNumber=None if factor == 2 else b"")
    set_raw(tmp_path / "4", SeriesInstanceUID=None)
    return tmp_path


def test_the_list_says_how_to_choose_a_series_without_a_number(unnumbered):
    first, *listed = message(unnumbered).splitlines()
    assert "contains 4 series; expected one" in first
    assert listed == [
        "  series 5: 't1', MR, 12 files, UID 1.2.1",
        "  series without a number: 'no description', MR, 12 files, no UID (choose it with "
        "--series=#2)",
        "  series without a number: 'flair', MR, 12 files, UID 1.2.2 (choose it with --series=#3)",
        "  series without a number: 'flair post', MR, 12 files, UID 1.2.3 (choose it with "
        "--series=#4)",
    ]


@pytest.mark.parametrize(
    ("pick", "factor"),
    [("#1", 1), ("5", 1), ("#2", 4), ("#3", 2), ("#4", 3), ("1.2.3", 3), ("POST", 3)],
)
def test_a_series_without_a_number_is_chosen_by_its_place_uid_or_description(
    unnumbered, pick, factor
):
    assert factor_of(read_series(unnumbered, pick)) == factor


@pytest.mark.parametrize("pick", ["", "#5", "#0", "no description"])
def test_a_choice_that_fits_no_or_all_series_lists_them(unnumbered, pick):
    said = message(unnumbered, pick)
    assert f"--series={pick} matches {4 if pick == '' else 0} of the series" in said
    assert said.count("series without a number") == 3


def test_a_place_for_both_visits_is_ignored_if_only_one_series_has_enough_slices(tmp_path):
    write_series(tmp_path / "flair", make_image(), "1.2.3", number="5")
    assert factor_of(read_series(tmp_path, "#3", series_for_both=True)) == 1
    assert "--series=#3 matches 0 of the series" in message(tmp_path, "#3")
    write_series(tmp_path / "scout", make_image(3) * 2, "1.2.4", number="1")
    assert factor_of(read_series(tmp_path, "#3", series_for_both=True)) == 1
    write_series(tmp_path / "t1", make_image() * 4, "1.2.5", number="6")
    assert factor_of(read_series(tmp_path, "#3", series_for_both=True)) == 4
    with pytest.raises(InputError, match="--series=#4 matches 0 of the series"):
        read_series(tmp_path, "#4", series_for_both=True)


# ------------------------------------------------------------------------- several stacks


@pytest.fixture
def twice(tmp_path):
    """Write a series with two acquisitions at the same positions."""
    write_stack(tmp_path, 1, AcquisitionNumber=b"10", AcquisitionTime=b"103205")
    write_stack(tmp_path, 2, AcquisitionNumber=b"2", AcquisitionTime=b"104000")
    return tmp_path


def test_two_acquisitions_in_one_series_are_listed_by_number(twice):
    first, *listed = message(twice).splitlines()
    assert "24 files, UID 1.2.3: contains 2 stacks of slices; expected one" in first
    assert "Choose one with --acquisition=2" in first
    assert listed == [
        "  #1: acquisition number 2, 12 files",
        "  #2: acquisition number 10, 12 files",
    ]


@pytest.mark.parametrize(("pick", "factor"), [("2", 2), ("10", 1), ("#2", 1), ("number 2", 2)])
def test_an_acquisition_is_chosen_by_number_place_or_description(twice, pick, factor):
    found = read_series(twice, "5", pick)
    check_same(found.image, make_image() * factor)
    assert found.said.endswith(f"UID 1.2.3, acquisition number {2 if factor == 2 else 10}")


@pytest.mark.parametrize(("pick", "count"), [("3", 0), ("#3", 0), ("acquisition", 2), ("", 0)])
def test_a_choice_of_no_or_several_acquisitions_lists_them(twice, pick, count):
    said = message(twice, None, pick)
    assert f"--acquisition={pick} matches {count} of its stacks" in said
    assert "#2: acquisition number 10, 12 files" in said


@pytest.mark.parametrize(
    ("field", "values", "label", "pick"),
    [
        ("EchoNumbers", (b"1", b"2"), "echo number 2", "2"),
        ("TemporalPositionIdentifier", (b"1", b"2"), "temporal position 2", "2"),
        ("EchoTime", (b"14", b" 98.5"), "echo time in ms 98.5", "98.5"),
        ("ImageType", (b"ORIGINAL\\PRIMARY\\M", b"ORIGINAL\\PRIMARY\\P"),
         r"image type ORIGINAL\PRIMARY\P", r"primary\p"),
        ("AcquisitionTime", (b"103205", b"104000"), "acquisition time 104000", "104000"),
        ("AcquisitionNumber", (b"", b"2"), "acquisition number 2", "2"),
    ],
)  # fmt: skip
def test_stacks_are_told_apart_by_what_differs(tmp_path, field, values, label, pick):
    for factor, value in enumerate(values, start=1):
        write_stack(tmp_path, factor, **{"AcquisitionNumber": b"1", field: value})
    assert f": {label}, 12 files" in message(tmp_path)
    found = read_series(tmp_path, None, pick)
    assert factor_of(found) == 2
    assert found.said.endswith(label)


def test_echoes_of_several_repetitions_are_told_apart_by_both(tmp_path):
    for factor, (echo, repetition) in enumerate(((1, 1), (1, 2), (2, 1), (2, 2)), start=1):
        write_stack(
            tmp_path, factor, EchoNumbers=b"%d" % echo,
            TemporalPositionIdentifier=b"%d" % repetition,
        )  # fmt: skip
    said = message(tmp_path)
    assert "#3: echo number 2, temporal position 1, 12 files" in said
    assert "--acquisition=#1" in said
    assert factor_of(read_series(tmp_path, None, "#3")) == 3
    assert factor_of(read_series(tmp_path, None, "echo number 1, temporal position 2")) == 2


def test_an_incomplete_repetition_is_listed_and_the_other_can_be_chosen(twice):
    (twice / "stack 1" / "IM105").unlink()
    assert "#2: acquisition number 10, 11 files" in message(twice)
    assert factor_of(read_series(twice, None, "2")) == 2
    assert "acquisition number 10: slices are 4.00 mm apart, except" in message(twice, None, "10")


def test_alternating_slices_of_two_acquisitions_are_one_stack(tmp_path):
    """Write a scan in two concatenations, as it is usual for thick slices."""
    write_series(tmp_path, make_image())
    for k in range(12):
        set_raw(tmp_path / f"IM{k:03}", AcquisitionNumber=b"%d" % (1 + k % 2))
    check_same(read_series(tmp_path).image, make_image())
    (tmp_path / "IM005").unlink()
    assert "except between IM004 (23.2 mm) and IM006 (31.2 mm)" in message(tmp_path)


def test_two_stacks_at_other_positions_are_told_apart(tmp_path):
    write_stack(tmp_path, 1, AcquisitionNumber=b"1")
    shifted = make_image() * 2
    shifted.SetOrigin((-20.5, 30.0, 8.75))
    set_raw(write_series(tmp_path / "b", shifted, first=50), AcquisitionNumber=b"2")
    assert "#2: acquisition number 2, 12 files" in message(tmp_path)
    check_same(read_series(tmp_path, None, "2").image, shifted)


def test_two_stacks_of_other_orientations_are_told_apart(tmp_path):
    write_stack(tmp_path, 1, AcquisitionNumber=b"1")
    turned = make_image(direction=TURNED)
    set_raw(write_series(tmp_path / "b", turned, first=50), AcquisitionNumber=b"2")
    check_same(read_series(tmp_path, None, "2").image, turned)


def test_the_only_stack_can_be_chosen_so_that_one_flag_serves_two_visits(tmp_path):
    set_raw(write_series(tmp_path, make_image()), AcquisitionNumber=b"1")
    check_same(read_series(tmp_path, None, "1").image, make_image())
    check_same(read_series(tmp_path, None, "#1").image, make_image())
    assert "--acquisition=2 matches 0 of its stacks" in message(tmp_path, None, "2")


def test_an_acquisition_for_both_visits_must_exist_if_there_are_several(twice):
    with pytest.raises(InputError, match="--acquisition=3 matches 0 of its stacks"):
        read_series(twice, None, "3", acquisition_for_both=True)


def test_files_that_were_copied_twice_are_not_two_stacks(tmp_path):
    write_series(tmp_path, make_image())
    write_series(tmp_path / "copy", make_image())
    assert "12 slices have the same position as another one" in message(tmp_path)


# ------------------------------------------------------------------ files that do not belong


def test_a_coloured_picture_in_the_series_is_named(tmp_path):
    write_series(tmp_path, make_image())
    grey = sitk.Cast(make_image(1), sitk.sitkUInt8)
    write_series(tmp_path, sitk.Compose(grey, grey, grey), name="SCREEN", first=99)
    assert "like a reference image: SCREEN; expected one stack" in message(tmp_path)


def test_a_slice_with_another_pixel_spacing_is_named(tmp_path):
    set_raw(write_series(tmp_path, make_image()) / "IM011", PixelSpacing=b"2\\2")
    assert "from the other 11 slices, like a reference image: IM011;" in message(tmp_path)


def test_a_slice_beside_the_others_is_named(tmp_path):
    write_series(tmp_path, make_image())
    z_mm = 7.25 + 6 * 4
    set_raw(tmp_path / "IM006", ImagePositionPatient=f"-8.5\\30\\{z_mm}".encode())
    assert "IM006 lies 12.0 mm beside the other slices" in message(tmp_path)


def test_the_spacing_of_rows_and_columns_is_not_exchanged(tmp_path):
    image = make_image(spacing_mm=(1.5, 1.0, 4.0))
    found = read_series(write_series(tmp_path, image)).image
    np.testing.assert_allclose(found.GetSpacing(), (1.5, 1.0, 4.0))
