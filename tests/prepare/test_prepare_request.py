import os
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
        (["SimpleITK"], "needs SimpleITK, which could not be found"),
        (["nilearn"], "needs nilearn, which could not be found"),
        (["SimpleITK", "pydicom"], "needs SimpleITK and pydicom, which could not be found"),
        (
            ["SimpleITK", "nilearn", "pydicom"],
            "needs SimpleITK, nilearn and pydicom, which could not be found",
        ),
    ],
)
def test_missing_libraries_are_named_with_the_command_that_installs_them(
    monkeypatch, missing, said
):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None if name in missing else "found")
    with pytest.raises(InputError, match=said) as error:
        check_libraries()
    assert str(error.value).endswith(
        'In the folder of the repository, run: pip install ".[prepare]"'
    )
    listed = (Path(__file__).parents[2] / "requirements-prepare.txt").read_text()
    assert all(f"\n{name}>=" in listed for name in missing)


def test_no_error_is_raised_if_all_libraries_are_installed(monkeypatch):
    asked = []
    monkeypatch.setattr(libraries, "find_spec", lambda name: asked.append(name) or "found")
    check_libraries()
    assert asked == ["SimpleITK", "nilearn", "pydicom"]


# ----------------------------------------------------------------------------------------- flags


def parse(*arguments):
    pair = [] if any("--dataset" in a for a in arguments) else ["-t1", "a.nii", "-t2", "b"]
    return parse_flags("prepare", [*pair, "-o", "out", *arguments], "prepare")


def request_for(*arguments):
    return request_of(parse(*arguments), Path("a.nii"), Path("b"))


def test_a_request_without_flags_has_no_options():
    assert request_for() == Request(Path("a.nii"), Path("b"), (None, None), (None, None), None)


@pytest.mark.parametrize(
    ("flags", "series"),
    [(["--series=5"], ("5", "5")), (["--series=5", "--series", "sag flair"], ("5", "sag flair"))],
)
def test_a_series_is_given_for_both_visits_or_for_each(flags, series):
    assert request_for(*flags).series == series


def test_an_acquisition_is_given_for_both_visits_or_for_each():
    assert request_for().acquisitions == (None, None)
    assert request_for("--acquisition=2").acquisitions == ("2", "2")
    assert request_for("--acquisition=2", "--acquisition=#1").acquisitions == ("2", "#1")


def test_reversed_visits_are_allowed_only_on_request():
    assert not request_for().allow_reversed
    assert request_for("--allow_reversed").allow_reversed


@pytest.mark.parametrize(
    ("flags", "masks"),
    [
        (["--brain_mask01=m 1.nii"], (Path("m 1.nii"), None)),
        (["--brain_mask02=m2.nii"], (None, Path("m2.nii"))),
        (["--brain_mask02=m2.nii", "--brain_mask01=m1.nii"], (Path("m1.nii"), Path("m2.nii"))),
    ],
)
def test_each_mask_is_used_for_its_visit(flags, masks):
    assert request_for(*flags).brain_masks == masks


def test_a_command_is_stored_unchanged():
    command = "bet '{input}' {output} -m"
    assert request_for(f"--brain_mask_command={command}").brain_mask_command == command


EXCLUDE = "--brain_mask_command excludes --brain_mask01 and --brain_mask02"
OF_ONE_PAIR = "--brain_mask01 and --brain_mask02 are for one pair"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--series=1"] * 3, "--series is given 3 times. Give it once, or once per visit"),
        (["--acquisition=1"] * 3, "--acquisition is given 3 times. Give it once, or once per"),
        (["--brain_mask_command=x", "--brain_mask01=m"], EXCLUDE),
        (["--brain_mask_command=x", "--brain_mask02=m"], EXCLUDE),
        (["--dataset=d", "--brain_mask01=m"], OF_ONE_PAIR),
        (["--dataset=d", "--brain_mask02=m"], OF_ONE_PAIR),
    ],
)
def test_contradictory_flags_are_refused(capsys, flags, message):
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
def test_compatible_flags_are_accepted(flags):
    assert parse(*flags).series[0] == "1"


# --------------------------------------------------------------------------------- many patients


def make(root, *names):
    """Make empty files. Names that end with / become folders."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return root


def test_the_scans_of_each_patient_may_be_files_or_folders(tmp_path):
    make(
        tmp_path,
        "b/time01.nii.gz", "b/time02.nii",
        "a/time01/IM1", "a/time02 2021-03-04/IM1",
        "Müller 3/flair_time01_sag.nii.gz", "Müller 3/Flair_Time02/IM1",
        "c/time01.nii.gz", "c/time02.nii.gz", "c/time01.json", "c/time02.txt", "c/mask.nii.gz",
        "c/t1_time01.nii.gz",
        ".hidden/time01.nii.gz", ".DS_Store", "README.txt",
    )  # fmt: skip
    found, problems = find_scans(tmp_path)
    assert problems == {}
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


def test_the_good_patients_are_found_and_the_problems_of_the_others_are_listed(tmp_path):
    make(
        tmp_path,
        "good/time01.nii", "good/time02.nii",
        "one/time01.nii.gz", "one/mask.nii.gz", "one/time02.mgz",
        "three/time01.nii.gz", "three/time01/", "three/flair_time02.nii", "three/time02_b.nii",
        "void/",
    )  # fmt: skip
    found, problems = find_scans(tmp_path)
    assert list(found) == ["good"]
    expected = "expected a NIfTI file or DICOM folder with a name that begins with"
    one, three, void = (tmp_path / name for name in ("one", "three", "void"))
    assert problems == {
        "one": f"{one}: {expected} time02 or flair_time02. The folder contains: mask.nii.gz, "
        "time01.nii.gz, time02.mgz",
        "three": f"{three}: 2 names begin with time01 or flair_time01 (time01, time01.nii.gz); "
        f"expected exactly one\n{three}: 2 names begin with time02 or flair_time02 "
        "(flair_time02.nii, time02_b.nii); expected exactly one",
        "void": f"{void}: {expected} time01 or flair_time01. The folder contains: nothing\n"
        f"{void}: {expected} time02 or flair_time02. The folder contains: nothing",
    }


def test_a_folder_without_a_usable_patient_is_refused_with_all_problems(tmp_path):
    make(tmp_path, "void/", "half/time01.nii")
    with pytest.raises(InputError) as error:
        find_scans(tmp_path)
    assert [line.partition(": ")[0] for line in str(error.value).splitlines()] == [
        str(tmp_path / name) for name in ("half", "void", "void")
    ]


def test_entries_that_the_system_cannot_follow_or_name_are_listed(tmp_path, monkeypatch):
    make(tmp_path, "good/time01.nii", "good/time02.nii", "closed/time01.nii", "notes.txt")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "data.tsv").symlink_to(tmp_path / "nowhere")  # a file that was not fetched
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    iterdir = Path.iterdir

    def refused(folder):
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", refused)
    found, problems = find_scans(tmp_path)
    assert list(found) == ["good"]
    assert sorted(problems) == ["caf\\udce9", "closed", "gone", "loop"]
    assert "a name that is not UTF-8. Rename the folder" in problems["caf\\udce9"]
    assert problems["closed"].endswith("cannot be read (Permission denied). Check the permissions.")
    for name in ("gone", "loop"):
        assert problems[name].endswith(f"{name}: is a link to nothing or to itself. Expected a "
                                       "folder.")  # fmt: skip


def test_refuses_a_folder_that_is_missing_or_holds_no_patient(tmp_path):
    with pytest.raises(
        InputError, match=r"absent: no such folder. Expected a folder with one folder per patient"
    ):
        find_scans(tmp_path / "absent")
    make(tmp_path, "time01.nii.gz", "time02.nii.gz", ".cache/time01.nii.gz")
    with pytest.raises(
        InputError, match="contains no patient folder; expected, for example, <patient>/time01"
    ):
        find_scans(tmp_path)
