import pytest

from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_output, check_outside


def test_a_path_in_the_folder_is_refused_in_any_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "a" / "b", tmp_path / "x" / ".." / "a" / "b" / "c", tmp_path / "a"):
        with pytest.raises(InputError, match=r"lies among the scans\. Choose another place\."):
            check_outside(place, (tmp_path / "a").relative_to(tmp_path), "lies among the scans")


def test_a_path_outside_the_folder_is_accepted(tmp_path):
    check_outside(tmp_path / "ab", tmp_path / "a", "")
    check_outside(tmp_path, tmp_path / "a", "")
    check_outside(tmp_path / "a", tmp_path / "a", "", may_be_it=True)


@pytest.mark.parametrize("name", [".nii.gz", ".NII", ".html"])
def test_an_output_whose_name_is_only_a_suffix_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"is only a suffix\. Expected a name before it"):
        check_output(tmp_path / name, (".nii.gz", ".nii", ".html"))
    assert not list(tmp_path.iterdir())
