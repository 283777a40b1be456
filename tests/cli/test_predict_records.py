"""`msseg predict --dataset`: the record of each patient, and which patients are skipped."""

import json
import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msseg_jax.cli.main import main
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.models.network_digest import network_digest
from msseg_jax.models.networks import trained_networks
from msseg_jax.volumes import layout
from tests.support.folders import contents, predict, record_of
from tests.support.patients import SHAPE
from tests.support.runs import save_run

# ---------------------------------------------------------------------------------- the record


def test_the_record_names_what_the_results_were_made_from(
    folder_flags, untrained_run, patients_root, out, tmp_path
):
    maps = tmp_path / "maps"
    assert predict([*folder_flags, f"--probability={maps}", "--threshold=0.4"]) == 0
    record = record_of(out)
    mask = nib.load(out / "patient_0.nii.gz")
    voxels = np.asarray(mask.dataobj)
    assert record["volume_mm3"] == pytest.approx(
        voxels.sum() * np.prod(mask.header.get_zooms()), abs=1e-3
    )
    assert record["finished"] is True
    assert record["options"]["threshold"] == 0.4
    assert record["outputs"] == {
        "mask": "patient_0.nii.gz", "probability": "../maps/patient_0.nii.gz",
        "table": "patient_0_lesions.csv", "numbered": "patient_0_lesions.nii.gz",
    }  # fmt: skip
    (network,) = record["networks"]
    assert network["checkpoint"] == "last, step 4"
    assert network["sha256"] == network_digest(trained_networks(untrained_run)[0])
    first = record["inputs"]["first visit"]
    assert first["path"] == str(patients_root / "patient_0" / layout.TIME01)
    assert record["scans"] is None


def test_a_run_and_its_model_file_have_one_digest_and_other_weights_have_another(
    untrained_run, small_config, tmp_path
):
    file = tmp_path / "one.safetensors"
    assert main(["export", f"--model={untrained_run}", f"--output={file}", "--threshold=0.9"]) == 0
    digests = [Ensemble([path]).digests for path in (untrained_run, file)]
    assert digests[0] == digests[1]
    other = save_run(tmp_path / "other", small_config, seed=5)
    assert Ensemble([other]).digests != digests[0]
    small_config.data.spacing_mm = 3.0
    assert Ensemble([save_run(tmp_path / "third", small_config)]).digests != digests[0]


# -------------------------------------------------------------------------------- what is skipped


def test_the_same_command_again_changes_no_file(folder_flags, out, capsys):
    assert predict(folder_flags) == 0
    before = contents(out)
    capsys.readouterr()
    assert predict(folder_flags) == 0
    assert contents(out) == before
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    record = record_of(out)
    lesions = f"{record['lesions']} lesion{'' if record['lesions'] == 1 else 's'}"
    mm3 = f"{record['volume_mm3']:.0f}"
    assert lines[1] == f"mask: {out}/patient_0.nii.gz ({lesions}, {mm3} mm3), done before"
    last = rf"patients: {out}/index.html \(4 patients, 4 done before\), [\d.]+ s"
    assert re.fullmatch(last, lines[-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("option", "threshold was 0.3 and is 0.7"),
        ("tile", "tile was not given and is 16"),
        ("network", "the networks are different"),
        ("visit", "the second visit has changed"),
        ("mask", "there was a brain mask"),
    ],
)
def test_results_that_were_made_in_another_way_are_kept_and_the_difference_is_named(
    folder_flags, patients_root, out, small_config, tmp_path, capsys, change, message
):
    assert predict(folder_flags) == 0
    before = contents(out)
    capsys.readouterr()
    changed = list(folder_flags)
    folder = patients_root / "patient_0"
    if change == "option":
        changed.append("--threshold=0.7")
    elif change == "tile":
        changed.append("--tile=16")
    elif change == "network":
        changed[0] = f"--model={save_run(tmp_path / 'other', small_config, seed=1)}"
    elif change == "visit":
        image = nib.load(folder / layout.TIME02)
        nib.save(nib.Nifti1Image(image.get_fdata() * 1.5, image.affine), folder / layout.TIME02)
    else:
        (folder / layout.BRAIN_MASK).unlink()
    assert predict(changed) == 1
    error = capsys.readouterr().err
    expected = (
        f"  patient_0: {out}/patient_0.nii.gz: was made in another way: {message}. Use --overwrite "
        "to predict the patient again, or choose another --output.\n"
    )
    assert expected in error
    assert contents(out) == before
    assert predict([*changed, "--overwrite"]) == 0
    assert contents(out)["patient_0.json"] != before["patient_0.json"]
    assert predict(changed) == 0  # now they are done in this way


def test_a_larger_batch_is_no_difference(folder_flags, capsys):
    assert predict(folder_flags) == 0
    assert predict([*folder_flags, "--batch_size=3"]) == 0
    assert "(4 patients, 4 done before)" in capsys.readouterr().out


def test_results_without_a_record_are_kept(folder_flags, out, capsys):
    assert predict(folder_flags) == 0
    (out / "patient_2.json").unlink()
    (out / "patient_2.nii.gz").write_bytes(b"mine")
    assert predict(folder_flags) == 1
    error = capsys.readouterr().err
    assert "1 of 4 patients failed" in error
    assert "patient_2.nii.gz: exists, but there is no record of how it was made" in error
    assert (out / "patient_2.nii.gz").read_bytes() == b"mine"
    assert predict([*folder_flags, "--overwrite"]) == 0
    assert nib.load(out / "patient_2.nii.gz").shape == SHAPE


@pytest.mark.parametrize("text", ['{"EchoTime": 0.1}', "not JSON", "[]"])
def test_a_json_file_of_others_is_never_replaced(folder_flags, out, capsys, text):
    out.mkdir()
    (out / "patient_3.json").write_text(text)
    for more in ([], ["--overwrite"]):
        assert predict([*folder_flags, *more]) == 1
        error = capsys.readouterr().err
        assert "1 of 4 patients failed" in error
        assert f"patient_3: {out / 'patient_3.json'}: is " in error
    assert (out / "patient_3.json").read_text() == text
    assert not (out / "patient_3.nii.gz").exists()


def test_a_record_of_another_version_is_replaced_only_with_overwrite(folder_flags, out, capsys):
    assert predict(folder_flags) == 0
    record = record_of(out) | {"new_field": 1}
    (out / "patient_0.json").write_text(json.dumps(record))
    assert predict(folder_flags) == 1
    assert "was written by another version of this program" in capsys.readouterr().err
    assert predict([*folder_flags, "--overwrite"]) == 0
    assert "new_field" not in record_of(out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lesions": -5}, "record.lesions is -5"),
        ({"lesions": None}, "finished is true, but lesions or volume_mm3 is missing"),
        (None, "Or delete it, and add --overwrite to predict the patient again"),
    ],
)
def test_a_record_that_was_changed_by_hand_is_refused(folder_flags, out, changes, message, capsys):
    assert predict(folder_flags) == 0
    path = out / "patient_0.json"
    record = json.loads(path.read_text())
    path.write_text("" if changes is None else json.dumps(record | changes))
    assert predict(folder_flags) == 1
    error = capsys.readouterr().err
    assert f"patient_0: {path}: is damaged" in error
    assert message in error


def test_a_single_pair_that_replaces_a_mask_replaces_its_record(
    folder_flags, patients_root, out, capsys
):
    assert predict(folder_flags) == 0
    folder = patients_root / "patient_0"
    pair = ["-t1", folder / layout.TIME01, "-t2", folder / layout.TIME02]
    assert predict([folder_flags[0], *pair, "-o", out / "patient_0.nii.gz", "--threshold=0.9"]) == 0
    assert record_of(out)["options"]["threshold"] == 0.9
    assert record_of(out)["finished"] is True
    assert predict(folder_flags) == 1
    assert "threshold was 0.9 and is 0.3" in capsys.readouterr().err


def test_masks_may_lie_beside_the_patients_and_can_be_scored_there(
    untrained_run, patients_root, tmp_path, capsys
):
    folder_flags = [
        f"--model={untrained_run}",
        f"--dataset={patients_root}",
        f"--output={patients_root}",
    ]
    assert predict([*folder_flags, "--report"]) == 0
    folders = [path.name for path in patients_root.iterdir() if path.is_dir()]
    assert sorted(folders) == [f"patient_{k}" for k in range(4)]
    assert predict([*folder_flags, "--report"]) == 0  # neither masks nor records count as patients
    assert "(4 patients, 4 done before)" in capsys.readouterr().out
    scores = tmp_path / "scores"
    where = [f"--reference={patients_root}", f"--prediction={patients_root}"]
    assert main(["evaluate", *where, f"--output={scores}", "--no_report"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(rf"tables: {scores} \(4 patients\), [\d.]+ s", last)


def test_a_path_that_is_no_text_is_written_with_escapes(
    untrained_run, patients_root, tmp_path, capsys
):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    shutil.copytree(patients_root, place)
    folder_flags = [
        f"--model={untrained_run}",
        f"--dataset={place}",
        f"--output={place}_out",
        "--report",
    ]
    assert predict(folder_flags) == 0
    out = Path(f"{place}_out")
    record = record_of(out)
    assert record["inputs"]["first visit"]["path"].startswith(f"{tmp_path}/caf\\udce9/patient_0/")
    assert "caf\\udce9/patient_0" in (out / "patient_0.html").read_text()
    assert predict(folder_flags) == 0
    assert "4 done before" in capsys.readouterr().out
