"""Files to write are checked before any work."""

import pytest

from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_output, check_writable_folder

NIFTI = (".nii.gz", ".nii")


def test_the_folder_of_a_file_is_made_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "mask.nii.gz"
    assert check_output(path, NIFTI) == path
    assert list(path.parent.iterdir()) == []


def test_an_upper_case_suffix_is_accepted_and_another_one_is_not(tmp_path):
    check_output(tmp_path / "MASK.NII.GZ", NIFTI)
    with pytest.raises(InputError, match=r"ends in \.nii\.gz or \.nii"):
        check_output(tmp_path / "mask.mgz", NIFTI)


@pytest.mark.parametrize("name", ["a" * 249 + ".nii.gz", "ä" * 125 + ".nii.gz"])
def test_a_name_that_is_too_long_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="File name too long"):
        check_output(tmp_path / name, NIFTI)


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "mask.nii.gz").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_output(tmp_path / "mask.nii.gz", NIFTI)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        check_output(tmp_path / "file" / "mask.nii.gz", NIFTI)


def test_a_folder_that_refuses_files_is_noticed_although_it_looks_writable(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        check_output(tmp_path / "mask.nii.gz", NIFTI)


def test_a_folder_that_does_not_exist_is_checked_without_making_it(tmp_path):
    check_writable_folder(tmp_path)
    check_writable_folder(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for place in ("file", "file/new/folder"):
        with pytest.raises(InputError, match=rf"{place}: nothing can be written"):
            check_writable_folder(tmp_path / place)
