"""Test the command `msseg prepare` with two visits of a phantom head."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from msseg_jax.cli.main import main as command
from msseg_jax.prepare import libraries, threads
from msseg_jax.prepare import patient as patient_module
from msseg_jax.prepare.record import find_warnings
from msseg_jax.prepare.registration import compose, on_grid, points_of
from msseg_jax.volumes import coverage, layout
from msseg_jax.volumes.alignment import Alignment
from msseg_jax.volumes.layout import patient_in
from msseg_jax.volumes.pair import read_pair
from tests.support import heads

PROGRAM = "msseg prepare"
FILES = {
    layout.TIME01, layout.TIME02, layout.BRAIN_MASK, "prepare.json", "prepare.png", "transforms",
}  # fmt: skip


def main(flags: list[str]) -> int:
    return command(["prepare", *flags])


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    return heads.write_heads(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def prepared(scans, tmp_path_factory):
    """Prepare a patient with the command line, and return the folder."""
    folder = tmp_path_factory.mktemp("prepared") / "anna"
    assert main(flags_of(scans, folder)) == 0
    return folder


def flags_of(scans, output, *more) -> list[str]:
    return [*heads.flags_of(scans), "-o", str(output), *map(str, more)]


def quick(scans) -> list[str]:
    """Return a flag that makes the run faster. With a given mask, the atlas is not used."""
    return [f"--brain_mask01={scans / 'brain01.nii.gz'}"]


def record_of(folder) -> dict:
    return json.loads((folder / "prepare.json").read_text())


def test_a_prepared_folder_is_complete_and_nothing_else_is_left(prepared):
    assert {path.name for path in prepared.iterdir()} == FILES
    assert [path.name for path in prepared.parent.iterdir()] == ["anna"]


def test_the_pair_passes_all_checks_of_a_data_set(prepared):
    pair = read_pair(patient_in(prepared))
    assert pair.time01.is_oriented
    assert pair.time01.header.get_xyzt_units()[0] == "mm"
    inside = [visit.array[pair.brain] for visit in (pair.time01, pair.time02)]
    assert np.corrcoef(*inside)[0, 1] > 0.85
    assert (pair.time01.array[pair.brain] > 0).mean() > 0.99


def test_transforms_map_the_middle_to_the_scans_as_sitk_expects(scans, prepared):
    middle = heads.read(prepared / layout.BRAIN_MASK)
    first, second, between = (
        sitk.ReadTransform(str(prepared / "transforms" / f"{name}.txt"))
        for name in ("middle_to_time01", "middle_to_time02", "time01_to_time02")
    )
    points = points_of(middle > 0, 500)
    assert heads.distances_mm(compose(between, first), second, points).max() < 1e-3
    assert heads.distances_mm(compose(heads.MOTION, first), second, points).mean() < 0.7
    there = on_grid(heads.read(scans / "brain01.nii.gz") > 0, middle, first)
    assert heads.dice(middle, there) > 0.95


def test_the_record_contains_inputs_settings_and_quality_measures(scans, prepared):
    record = record_of(prepared)
    assert record["time01"]["path"] == str(scans / "time01.nii.gz")
    assert record["time01"]["spacing_mm"] == [2.0, 2.0, 2.0]
    assert 0.8 < record["registration"]["correlation"] <= 1
    assert record["registration"]["gain_by_mirroring"] < -0.1
    assert record["registration"]["turned_degrees"] == pytest.approx(24.6, abs=1.0)
    assert record["registration"]["apart_mm"] < 0.5
    brain = sitk.GetArrayFromImage(heads.read(prepared / layout.BRAIN_MASK))
    assert record["brain"]["ml"] == pytest.approx(brain.sum() * 8 / 1000, abs=0.1)
    assert record["brain"]["source"].startswith("atlas")
    assert record["bias_field"]["iterations"] == [50, 40, 30]
    assert set(record["made_by"]) == {
        "msseg_jax", "SimpleITK", "nilearn", "pydicom", "numpy",
    }  # fmt: skip
    assert sum(record["seconds"].values()) > 0


def test_the_picture_shows_both_visits(prepared):
    from PIL import Image

    picture = np.asarray(Image.open(prepared / "prepare.png").convert("RGB")).astype(int)
    height, width, _ = picture.shape
    for column in range(3):
        part = picture[height // 4 : -height // 4, column * width // 3 : (column + 1) * width // 3]
        assert part.std() > 30
        orange = (part[..., 0] > 180) & (part[..., 2] < 90)  # the brain's outline
        assert orange.sum() > 100


def test_warnings_name_missing_orientation_unseen_brain_motion_and_resolution():
    def visit(name, spacing_mm, is_oriented, notes=()):
        image = sitk.Image(4, 4, 4, sitk.sitkFloat32)
        image.SetSpacing(spacing_mm)
        return SimpleNamespace(
            scan=SimpleNamespace(path=name, image=image, is_oriented=is_oriented, warnings=notes)
        )

    def warnings(visits, unseen_ml, apart_mm):
        return find_warnings(visits, unseen_ml, 1400.0, Alignment(apart_mm, 0.9))

    good = visit("a.nii", (1.0, 1.0, 1.0), True), visit("b.nii", (1.0, 1.0, 1.2), True)
    assert warnings(good, 20.0, 0.9) == []
    (other,) = find_warnings(good, 20.0, 1400.0, Alignment(0.9, 0.78))
    assert "correlation of edges 0.78" in other
    assert other.endswith("Are both of one patient?")
    bad = visit("a.nii", (1.0, 1.0, 1.0), False), visit("b.nii", (1.0, 1.0, 3.0), True, ("odd",))
    said = warnings(bad, 60.0, 1.4)
    assert len(said) == 5
    for words in (
        "a.nii does not define the orientation", "60 ml", "1.4 mm apart",
        "voxels of 1.0 and 3.0 mm3", "odd",
    ):  # fmt: skip
        assert any(words in warning for warning in said)


@pytest.mark.slow
def test_the_pair_is_bit_identical_for_any_number_of_threads(
    scans, prepared, tmp_path, monkeypatch
):
    monkeypatch.setattr(threads, "_threads", 1 if threads._threads > 1 else 3)
    assert main(flags_of(scans, tmp_path / "anna")) == 0
    for name in (layout.TIME01, layout.TIME02, layout.BRAIN_MASK):
        one, other = (
            np.asarray(nib.load(path / name).dataobj) for path in (prepared, tmp_path / "anna")
        )
        np.testing.assert_array_equal(one, other)
    for path in (prepared / "transforms").iterdir():
        assert path.read_text() == (tmp_path / "anna" / "transforms" / path.name).read_text()


def test_a_prepared_pair_is_not_prepared_again(scans, prepared, capsys, monkeypatch):
    def never(*_):
        raise AssertionError("prepared again")

    monkeypatch.setattr(patient_module, "register_visits", never)
    before = record_of(prepared)
    assert main(flags_of(scans, prepared)) == 0
    assert "done before" in capsys.readouterr().out
    assert record_of(prepared) == before


@pytest.fixture
def no_registration(monkeypatch):
    """Fail if the visits are registered."""

    def never(*_):
        raise AssertionError("registered")

    monkeypatch.setattr(patient_module, "register_visits", never)


@pytest.mark.usefixtures("no_registration")
@pytest.mark.parametrize("how", ["file", "program"])
def test_a_mask_that_lies_elsewhere_is_refused_before_the_registration(
    scans, tmp_path, capsys, how
):
    image = nib.load(scans / "brain01.nii.gz")
    affine = image.affine.copy()
    affine[:3, 3] += [16, 0, 0]  # to the right
    nib.save(nib.Nifti1Image(image.dataobj, affine), tmp_path / "moved.nii.gz")
    given = f"--brain_mask01={tmp_path / 'moved.nii.gz'}"
    if how == "program":
        copy = "import shutil, sys; shutil.copy(*sys.argv[1:3])"
        words = (sys.executable, "-c", copy, tmp_path / "moved.nii.gz", "{output}", "{input}")
        given = f"--brain_mask_command={shlex.join(map(str, words))}"
    assert main(flags_of(scans, tmp_path / "anna", given)) == 1
    said = capsys.readouterr().err
    assert f"the brain mask does not fit the head in {scans / 'time01.nii.gz'}" in said
    assert "if it is moved by 16 mm to the left (fit" in said
    assert not (tmp_path / "anna").exists()


@pytest.mark.usefixtures("no_registration")
def test_problems_of_both_scans_are_reported_together(scans, tmp_path, capsys):
    constant = nib.Nifti1Image(np.full((64, 64, 64), 5, np.int16), np.diag([3.0, 3, 3, 1]))
    nib.save(constant, tmp_path / "time01.nii.gz")
    (tmp_path / "time02.nii.gz").write_text("no image")
    assert main(flags_of(tmp_path, tmp_path / "anna")) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / 'time01.nii.gz'}: every voxel is 5" in said
    assert f"{tmp_path / 'time02.nii.gz'}: " in said.split("every voxel is 5")[1]


def test_a_pair_does_not_replace_the_folder_of_another_pair(scans, prepared, capsys):
    swapped = ["-t1", str(scans / "time02.nii.gz"), "-t2", str(scans / "time01.nii.gz")]
    assert main([*swapped, "-o", str(prepared)]) == 1
    assert f"{prepared}: holds a pair that was prepared from other scans" in capsys.readouterr().err


def test_a_folder_that_another_program_made_is_not_changed(scans, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert main(flags_of(scans, tmp_path / "mine", "--overwrite")) == 1
    assert "was not made by this program" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "prepare.json: is damaged"),
        ("[]", "prepare.json: is damaged, or was written by another version"),
        ('{"asked_for": {}}', "record.made_by is missing"),
    ],
)
def test_a_damaged_record_is_named(scans, prepared, tmp_path, capsys, content, said):
    folder = tmp_path / "anna"
    shutil.copytree(prepared, folder)
    (folder / "prepare.json").write_text(content)
    assert main(flags_of(scans, folder)) == 1
    assert said in capsys.readouterr().err
    assert (folder / "prepare.json").read_text() == content


def test_overwrite_replaces_a_prepared_pair(scans, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(patient_module, "register_visits", heads.known_registration(scans))
    folder = tmp_path / "anna"
    shutil.copytree(prepared, folder)
    assert main(flags_of(scans, folder, "--overwrite", *quick(scans))) == 0
    assert {path.name for path in folder.iterdir()} == FILES
    assert record_of(folder)["brain"]["source"] == str(scans / "brain01.nii.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["anna"]


@pytest.mark.slow
def test_overwrite_prepares_the_pair_again_with_given_masks(scans, prepared, tmp_path):
    folder = tmp_path / "anna"
    shutil.copytree(prepared, folder)
    assert main(flags_of(scans, folder, "--overwrite", *quick(scans))) == 0
    assert record_of(folder)["brain"]["source"] == str(scans / "brain01.nii.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["anna"]
    brains = [heads.read(path / layout.BRAIN_MASK) for path in (folder, prepared)]
    volumes_ml = [sitk.GetArrayFromImage(brain).sum() * 8 / 1000 for brain in brains]
    assert volumes_ml[0] == pytest.approx(volumes_ml[1], rel=0.05)


def test_overwrite_does_not_delete_files_of_other_programs(scans, prepared, tmp_path, capsys):
    folder = tmp_path / "anna"
    shutil.copytree(prepared, folder)
    (folder / layout.CONSENSUS).write_text("a week of an expert's work")
    assert main(flags_of(scans, folder, "--overwrite")) == 1
    said = capsys.readouterr().err
    assert f"also holds {layout.CONSENSUS}. These were not made by this program" in said
    assert (folder / layout.CONSENSUS).read_text() == "a week of an expert's work"


def test_the_last_line_names_the_picture(scans, prepared, capsys):
    assert main(flags_of(scans, prepared)) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    content = f"brain of {record_of(prepared)['brain']['ml']:.0f} ml"
    picture = re.escape(str(prepared / "prepare.png"))
    assert re.fullmatch(rf"picture: {picture} \({content}\), [\d.]+ s", last)


def test_a_part_without_data_at_one_visit_is_stored_and_left_out_of_the_mask(
    scans, prepared, tmp_path, monkeypatch
):
    monkeypatch.setattr(patient_module, "register_visits", heads.known_registration(scans))
    image = heads.read(scans / "time01.nii.gz")
    array = sitk.GetArrayFromImage(image)
    brain = sitk.GetArrayFromImage(heads.read(scans / "brain01.nii.gz")) > 0
    low, high = np.percentile(np.argwhere(brain), (20, 45), axis=0).astype(int)
    box = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
    array[box] = 0
    empty_ml = brain[box].sum() * 8 / 1000
    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(tmp_path / "time01.nii.gz"))
    folder = tmp_path / "anna"
    visits = ["-t1", str(tmp_path / "time01.nii.gz"), "-t2", str(scans / "time02.nii.gz")]
    assert main([*visits, "-o", str(folder), *quick(scans)]) == 0
    assert {path.name for path in folder.iterdir()} == FILES | {layout.NO_DATA}
    codes = np.asarray(nib.load(folder / layout.NO_DATA).dataobj)
    assert set(np.unique(codes)) == {0, 1}  # only the first visit
    pair = read_pair(patient_in(folder))
    np.testing.assert_array_equal(pair.no_data, codes)
    assert not pair.brain[codes > 0].any()
    lost_ml = (codes == 1).sum() * 8 / 1000
    assert lost_ml == pytest.approx(empty_ml, rel=0.1)  # on another grid
    assert pair.empty_ml == (pytest.approx(lost_ml), 0.0)
    (warning,) = (one for one in record_of(folder)["warnings"] if "no data" in one)
    assert warning.startswith(f"{lost_ml:.0f} ml of the brain have no data in the first visit")
    assert warning in coverage.empty_warnings(pair.empty_ml)  # so that it is said only once
    # Prepared again with a whole scan, the file is gone.
    assert main(flags_of(scans, folder, "--overwrite", *quick(scans))) == 0
    assert {path.name for path in folder.iterdir()} == FILES


def test_a_failed_run_leaves_no_files(scans, tmp_path, monkeypatch, capsys):
    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(patient_module, "draw_pair", full_disk)
    monkeypatch.setattr(patient_module, "register_visits", heads.known_registration(scans))
    assert main(flags_of(scans, tmp_path / "out" / "anna")) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_an_implausible_mask_is_refused_with_its_volume(scans, tmp_path, monkeypatch, capsys):
    small = heads.read(scans / "brain01.nii.gz") > 0
    small[:, :, : small.GetSize()[2] // 2] = 0
    sitk.WriteImage(small, str(tmp_path / "half.nii.gz"))
    volume_ml = sitk.GetArrayFromImage(small).sum() * 8 / 1000
    assert volume_ml < 800
    flags = flags_of(scans, tmp_path / "anna", f"--brain_mask01={tmp_path / 'half.nii.gz'}")
    assert main(flags) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / 'half.nii.gz'}: the brain mask has a volume of {volume_ml:.0f} ml" in said
    assert "expected 800 to 2000 ml" in said
    assert not (tmp_path / "anna").exists()


def test_sigterm_leaves_no_incomplete_files(scans, tmp_path):
    status, said = heads.stop_when(
        lambda: bool(list(tmp_path.iterdir())),
        "msseg_jax", "prepare", *flags_of(scans, tmp_path / "anna"),
    )  # fmt: skip
    assert status == 1
    # The output is not a terminal, so it has one line for each step that was begun.
    first, *steps, last = said.splitlines()
    assert first == "preparing: reading"
    assert all(re.fullmatch("preparing: [a-z ]+", step) for step in steps)
    assert last == f"{PROGRAM}: Interrupted. Run the same command again to resume."
    assert list(tmp_path.iterdir()) == []


def test_temporary_folders_of_a_killed_run_are_deleted(scans, tmp_path, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    machine = socket.gethostname()
    kept = {
        f".partial-{machine}-{os.getpid()}-bert",  # of a process that is still running
        f".partial-{machine}-{ended.pid}-anna-maria",  # of another patient
        f".partial-elsewhere-{ended.pid}-anna",  # of another machine; its process may be running
    }
    for name in (*kept, f".partial-{machine}-{ended.pid}-anna"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(patient_module, "register_visits", heads.known_registration(scans))
    assert main(flags_of(scans, tmp_path / "anna")) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"anna", *kept}


def test_a_data_set_continues_after_a_patient_that_fails(scans, prepared, tmp_path):
    root, output = tmp_path / "scans", tmp_path / "out"
    for name in ("anna", "bert"):
        (root / name).mkdir(parents=True)
        for visit in ("time01", "time02"):
            shutil.copy(scans / f"{visit}.nii.gz", root / name / f"flair_{visit}.nii.gz")
    (root / "carl").mkdir()
    shutil.copy(scans / "time01.nii.gz", root / "carl")
    broken = root / "bert" / "flair_time02.nii.gz"
    image = nib.load(broken)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    voxels[3, 4, 5] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), broken)
    output.mkdir()
    shutil.copytree(prepared, output / "anna")
    # Run as users run it: a module that is run starts its processes differently from an imported
    # one.
    command = [sys.executable, "-m", "msseg_jax", "prepare", f"--dataset={root}"]
    done = subprocess.run(
        [*command, f"--output={output}", "--jobs=2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert rows["anna"].endswith("done before")
    assert rows["bert"].endswith("failed")
    assert rows["carl"].endswith("failed")
    assert "  carl: " in done.stderr
    assert "with a name that begins with time02" in done.stderr
    last = done.stdout.splitlines()[-1]
    picture = re.escape(str(output / "*" / "prepare.png"))
    counted = "3 patients, 2 failed, 1 done before"
    assert re.fullmatch(rf"pictures: {picture} \({counted}\), [\d.]+ s", last)
    assert f"bert: {broken}: 1 voxels are NaN or infinite" in done.stderr
    progress = [line for line in done.stdout.splitlines() if line.endswith(" of 2)")]
    assert sorted(line[:6] for line in progress) == ["anna: ", "bert: "]
    assert progress[1].endswith("(2 of 2)")
    assert [path.name for path in output.iterdir()] == ["anna"]


def test_missing_files_are_named_before_any_file_is_read(scans, tmp_path, capsys, monkeypatch):
    def never(*_):
        raise AssertionError("read")

    monkeypatch.setattr(patient_module, "read_scan", never)
    second, mask = tmp_path / "time02.nii.gz", tmp_path / "brain.nii.gz"
    flags = ["-t1", str(scans / "time01.nii.gz"), "-t2", str(second), f"--brain_mask02={mask}"]
    assert main([*flags, "-o", str(tmp_path / "anna")]) == 1
    assert f"{second}, {mask}: no such file or folder" in capsys.readouterr().err


def test_jobs_needs_dataset(scans, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(flags_of(scans, tmp_path / "anna", "--jobs=1"))
    assert "error: --jobs needs --dataset" in capsys.readouterr().err


def test_the_same_scan_for_both_visits_is_refused(scans, tmp_path, capsys):
    first = str(scans / "time01.nii.gz")
    assert main(["-t1", first, "-t2", first, "-o", str(tmp_path / "anna")]) == 1
    assert "the same scan was given twice" in capsys.readouterr().err


def test_one_line_says_which_missing_libraries_to_install(scans, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    assert main(flags_of(scans, tmp_path / "anna")) == 1
    said = capsys.readouterr().err
    assert "SimpleITK, nilearn and pydicom" in said
    assert 'pip install ".[prepare]"' in said
    assert said.count("\n") == 1


def test_prediction_on_prepared_pairs_imports_none_of_the_libraries():
    check = (
        "import sys, msseg_jax.cli.predict, msseg_jax.cli.flags.prepare\n"
        "print([name for name in ('SimpleITK', 'nilearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_stopping_a_data_set_stops_its_processes_and_leaves_no_files(scans, tmp_path):
    root, output = tmp_path / "scans", tmp_path / "out"
    for name in ("anna", "bert"):
        (root / name).mkdir(parents=True)
        for visit in ("time01", "time02"):
            shutil.copy(scans / f"{visit}.nii.gz", root / name)
    flags = [f"--dataset={root}", f"--output={output}", "--jobs=2"]
    status, said = heads.stop_when(
        lambda: output.is_dir() and len(list(output.iterdir())) == 2,  # both are being prepared
        "msseg_jax", "prepare", *flags,
    )  # fmt: skip
    assert status == 1
    assert said == f"{PROGRAM}: Interrupted. Run the same command again to resume.\n"
    assert list(output.iterdir()) == []
