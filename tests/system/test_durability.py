"""Test that data are on the disk before they get their name, and the name before the return."""

import errno
import os

import pytest

from msseg_jax.system import atomic, durability
from msseg_jax.system.atomic import whole_folder, write_beside


@pytest.fixture
def calls(monkeypatch):
    """Return the list of what is synchronised and renamed, by name, in order."""
    made = []
    fsync, replace, rename = os.fsync, os.replace, atomic.Path.rename

    def record_fsync(descriptor):
        made.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def record_replace(one, other):
        made.append(("rename", one.name, other.name))
        replace(one, other)

    def record_rename(one, other):
        made.append(("rename", one.name, other.name))
        return rename(one, other)

    monkeypatch.setattr(durability.os, "fsync", record_fsync)
    monkeypatch.setattr(atomic.os, "replace", record_replace)
    monkeypatch.setattr(atomic.Path, "rename", record_rename)
    return made


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux names open files in /proc")
def test_a_file_is_synchronised_before_its_rename_and_its_folder_after_it(tmp_path, calls):
    write_beside(tmp_path / "a.json", lambda path: path.write_text("x"))
    partial = calls[0][1]
    assert partial.startswith(".partial-")
    assert calls == [
        ("fsync", partial), ("rename", partial, "a.json"), ("fsync", tmp_path.name),
    ]  # fmt: skip


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux names open files in /proc")
def test_everything_in_a_folder_is_synchronised_before_its_rename(tmp_path, calls):
    with whole_folder(tmp_path / "place") as new:
        (new / "file").write_text("x")
        (new / "inner").mkdir()
        (new / "inner" / "other").write_text("x")
        hidden = new.name
    before = {("fsync", name) for name in ("file", "other", "inner", hidden)}
    assert set(calls[:4]) == before
    assert calls[4:] == [("rename", hidden, "place"), ("fsync", tmp_path.name)]


def test_a_disk_that_is_full_at_the_synchronisation_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("old")

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durability.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_beside(tmp_path / "a.json", lambda path: path.write_text("new"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_file_system_that_cannot_synchronise_is_accepted(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(durability.os, "fsync", fail)
    write_beside(tmp_path / "a.json", lambda path: path.write_text("new"))
    assert (tmp_path / "a.json").read_text() == "new"
