"""Files of phantoms: their contents, and the clean-up after a failure.

The voxels are 4 mm wide, so that a patient takes only about two seconds.
"""

import hashlib
import os
import re
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

from msseg_jax.cli.main import main
from msseg_jax.simulate.phantom import write_phantoms, writer
from msseg_jax.volumes import layout
from msseg_jax.volumes.layout import BRAIN_MASK, CONSENSUS, TIME01, TIME02
from tests.support.patients import PATIENT_FILES


def digest(folder):
    """Return the hash of each file, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_files_depend_on_the_seed_but_not_on_the_number_of_processes_or_patients(tmp_path):
    one = write_phantoms(tmp_path / "one", 1, 4, jobs=1, spacing_mm=4.0)
    two = write_phantoms(tmp_path / "two", 2, 4, jobs=2, spacing_mm=4.0)
    assert one == two[:1]
    assert [summary.patient for summary in two] == ["phantom_001", "phantom_002"]
    first, second = digest(tmp_path / "one"), digest(tmp_path / "two")
    assert len(first) == 8
    assert len(second) == 16
    assert first == {name: second[name] for name in first}
    images = {"phantom_00{}/" + name for name in (TIME01, TIME02, BRAIN_MASK)}
    for image in images:  # the two patients have different heads
        assert second[image.format(1)] != second[image.format(2)]

    # All files exist, and their headers specify mm and scanner coordinates.
    folder = tmp_path / "one" / "phantom_001"
    assert os.listdir(tmp_path / "one") == ["phantom_001"]
    assert {path.name for path in folder.iterdir()} == PATIENT_FILES
    images = [nib.load(path) for path in folder.iterdir()]
    for image in images:
        np.testing.assert_array_equal(image.affine, images[0].affine)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.header["qform_code"] == image.header["sform_code"] == 1
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
    truth = np.asarray(nib.load(folder / CONSENSUS).dataobj)
    assert set(np.unique(truth)) <= {0, 1}
    assert truth.sum() == one[0].new_lesion_voxels > 0
    assert one[0].shape == truth.shape
    assert one[0].new_lesion_mm3 == pytest.approx(truth.sum() * 4.0**3)
    for image in (TIME01, TIME02):
        assert np.asarray(nib.load(folder / image).dataobj).std() > 0

    # An existing patient is not changed, unless `overwrite` is set.
    (folder / CONSENSUS).write_bytes(b"edited")
    with pytest.raises(FileExistsError, match=r"already contains 1 of the 2 .* --overwrite"):
        write_phantoms(tmp_path / "one", 2, 4, jobs=1, spacing_mm=4.0)
    assert (folder / CONSENSUS).read_bytes() == b"edited"
    write_phantoms(tmp_path / "one", 1, 4, jobs=1, spacing_mm=4.0, overwrite=True)
    assert digest(tmp_path / "one") == first


def test_a_failure_leaves_no_incomplete_patient_and_no_temporary_files(tmp_path, monkeypatch):
    written = []

    def fails_late(path, volume, affine, **_):
        path.write_bytes(b"half")
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(writer, "write_array", fails_late)
    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path, 1, 0, jobs=1, spacing_mm=4.0)
    assert len(written) == 3
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patients": 0}, "--patients=0: expected 1 or more"),
        ({"seed": -1}, "--seed=-1: expected 0 or more"),
        ({"jobs": 0}, "--jobs=0: expected 1 or more"),
        ({"spacing_mm": 9.0}, "--spacing_mm=9.0: expected a voxel size from 0.5 to 4 mm"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(tmp_path, arguments, message):
    settings = {"patients": 1, "seed": 0, **arguments}
    patients, seed = settings.pop("patients"), settings.pop("seed")
    with pytest.raises(ValueError, match=message):
        write_phantoms(tmp_path / "new", patients, seed, **settings)
    assert not (tmp_path / "new").exists()


def test_an_output_that_cannot_be_written_is_named_in_the_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"--output=.*file.*: cannot write to this folder"):
        write_phantoms(tmp_path / "file", 1, 0)


@pytest.mark.parametrize("place", ["anna", "anna/phantoms"])
def test_phantoms_are_not_written_into_the_folder_of_a_patient(tmp_path, capsys, place):
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / layout.TIME01).touch()
    assert main(["phantom", "-o", str(tmp_path / place), "--patients=1"]) == 1
    error = capsys.readouterr().err
    assert f"--output={tmp_path / place}: {tmp_path / 'anna'} is the folder of a patient" in error
    assert [path.name for path in (tmp_path / "anna").iterdir()] == [layout.TIME01]


def test_the_command_line_prints_a_table_and_does_not_import_jax(tmp_path):
    code = (
        "import sys, runpy\n"
        "try:\n"
        "    runpy.run_module('msseg_jax', run_name='__main__')\n"
        "finally:\n"
        "    assert 'jax' not in sys.modules\n"
    )
    flags = [f"--output={tmp_path}", "--patients=1", "--seed=0", "--jobs=1", "--spacing_mm=4"]
    run = [sys.executable, "-c", code, "phantom", *flags]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    header, row, last = done.stdout.splitlines()
    assert re.fullmatch(rf"patients: {tmp_path} \(1 patient\), [\d.]+ s", last)
    assert header.split() == ["patient", "voxel,", "mm", "shape", "new", "lesions", "voxels", "mm3"]
    assert row.startswith("phantom_001  4 x 4 x 4")
    assert (tmp_path / "phantom_001" / BRAIN_MASK).exists()
    again = subprocess.run(run, capture_output=True, text=True)
    assert again.returncode != 0
    assert "phantom: --output=" in again.stderr
    assert "--overwrite" in again.stderr
    assert "Traceback" not in again.stderr


def test_worker_processes_end_when_the_main_process_is_killed(tmp_path):
    output = tmp_path / "phantoms"
    command = [
        sys.executable, "-m", "msseg_jax", "phantom", f"--output={output}", "--patients=200",
        "--jobs=2", "--spacing_mm=4.0",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while not (output.is_dir() and any(output.iterdir())):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.communicate(timeout=30)  # returns only after all processes have closed the pipe
