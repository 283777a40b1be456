"""The script that makes the released weights: which scans and masks each network may see."""

import subprocess

import nibabel as nib
import numpy as np
import pytest

from benchmarks import weights


def save(path, voxels=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((4, 4, 4), np.uint8)
    array.flat[:voxels] = 1
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)


@pytest.fixture
def data(tmp_path):
    """Write one patient of each folder."""
    root = tmp_path / "data"
    for source in weights.SOURCES.values():
        for folder in source.folders:
            save(root / folder / "05" / "FLAIR.nii.gz", voxels=9)
    for name in ("lesion_mask", "ventricles"):
        save(root / "tabriz" / "05" / f"{name}.nii.gz", voxels=3)
    return root


def test_scans_are_linked_under_a_name_with_their_source(data, tmp_path):
    work = tmp_path / "work"
    for _ in range(2):  # the second run finds everything in place
        weights.link_scans(data, work, [])
    scan = work / "scans" / "tabriz" / "tabriz_05" / "FLAIR.nii.gz"
    assert scan.resolve() == (data / "tabriz" / "05" / "FLAIR.nii.gz").resolve()
    # Its lesions also give shapes, but only its lesions do.
    (mask,) = (work / "masks" / "tabriz").iterdir()
    assert mask.name == "tabriz_05.nii.gz"
    assert nib.load(mask).get_fdata().sum() == 3


def test_only_a_scan_without_lesions_gets_an_empty_mask(data, tmp_path):
    work = tmp_path / "work"
    weights.link_scans(data, work, [])
    empty = nib.load(work / "scans" / "healthy" / "healthy_05" / "lesion_mask.nii.gz")
    assert empty.shape == (4, 4, 4)
    assert not empty.get_fdata().any()
    np.testing.assert_array_equal(empty.affine, np.diag([1.0, 1.0, 2.0, 1.0]))
    assert not (work / "masks" / "healthy").exists(), "it gives no shapes"
    assert not (work / "scans" / "mslesseg" / "mslesseg_05" / "lesion_mask.nii.gz").exists()


@pytest.fixture
def commands(monkeypatch):
    """Note the commands that a step runs, and do not run them."""
    noted = []

    def run(command, **_):
        noted.append([str(part) for part in command])
        return subprocess.CompletedProcess(command, returncode=0)

    monkeypatch.setattr(weights.subprocess, "run", run)
    return noted


@pytest.mark.parametrize("name", weights.NETWORKS)
def test_a_network_sees_neither_scans_nor_masks_of_what_it_is_tested_on(
    data, tmp_path, commands, name
):
    work = tmp_path / "work"
    for patient in ("01", "03"):
        save(data / "open_ms" / "longitudinal" / patient / "FLAIR.nii.gz", voxels=9)
    weights.link_scans(data, work, [])

    network = weights.NETWORKS[name]
    for source in network.sources:
        (work / "made" / network.lesions / source).mkdir(parents=True)
    weights.make_pairs(data, work, [name])
    made = {flag.rsplit("/", 1)[-1] for command in commands for flag in command
            if flag.startswith("--output=")}  # fmt: skip
    assert made == set(network.sources)
    unseen = name.removeprefix("no_")
    assert unseen not in made
    folders = {flag.split("=")[1] for command in commands for flag in command
               if flag.startswith(("--masks=", "--shapes="))}  # fmt: skip
    assert not any(folder.endswith(f"masks/{unseen}") for folder in folders)
    assert any("open_ms" in folder for folder in folders) == (unseen != "ljubljana")
    for command in commands:
        for patient in weights.TESTED if unseen != "ljubljana" else ():
            assert f"--leave_out={patient}" in command, "the masks of this patient"
            if any(flag.endswith("scans/ljubljana") for flag in command):
                assert f"--leave_out=ljubljana_{patient}" in command


@pytest.mark.parametrize("name", weights.ALL)
def test_a_network_is_tested_on_scans_that_it_has_not_seen(tmp_path, commands, name):
    weights.predict(tmp_path, tmp_path, [name])
    roots = {flag.rsplit("/", 1)[-1] for command in commands for flag in command
             if flag.startswith("--dataset=")}  # fmt: skip
    assert roots == {weights.ALL[name].unseen, weights.PATIENTS}
    assert not roots & set(weights.ALL[name].sources)
    for command in commands:
        assert f"--model={tmp_path / 'runs' / name}" in command
    folders = [flag for command in commands for flag in command if flag.startswith("--output=")]
    assert len(set(folders)) == len(folders), "no result replaces another"


def test_the_pairs_of_a_test_are_made_from_each_set_once(data, tmp_path, commands):
    weights.make_test_pairs(data, tmp_path, ["no_mslesseg", "new_only", "no_tabriz"])
    made = [flag.rsplit("/", 1)[-1] for command in commands for flag in command
            if flag.startswith("--output=")]  # fmt: skip
    assert made == ["mslesseg", "tabriz", weights.PATIENTS]


def test_the_released_file_has_the_options_with_which_its_lesions_were_counted(tmp_path, commands):
    weights.export(tmp_path, tmp_path, [])
    counting, exporting = commands
    for name, value in weights.OPTIONS.items():
        assert f"--{name}={value}" in counting
        assert f"--{name}={value}" in exporting
    maps = [flag for flag in counting if flag.startswith("--probability=")]
    assert len(maps) == len(weights.NETWORKS)
    assert all(f"/flips{weights.OPTIONS['flips']}/" in flag for flag in maps)
    assert f"--reliability={tmp_path / 'reliability.json'}" in exporting
