"""`msseg predict --dataset` after a run that was killed, interrupted, or had other options."""

import json
import os

import nibabel as nib
import pandas as pd

from msseg_jax.inference import patients as patients_module
from tests.support.folders import contents, predict, record_of
from tests.support.patients import SHAPE


def test_results_of_a_killed_run_are_made_again(folder_flags, out, monkeypatch, capsys):
    write = patients_module.write_results

    def killed(prediction, files):
        write(prediction, files)
        raise KeyboardInterrupt

    monkeypatch.setattr(patients_module, "write_results", killed)
    assert predict(folder_flags) == 1
    assert record_of(out)["finished"] is False
    assert (out / "patient_0.nii.gz").is_file()
    monkeypatch.setattr(patients_module, "write_results", write)
    capsys.readouterr()
    assert predict(folder_flags) == 0
    assert "(4 patients)" in capsys.readouterr().out
    assert record_of(out)["finished"] is True


def test_an_interrupted_run_leaves_tables_that_agree_with_the_results(
    folder_flags, out, monkeypatch, capsys
):
    assert predict(folder_flags) == 0
    write = patients_module.write_results

    def interrupted(prediction, files):
        if files.mask.name == "patient_2.nii.gz":
            raise KeyboardInterrupt
        write(prediction, files)

    monkeypatch.setattr(patients_module, "write_results", interrupted)
    again = [*folder_flags, "--overwrite", "--threshold=0.4"]
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


def test_a_report_in_another_folder_does_not_stay_either(folder_flags, tmp_path):
    assert predict([*folder_flags, f"--report={tmp_path / 'one'}"]) == 0
    again = [*folder_flags, f"--report={tmp_path / 'two'}", "--overwrite", "--threshold=0.6"]
    assert predict(again) == 0
    assert contents(tmp_path / "one") == {}
    assert len(contents(tmp_path / "two")) == 4


def test_a_file_that_was_changed_after_the_record_is_kept(folder_flags, out):
    assert predict([*folder_flags, "--report"]) == 0
    report = out / "patient_0.html"
    report.write_text("newer")
    later_s = (out / "patient_0.json").stat().st_mtime + 10
    os.utime(report, (later_s, later_s))
    assert predict([*folder_flags, "--overwrite", "--threshold=0.6"]) == 0
    assert report.read_text() == "newer"


def test_patients_that_are_done_stay_in_the_tables_of_an_interrupted_run(
    folder_flags, out, monkeypatch
):
    assert predict(folder_flags) == 0
    (out / "patient_0.json").unlink()
    for path in out.glob("patient_0*"):
        path.unlink()

    def interrupted(prediction, files):
        raise KeyboardInterrupt

    monkeypatch.setattr(patients_module, "write_results", interrupted)
    assert predict(folder_flags) == 1
    patients = pd.read_csv(out / "patients.csv").set_index("patient")
    assert patients.status.value_counts().to_dict() == {"done": 3, "not reached": 1}
    assert patients.status["patient_0"] == "not reached"


def test_no_file_is_deleted_that_the_patient_does_not_own(folder_flags, out, tmp_path):
    assert predict([*folder_flags, "--report"]) == 0
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    record = record_of(out)
    record["outputs"]["report"] = "../mine.html"
    (out / "patient_0.json").write_text(json.dumps(record))
    assert predict([*folder_flags, "--overwrite", "--threshold=0.6"]) == 0
    assert mine.read_text() == "mine"
    assert not (out / "patient_1.html").exists(), "it would show other lesions than the mask"


def test_an_old_report_is_not_taken_for_a_new_one(folder_flags, out, tmp_path, capsys):
    reports = f"--report={tmp_path / 'pages'}"
    assert predict([*folder_flags, reports, "--threshold=0.6"]) == 0
    old = contents(tmp_path / "pages")["patient_0.html"]
    assert b"probability above 0.6" in old
    assert predict([*folder_flags, "--overwrite"]) == 0  # the reports showed the threshold 0.6
    assert contents(tmp_path / "pages") == {}
    assert predict([*folder_flags, reports]) == 0
    new = contents(tmp_path / "pages")["patient_0.html"]
    assert b"probability above 0.3" in new
    capsys.readouterr()
    assert predict(folder_flags) == 0  # fewer results than there are
    assert predict([*folder_flags, reports]) == 0
    assert capsys.readouterr().out.count("4 done before") == 2


def test_a_deleted_mask_is_made_again(folder_flags, out, capsys):
    assert predict(folder_flags) == 0
    (out / "patient_1.nii.gz").unlink()
    assert predict([*folder_flags]) == 0
    assert "(4 patients, 3 done before)" in capsys.readouterr().out
    assert nib.load(out / "patient_1.nii.gz").shape == SHAPE
