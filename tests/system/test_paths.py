import pytest

from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_outside


def test_a_place_in_a_folder_is_refused_however_it_is_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "a" / "b", tmp_path / "x" / ".." / "a" / "b" / "c", tmp_path / "a"):
        with pytest.raises(InputError, match="lies among the scans; choose a place elsewhere"):
            check_outside(place, (tmp_path / "a").relative_to(tmp_path), "lies among the scans")


def test_a_place_beside_a_folder_is_taken(tmp_path):
    check_outside(tmp_path / "ab", tmp_path / "a", "")
    check_outside(tmp_path, tmp_path / "a", "")
    check_outside(tmp_path / "a", tmp_path / "a", "", may_be_it=True)
