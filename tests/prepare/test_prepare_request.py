from pathlib import Path

import pytest

from msseg_jax.cli.command_line import parse as parse_flags
from msseg_jax.cli.requests import request_of
from msseg_jax.prepare import libraries
from msseg_jax.prepare.libraries import check_libraries
from msseg_jax.prepare.request import Request, find_scans
from msseg_jax.system.errors import InputError

# ------------------------------------------------------------------------------------ libraries


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (["SimpleITK"], "needs SimpleITK, not installed here"),
        (["nilearn"], "needs nilearn, not installed here"),
        (["SimpleITK", "nilearn"], "needs SimpleITK and nilearn, not installed here"),
    ],
)
def test_missing_libraries_are_named_with_the_command_that_installs_them(
    monkeypatch, missing, said
):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name in missing else "found")
    with pytest.raises(InputError, match=said) as error:
        check_libraries()
    assert str(error.value).endswith(': pip install ".[prepare]", in the folder of the repository')
    listed = (Path(__file__).parents[2] / "requirements-prepare.txt").read_text()
    assert all(f"\n{name}>=" in listed for name in missing)


def test_nothing_is_said_where_all_libraries_are_there(monkeypatch):
    asked = []
    monkeypatch.setattr(libraries, "find_spec", lambda name: asked.append(name) or "found")
    check_libraries()
    assert asked == ["SimpleITK", "nilearn"]


# ----------------------------------------------------------------------------------------- flags


def parse(*arguments):
    pair = [] if any("--dataset" in a for a in arguments) else ["-t1", "a.nii", "-t2", "b"]
    return parse_flags("prepare", [*pair, "-o", "out", *arguments], "prepare")


def request_for(*arguments):
    return request_of(parse(*arguments), Path("a.nii"), Path("b"))


def test_without_flags_nothing_is_chosen_for_the_user():
    assert request_for() == Request(Path("a.nii"), Path("b"), (None, None), (None, None), None)


@pytest.mark.parametrize(
    ("flags", "series"),
    [(["--series=5"], ("5", "5")), (["--series=5", "--series", "sag flair"], ("5", "sag flair"))],
)
def test_a_series_is_of_both_visits_or_of_each(flags, series):
    assert request_for(*flags).series == series


@pytest.mark.parametrize(
    ("flags", "masks"),
    [
        (["--brain_mask01=m 1.nii"], (Path("m 1.nii"), None)),
        (["--brain_mask02=m2.nii"], (None, Path("m2.nii"))),
        (["--brain_mask02=m2.nii", "--brain_mask01=m1.nii"], (Path("m1.nii"), Path("m2.nii"))),
    ],
)
def test_each_mask_goes_with_its_visit(flags, masks):
    assert request_for(*flags).brain_masks == masks


def test_a_command_is_kept_as_it_was_typed():
    command = "bet '{input}' {output} -m"
    assert request_for(f"--brain_mask_command={command}").brain_mask_command == command


EXCLUDE = "--brain_mask_command excludes --brain_mask01 and --brain_mask02"
OF_ONE_PAIR = "--brain_mask01 and --brain_mask02 are for one pair"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--series=1"] * 3, "--series is given 3 times; expected once, or once per visit"),
        (["--brain_mask_command=x", "--brain_mask01=m"], EXCLUDE),
        (["--brain_mask_command=x", "--brain_mask02=m"], EXCLUDE),
        (["--dataset=d", "--brain_mask01=m"], OF_ONE_PAIR),
        (["--dataset=d", "--brain_mask02=m"], OF_ONE_PAIR),
    ],
)
def test_flags_that_contradict_each_other_end_in_an_error(capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        parse(*flags)
    assert f"prepare: error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--dataset=d", "--series=1", "--series=2", "--brain_mask_command=x"],
        ["--brain_mask01=m", "--brain_mask02=m", "--series=1"],
    ],
)
def test_flags_that_go_together_are_taken(flags):
    assert parse(*flags).series[0] == "1"


# --------------------------------------------------------------------------------- many patients


def make(root, *names):
    """Empty files, and folders where a name ends in /."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return root


def test_both_scans_of_each_patient_are_found_as_files_and_as_folders(tmp_path):
    make(
        tmp_path,
        "b/time01.nii.gz", "b/time02.nii",
        "a/time01/IM1", "a/time02 2021-03-04/IM1",
        "Müller 3/flair_time01_sag.nii.gz", "Müller 3/Flair_Time02/IM1",
        "c/time01.nii.gz", "c/time02.nii.gz", "c/time01.json", "c/time02.txt", "c/mask.nii.gz",
        "c/t1_time01.nii.gz",
        ".hidden/time01.nii.gz", ".DS_Store", "README.txt",
    )  # fmt: skip
    found = find_scans(tmp_path)
    assert list(found) == ["Müller 3", "a", "b", "c"]
    assert {
        name: tuple(path.relative_to(tmp_path / name).as_posix() for path in paths)
        for name, paths in found.items()
    } == {
        "Müller 3": ("flair_time01_sag.nii.gz", "Flair_Time02"),
        "a": ("time01", "time02 2021-03-04"),
        "b": ("time01.nii.gz", "time02.nii"),
        "c": ("time01.nii.gz", "time02.nii.gz"),
    }


def test_the_problems_of_all_patients_are_in_one_message(tmp_path):
    make(
        tmp_path,
        "good/time01.nii", "good/time02.nii",
        "one/time01.nii.gz", "one/mask.nii.gz", "one/time02.mgz",
        "three/time01.nii.gz", "three/time01/", "three/flair_time02.nii", "three/time02_b.nii",
        "void/",
    )  # fmt: skip
    with pytest.raises(InputError) as error:
        find_scans(tmp_path)
    assert str(error.value).splitlines() == [
        f"{tmp_path / name}: {said}"
        for name, said in (
            (
                "one",
                "no NIfTI file or DICOM folder whose name begins with time02 or flair_time02; "
                "there is: mask.nii.gz, time01.nii.gz, time02.mgz",
            ),
            (
                "three",
                "2 entries whose names begin with time01 or flair_time01, time01, time01.nii.gz; "
                "expected one",
            ),
            (
                "three",
                "2 entries whose names begin with time02 or flair_time02, flair_time02.nii, "
                "time02_b.nii; expected one",
            ),
            *(
                (
                    "void",
                    f"no NIfTI file or DICOM folder whose name begins with {visit} or "
                    f"flair_{visit}; there is: nothing",
                )
                for visit in ("time01", "time02")
            ),
        )
    ]


def test_refuses_a_folder_that_is_missing_or_holds_no_patient(tmp_path):
    with pytest.raises(InputError, match=r"absent: no such folder; expected .* \(--dataset\)"):
        find_scans(tmp_path / "absent")
    make(tmp_path, "time01.nii.gz", "time02.nii.gz", ".cache/time01.nii.gz")
    with pytest.raises(InputError, match="no patient folder in it; expected <patient>/time01"):
        find_scans(tmp_path)
