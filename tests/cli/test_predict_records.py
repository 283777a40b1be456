"""`msseg predict --dataset`: the record of each patient, and which patients are skipped."""

import json
import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from msseg_jax.cli.main import main
from msseg_jax.inference import patients as patients_module
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.models.network_digest import network_digest
from msseg_jax.models.networks import trained_networks
from msseg_jax.volumes import layout
from tests.support.patients import SHAPE, save_nifti
from tests.support.runs import save_run


def predict(flags):
    return main(["predict", *map(str, flags)])


@pytest.fixture
def run(small_config, tmp_path):
    """Return the folder of a run with an untrained network."""
    small_config.predict.threshold = 0.3
    return save_run(tmp_path / "run", small_config)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def flags(run, patients_root, out):
    return [f"--model={run}", f"--dataset={patients_root}", f"--output={out}"]


def record_of(out, patient="patient_0"):
    return json.loads((out / f"{patient}.json").read_text())


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of the patients."""
    return {path.name: path.read_bytes() for path in folder.glob("patient_*")}


# ---------------------------------------------------------------------------------- the record


def test_the_record_names_what_the_results_were_made_from(flags, run, patients_root, out, tmp_path):
    maps = tmp_path / "maps"
    assert predict([*flags, f"--probability={maps}", "--threshold=0.4"]) == 0
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
    assert network["sha256"] == network_digest(trained_networks(run)[0])
    first = record["inputs"]["first visit"]
    assert first["path"] == str(patients_root / "patient_0" / layout.TIME01)
    assert record["scans"] is None


def test_a_run_and_its_model_file_have_one_digest_and_other_weights_have_another(
    run, small_config, tmp_path
):
    file = tmp_path / "one.safetensors"
    assert main(["export", f"--model={run}", f"--output={file}", "--threshold=0.9"]) == 0
    digests = [Ensemble([path]).digests for path in (run, file)]
    assert digests[0] == digests[1]
    other = save_run(tmp_path / "other", small_config, seed=5)
    assert Ensemble([other]).digests != digests[0]
    small_config.data.spacing_mm = 3.0
    assert Ensemble([save_run(tmp_path / "third", small_config)]).digests != digests[0]


# -------------------------------------------------------------------------------- what is skipped


def test_the_same_command_again_changes_no_file(flags, out, capsys):
    assert predict(flags) == 0
    before = contents(out)
    capsys.readouterr()
    assert predict(flags) == 0
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
    flags, patients_root, out, small_config, tmp_path, capsys, change, message
):
    assert predict(flags) == 0
    before = contents(out)
    capsys.readouterr()
    changed = list(flags)
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


def test_a_larger_batch_is_no_difference(flags, capsys):
    assert predict(flags) == 0
    assert predict([*flags, "--batch_size=3"]) == 0
    assert "(4 patients, 4 done before)" in capsys.readouterr().out


def test_results_without_a_record_are_kept(flags, out, capsys):
    assert predict(flags) == 0
    (out / "patient_2.json").unlink()
    (out / "patient_2.nii.gz").write_bytes(b"mine")
    assert predict(flags) == 1
    error = capsys.readouterr().err
    assert "1 of 4 patients failed" in error
    assert "patient_2.nii.gz: exists, but there is no record of how it was made" in error
    assert (out / "patient_2.nii.gz").read_bytes() == b"mine"
    assert predict([*flags, "--overwrite"]) == 0
    assert nib.load(out / "patient_2.nii.gz").shape == SHAPE


def test_results_of_a_killed_run_are_made_again(flags, out, monkeypatch, capsys):
    write = patients_module.write_results

    def killed(prediction, files):
        write(prediction, files)
        raise KeyboardInterrupt

    monkeypatch.setattr(patients_module, "write_results", killed)
    assert predict(flags) == 1
    assert record_of(out)["finished"] is False
    assert (out / "patient_0.nii.gz").is_file()
    monkeypatch.setattr(patients_module, "write_results", write)
    capsys.readouterr()
    assert predict(flags) == 0
    assert "(4 patients)" in capsys.readouterr().out
    assert record_of(out)["finished"] is True


def test_an_interrupted_run_leaves_tables_that_agree_with_the_results(
    flags, out, monkeypatch, capsys
):
    assert predict(flags) == 0
    write = patients_module.write_results

    def interrupted(prediction, files):
        if files.mask.name == "patient_2.nii.gz":
            raise KeyboardInterrupt
        write(prediction, files)

    monkeypatch.setattr(patients_module, "write_results", interrupted)
    again = [*flags, "--overwrite", "--threshold=0.4"]
    assert predict(again) == 1
    assert "Interrupted" in capsys.readouterr().err
    patients = pd.read_csv(out / "patients.csv").set_index("patient")
    expected = ["done", "done", "not reached", "not reached"]
    assert patients["status"][[f"patient_{k}" for k in range(4)]].tolist() == expected
    lesions = pd.read_csv(out / "lesions.csv")
    assert set(lesions.patient) == {"patient_0", "patient_1"}
    assert patients.lesions["patient_0"] == record_of(out)["lesions"]
    assert "2 patients were not reached" in (out / "index.html").read_text()
    monkeypatch.setattr(patients_module, "write_results", write)
    assert predict(again) == 0
    assert set(pd.read_csv(out / "patients.csv").status) == {"done"}
    assert "not reached" not in (out / "index.html").read_text()


def test_a_report_in_another_folder_does_not_stay_either(flags, tmp_path):
    assert predict([*flags, f"--report={tmp_path / 'one'}"]) == 0
    again = [*flags, f"--report={tmp_path / 'two'}", "--overwrite", "--threshold=0.6"]
    assert predict(again) == 0
    assert contents(tmp_path / "one") == {}
    assert len(contents(tmp_path / "two")) == 4


def test_a_file_that_was_changed_after_the_record_is_kept(flags, out):
    assert predict([*flags, "--report"]) == 0
    report = out / "patient_0.html"
    report.write_text("newer")
    later_s = (out / "patient_0.json").stat().st_mtime + 10
    os.utime(report, (later_s, later_s))
    assert predict([*flags, "--overwrite", "--threshold=0.6"]) == 0
    assert report.read_text() == "newer"


def test_patients_that_are_done_stay_in_the_tables_of_an_interrupted_run(flags, out, monkeypatch):
    assert predict(flags) == 0
    (out / "patient_0.json").unlink()
    for path in out.glob("patient_0*"):
        path.unlink()

    def interrupted(prediction, files):
        raise KeyboardInterrupt

    monkeypatch.setattr(patients_module, "write_results", interrupted)
    assert predict(flags) == 1
    patients = pd.read_csv(out / "patients.csv").set_index("patient")
    assert patients.status.value_counts().to_dict() == {"done": 3, "not reached": 1}
    assert patients.status["patient_0"] == "not reached"


def test_no_file_is_deleted_that_the_patient_does_not_own(flags, out, tmp_path):
    assert predict([*flags, "--report"]) == 0
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    record = record_of(out)
    record["outputs"]["report"] = "../mine.html"
    (out / "patient_0.json").write_text(json.dumps(record))
    assert predict([*flags, "--overwrite", "--threshold=0.6"]) == 0
    assert mine.read_text() == "mine"
    assert not (out / "patient_1.html").exists(), "it would show other lesions than the mask"


def test_an_old_report_is_not_taken_for_a_new_one(flags, out, tmp_path, capsys):
    reports = f"--report={tmp_path / 'pages'}"
    assert predict([*flags, reports, "--threshold=0.6"]) == 0
    old = contents(tmp_path / "pages")["patient_0.html"]
    assert b"probability above 0.6" in old
    assert predict([*flags, "--overwrite"]) == 0  # the reports show the threshold 0.6
    assert contents(tmp_path / "pages") == {}
    assert predict([*flags, reports]) == 0
    new = contents(tmp_path / "pages")["patient_0.html"]
    assert b"probability above 0.3" in new
    capsys.readouterr()
    assert predict(flags) == 0  # fewer results than there are
    assert predict([*flags, reports]) == 0
    assert capsys.readouterr().out.count("4 done before") == 2


def test_a_deleted_mask_is_made_again(flags, out, capsys):
    assert predict(flags) == 0
    (out / "patient_1.nii.gz").unlink()
    assert predict([*flags]) == 0
    assert "(4 patients, 3 done before)" in capsys.readouterr().out
    assert nib.load(out / "patient_1.nii.gz").shape == SHAPE


@pytest.mark.parametrize("text", ['{"EchoTime": 0.1}', "not JSON", "[]"])
def test_a_json_file_of_others_is_never_replaced(flags, out, capsys, text):
    out.mkdir()
    (out / "patient_3.json").write_text(text)
    for more in ([], ["--overwrite"]):
        assert predict([*flags, *more]) == 1
        error = capsys.readouterr().err
        assert "1 of 4 patients failed" in error
        assert f"patient_3: {out / 'patient_3.json'}: is " in error
    assert (out / "patient_3.json").read_text() == text
    assert not (out / "patient_3.nii.gz").exists()


def test_a_record_of_another_version_is_replaced_only_with_overwrite(flags, out, capsys):
    assert predict(flags) == 0
    record = record_of(out) | {"new_field": 1}
    (out / "patient_0.json").write_text(json.dumps(record))
    assert predict(flags) == 1
    assert "was written by another version of this program" in capsys.readouterr().err
    assert predict([*flags, "--overwrite"]) == 0
    assert "new_field" not in record_of(out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lesions": -5}, "record.lesions is -5"),
        ({"lesions": None}, "finished is true, but lesions or volume_mm3 is missing"),
        (None, "Or delete it, and add --overwrite to predict the patient again"),
    ],
)
def test_a_record_that_was_changed_by_hand_is_refused(flags, out, changes, message, capsys):
    assert predict(flags) == 0
    path = out / "patient_0.json"
    record = json.loads(path.read_text())
    path.write_text("" if changes is None else json.dumps(record | changes))
    assert predict(flags) == 1
    error = capsys.readouterr().err
    assert f"patient_0: {path}: is damaged" in error
    assert message in error


def test_a_single_pair_that_replaces_a_mask_replaces_its_record(flags, patients_root, out, capsys):
    assert predict(flags) == 0
    folder = patients_root / "patient_0"
    pair = ["-t1", folder / layout.TIME01, "-t2", folder / layout.TIME02]
    assert predict([flags[0], *pair, "-o", out / "patient_0.nii.gz", "--threshold=0.9"]) == 0
    assert record_of(out)["options"]["threshold"] == 0.9
    assert record_of(out)["finished"] is True
    assert predict(flags) == 1
    assert "threshold was 0.9 and is 0.3" in capsys.readouterr().err


def test_masks_may_lie_beside_the_patients_and_can_be_scored_there(
    run, patients_root, tmp_path, capsys
):
    flags = [f"--model={run}", f"--dataset={patients_root}", f"--output={patients_root}"]
    assert predict([*flags, "--report"]) == 0
    folders = [path.name for path in patients_root.iterdir() if path.is_dir()]
    assert sorted(folders) == [f"patient_{k}" for k in range(4)]
    assert predict([*flags, "--report"]) == 0  # neither masks nor records count as patients
    assert "(4 patients, 4 done before)" in capsys.readouterr().out
    scores = tmp_path / "scores"
    where = [f"--reference={patients_root}", f"--prediction={patients_root}"]
    assert main(["evaluate", *where, f"--output={scores}", "--no_report"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(rf"tables: {scores} \(4 patients\), [\d.]+ s", last)


def test_a_path_that_is_no_text_is_written_with_escapes(run, patients_root, tmp_path, capsys):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    shutil.copytree(patients_root, place)
    flags = [f"--model={run}", f"--dataset={place}", f"--output={place}_out", "--report"]
    assert predict(flags) == 0
    out = Path(f"{place}_out")
    record = record_of(out)
    assert record["inputs"]["first visit"]["path"].startswith(f"{tmp_path}/caf\\udce9/patient_0/")
    assert "caf\\udce9/patient_0" in (out / "patient_0.html").read_text()
    assert predict(flags) == 0
    assert "4 done before" in capsys.readouterr().out


# ------------------------------------------------------------------------------ broken patients


def break_patients(root: Path) -> dict[str, str]:
    """Add patients that are broken in different ways; return a part of the reason for each."""
    good = root / "patient_0"

    def copy(name):
        return Path(shutil.copytree(good, root / name))

    second = copy("truncated") / layout.TIME02
    second.write_bytes(second.read_bytes()[:200])
    save_nifti(copy("grid") / layout.TIME02, np.ones((5, 6, 7), np.float32))
    image = nib.load(good / layout.TIME02)
    voxels = image.get_fdata(dtype=np.float32)
    voxels[5, 5, 5] = np.nan
    nib.save(nib.Nifti1Image(voxels, image.affine), copy("nan") / layout.TIME02)
    nib.save(
        nib.Nifti1Image(np.zeros(SHAPE, np.uint8), image.affine),
        copy("empty_mask") / layout.BRAIN_MASK,
    )
    shutil.copy(good / layout.TIME01, copy("twice") / layout.TIME02)
    (copy("missing") / layout.TIME01).unlink()
    folder = copy("folder")
    (folder / layout.TIME02).unlink()
    (folder / layout.TIME02).mkdir()
    looped = copy("looped") / layout.TIME02
    looped.unlink()
    looped.symlink_to(looped)
    (root / "link").symlink_to(root / "nowhere")
    (root / "void").mkdir()
    shutil.copytree(os.fsencode(good), os.fsencode(root) + b"/caf\xe9")
    return {
        "truncated": "or a damaged copy", "grid": "(5, 6, 7)", "nan": "NaN",
        "empty_mask": "the brain would be empty", "twice": "the same voxels",
        "missing": "no such file", "folder": layout.TIME02, "looped": "no such file",
        "link": "is a link to nothing", "void": "no such file", "caf\\udce9": "is not UTF-8",
    }  # fmt: skip


def test_every_good_patient_is_predicted_and_every_broken_one_is_listed(
    flags, patients_root, out, capsys, monkeypatch
):
    reasons = break_patients(patients_root)
    shutil.copytree(patients_root / "patient_0", patients_root / "large")
    predict_one = patients_module.predict

    def with_little_memory(ensemble, patient, options):
        if patient.name == "large":
            raise MemoryError
        return predict_one(ensemble, patient, options)

    monkeypatch.setattr(patients_module, "predict", with_little_memory)
    reasons["large"] = "memory ran out"
    assert predict(flags) == 1
    printed = capsys.readouterr()
    listed = printed.err.split("patients failed:\n")[1].splitlines()
    for name, reason in reasons.items():
        (line,) = (line for line in listed if line.startswith(f"  {name}: "))
        assert reason in line
    assert len([line for line in listed if not line.startswith("    ")]) == len(reasons)
    names = [f"patient_{k}" for k in range(4)]
    assert sorted(path.stem for path in out.glob("*.json")) == names
    last = printed.out.splitlines()[-1]
    total = 4 + len(reasons)
    assert re.fullmatch(
        rf"patients: {out}/index.html \({total} patients, {len(reasons)} failed\), [\d.]+ s", last
    )
    patients = pd.read_csv(out / "patients.csv", keep_default_na=False).set_index("patient")
    assert set(patients.index) == {*names, *reasons}
    for name, reason in reasons.items():
        assert patients.status[name] == "failed"
        assert reason in patients.reason[name]
    assert (patients.status[names] == "done").all()


def test_a_folder_without_a_usable_patient_is_refused_before_the_networks_are_loaded(
    run, patients_root, out, tmp_path, capsys, monkeypatch
):
    def never(*_):
        raise AssertionError("a network was loaded")

    monkeypatch.setattr("msseg_jax.cli.prediction.Ensemble", never)
    root = tmp_path / "root"
    for name in ("anna", "bert"):
        (root / name).mkdir(parents=True)
    shutil.copy(patients_root / "patient_0" / layout.TIME01, root / "anna")
    assert predict([f"--model={run}", f"--dataset={root}", f"--output={out}"]) == 1
    assert capsys.readouterr().err == (
        f"msseg predict: {root}/anna/{layout.TIME02}: no such file.\n"
        f"{root}/bert/{layout.TIME01}, {root}/bert/{layout.TIME02}: no such file.\n"
    )
    assert not out.exists()


def test_a_name_that_is_too_long_for_a_mask_fails_before_the_prediction(
    flags, patients_root, out, capsys, monkeypatch
):
    (patients_root / "patient_1").rename(patients_root / ("x" * 252))
    seen = []
    predict_one = patients_module.predict

    def noted(ensemble, patient, options):
        seen.append(patient.name)
        return predict_one(ensemble, patient, options)

    monkeypatch.setattr(patients_module, "predict", noted)
    assert predict(flags) == 1
    assert "cannot be written (File name too long)" in capsys.readouterr().err
    assert seen == ["patient_0", "patient_2", "patient_3"]
