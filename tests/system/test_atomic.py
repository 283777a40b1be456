"""Test that folders are made completely or not at all."""

import os
import socket
import subprocess
import sys

import pytest

from msseg_jax.system import atomic
from msseg_jax.system.atomic import whole_folder, write_beside
from tests.support.session import ROOT

MACHINE = socket.gethostname()


@pytest.fixture
def ended() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def fill(place, text, **options):
    with whole_folder(place, **options) as new:
        assert not place.exists() or options["replace"]
        (new / "file").write_text(text)


def content(folder) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_appears_when_the_block_has_ended(tmp_path):
    fill(tmp_path / "a" / "b", "whole")
    assert content(tmp_path) == {os.path.join("a", "b", "file"): "whole"}


def test_nothing_is_left_of_a_block_that_fails(tmp_path):
    def fail():
        with whole_folder(tmp_path / "place") as new:
            (new / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_old_folder_stays_until_the_new_one_is_complete(tmp_path):
    fill(tmp_path / "place", "old")
    with whole_folder(tmp_path / "place", replace=True) as new:
        (new / "other").write_text("new")
        assert content(tmp_path / "place") == {"file": "old"}
    assert content(tmp_path) == {os.path.join("place", "other"): "new"}


def test_an_old_folder_survives_a_failure(tmp_path, monkeypatch):
    fill(tmp_path / "place", "old")
    with pytest.raises(OSError, match="full"), whole_folder(tmp_path / "place", replace=True):
        raise OSError("disk full")
    assert content(tmp_path) == {os.path.join("place", "file"): "old"}

    rename, targets = atomic.Path.rename, []

    def second_fails(path, target):
        targets.append(target)
        if len(targets) == 2:
            raise OSError("between the renames")
        return rename(path, target)

    monkeypatch.setattr(atomic.Path, "rename", second_fails)
    with pytest.raises(OSError, match="between the renames"):
        fill(tmp_path / "place", "new", replace=True)
    assert content(tmp_path) == {os.path.join("place", "file"): "old"}


def test_an_existing_folder_is_kept_unless_it_may_be_replaced(tmp_path):
    fill(tmp_path / "place", "old")
    with (
        pytest.raises(FileExistsError, match=r"place: exists already\."),
        whole_folder(tmp_path / "place") as new,
    ):
        (new / "file").write_text("new")
    assert content(tmp_path) == {os.path.join("place", "file"): "old"}


def test_folders_that_killed_processes_left_behind_are_deleted(tmp_path, ended):
    kept = {
        f".partial-{MACHINE}-{os.getppid()}-place",  # of a process that is running
        f".partial-{MACHINE}-{ended}-place-2",  # of another folder
        f".partial-elsewhere-{ended}-place",  # of another machine
    }
    gone = {f".{kind}-{MACHINE}-{ended}-place" for kind in ("partial", "replaced")}
    gone.add(f".partial-{MACHINE}-{os.getpid()}-place")  # as of an earlier process in a container
    for name in kept | gone:
        (tmp_path / name).mkdir()
    (tmp_path / "place").mkdir()
    fill(tmp_path / "place", "new", replace=True)
    assert {path.name for path in tmp_path.iterdir()} == {"place", *kept}


def test_a_folder_that_a_killed_process_moved_aside_is_moved_back(tmp_path, ended):
    aside = tmp_path / f".replaced-{MACHINE}-{ended}-place"
    aside.mkdir()
    (aside / "file").write_text("old")
    with pytest.raises(OSError, match="full"), whole_folder(tmp_path / "place", replace=True):
        raise OSError("full")
    assert content(tmp_path) == {os.path.join("place", "file"): "old"}


WRITER = """
import sys
from pathlib import Path
from msseg_jax.system.atomic import whole_folder, write_beside
place, kept = Path(sys.argv[1]), 0
for number in range(60):
    text = f"{sys.argv[2]}-{number}"
    try:
        with whole_folder(place, replace=True) as new:
            for name in "abc":
                (new / name).write_text(text)
    except FileExistsError as error:
        assert "another process has written it at the same time" in str(error)
        kept += 1
    write_beside(place.with_name("file"), lambda path: path.write_text(sys.argv[2] * 100))
assert kept < 30
"""


def test_of_two_processes_that_write_one_place_each_leaves_it_complete(tmp_path):
    """`msseg prepare` and `msseg predict` may be started twice by mistake."""
    place, file = tmp_path / "place", tmp_path / "file"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, place, name], cwd=ROOT) for name in "12"
    ]
    contents = set()
    while any(writer.poll() is None for writer in writers):
        if file.exists():
            contents.add(file.read_text())
    assert [writer.returncode for writer in writers] == [0, 0]
    assert contents == {"1" * 100, "2" * 100}
    final = content(place)
    assert sorted(final) == ["a", "b", "c"]
    assert len(set(final.values())) == 1, "a mixture of both"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "place"]


def test_a_signal_that_arrives_while_the_folder_is_made_leaves_nothing(tmp_path, monkeypatch):
    mkdir = atomic.Path.mkdir

    def interrupted(path, *arguments, **options):
        mkdir(path, *arguments, **options)
        if path.name.startswith(".partial-"):
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic.Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "place"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a" * 248 + ".nii.gz", "ä" * 124 + ".nii.gz"])
def test_the_longest_names_that_the_system_allows_can_be_written(tmp_path, name):
    seen = []

    def write(partial):
        seen.append(partial.name)
        partial.write_text("done")

    write_beside(tmp_path / name, write)
    assert (tmp_path / name).read_text() == "done"
    assert seen[0].endswith(".nii.gz")
    folder = tmp_path / name.removesuffix(".nii.gz")
    with whole_folder(folder) as new:
        (new / "file").write_text("done")
    assert (folder / "file").is_file()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("A.B.NII.GZ", ".nii.gz"), ("a.Nii", ".nii"), ("report.v2.html", ".html"), ("log", "")],
)
def test_a_partial_file_has_the_suffix_of_its_kind_in_lower_case(tmp_path, name, suffix):
    seen = []
    write_beside(tmp_path / name, lambda partial: (seen.append(partial.name), partial.touch()))
    assert seen[0].removeprefix(".partial-")[12:] == suffix
    assert [path.name for path in tmp_path.iterdir()] == [name]
