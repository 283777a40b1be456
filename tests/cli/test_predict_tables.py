"""The tables and the numbered mask that `msseg predict` writes next to a mask."""

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from msseg_jax.cli.main import main
from msseg_jax.evaluation.evaluate import evaluate
from msseg_jax.inference.lesion_table import COLUMNS
from msseg_jax.volumes.layout import BRAIN_MASK, CONSENSUS, TIME01, TIME02
from tests.support.runs import save_run


def run(command, *flags):
    return main([command, *map(str, flags)])


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture
def model(small_config, tmp_path):
    """Return the folder of a run with an untrained network, which marks some lesions."""
    small_config.predict.threshold = 0.3
    return save_run(tmp_path / "run", small_config)


@pytest.fixture
def folder(model, patients_root, tmp_path):
    """Predict all patients, and return the folder of the results."""
    out = tmp_path / "out"
    assert run("predict", f"--model={model}", f"--dataset={patients_root}", "-o", out) == 0
    return out


def test_a_single_pair_gets_a_table_a_numbered_mask_and_a_record(model, patients_root, tmp_path):
    pair = patients_root / "patient_0"
    flags = ["-t1", pair / TIME01, "-t2", pair / TIME02, f"--mask={pair / BRAIN_MASK}"]
    assert run("predict", f"--model={model}", *flags, "-o", tmp_path / "new.nii") == 0
    table = pd.read_csv(tmp_path / "new_lesions.csv")
    assert list(table) == ["patient", *COLUMNS]
    numbered, mask = voxels(tmp_path / "new_lesions.nii.gz"), voxels(tmp_path / "new.nii")
    assert len(table) > 0
    np.testing.assert_array_equal(numbered > 0, mask > 0)
    voxel_mm3 = np.prod(nib.load(tmp_path / "new.nii").header.get_zooms())
    for row in table.itertuples():
        assert (numbered == row.label).sum() * voxel_mm3 == pytest.approx(row.volume_mm3, rel=1e-5)
    record = json.loads((tmp_path / "new.json").read_text())
    assert record["finished"] is True
    assert record["lesions"] == len(table)
    assert record["made_by"].keys() == {"msseg_jax", "python", "jax", "numpy"}
    assert record["inputs"].keys() == {"first visit", "second visit", "brain mask"}
    assert record["outputs"]["table"] == "new_lesions.csv"
    assert record["seconds"] > 0


def test_a_record_does_not_replace_a_file_of_another_program(
    model, patients_root, tmp_path, capsys
):
    pair = patients_root / "patient_0"
    (tmp_path / "new.json").write_text("{}")
    flags = ["-t1", pair / TIME01, "-t2", pair / TIME02, "-o", tmp_path / "new.nii.gz"]
    assert run("predict", f"--model={model}", *flags) == 1
    assert "new.json: is a file of another program" in capsys.readouterr().err
    assert (tmp_path / "new.json").read_text() == "{}"
    assert not (tmp_path / "new.nii.gz").exists()


def test_a_map_with_the_name_of_the_table_or_the_numbered_mask_is_refused(
    model, patients_root, tmp_path, capsys
):
    pair = patients_root / "patient_0"
    flags = ["-t1", pair / TIME01, "-t2", pair / TIME02, "-o", tmp_path / "new.nii.gz"]
    map_flag = f"--probability={tmp_path / 'new_lesions.nii.gz'}"
    assert run("predict", f"--model={model}", *flags, map_flag) == 1
    assert "the numbered mask" in capsys.readouterr().err


def test_the_tables_of_a_folder_hold_all_patients_of_this_and_earlier_runs(
    model, patients_root, folder, tmp_path
):
    single = [pd.read_csv(folder / f"patient_{k}_lesions.csv") for k in range(4)]
    lesions = pd.read_csv(folder / "lesions.csv")
    pd.testing.assert_frame_equal(lesions, pd.concat(single, ignore_index=True))
    shutil.copytree(patients_root / "patient_0", patients_root / "new")
    (patients_root / "new" / TIME02).write_bytes(b"damaged")
    report = tmp_path / "re port"
    flags = [f"--model={model}", f"--dataset={patients_root}", "-o", folder, f"--report={report}"]
    assert run("predict", *flags) == 1
    patients = pd.read_csv(folder / "patients.csv").set_index("patient")
    assert sorted(patients.index) == ["new", *(f"patient_{k}" for k in range(4))]
    assert patients.status["new"] == "failed"
    assert TIME02 in patients.reason["new"]
    for k in range(4):
        row = patients.loc[f"patient_{k}"]
        own = lesions[lesions.patient == f"patient_{k}"]
        assert row.lesions == len(own)
        assert row.volume_mm3 == pytest.approx(own.volume_mm3.sum(), rel=1e-4)
    page = (folder / "index.html").read_text()
    assert 'href="../re%20port/patient_0.html"' in page
    assert "1 failed" in page


def test_an_evaluation_takes_the_columns_of_the_prediction(folder, patients_root, tmp_path):
    for table in folder.glob("*_lesions.csv"):
        pd.read_csv(table).assign(right=3, of=10).to_csv(table, index=False)
    scores = tmp_path / "scores"
    where = [f"--reference={patients_root}", f"--prediction={folder}", "-o", scores, "--no_report"]
    assert run("evaluate", *where) == 0
    as_written = pd.read_csv(scores / "lesions.csv", dtype=str)
    assert set(as_written["right"].dropna()) == {"3"}
    assert set(as_written["of"].dropna()) == {"10"}
    found = pd.read_csv(scores / "lesions.csv")
    assert sorted(found.patient.unique()) == [f"patient_{k}" for k in range(4)]
    predicted = found[found["mask"] == "prediction"]
    own = pd.read_csv(folder / "lesions.csv").set_index(["patient", "lesion"])
    assert len(predicted) > 0
    for row in predicted.itertuples():
        same = own.loc[(row.patient, row.lesion)]
        assert (row.side, row.mean_probability) == (same.side, same.mean_probability)


def test_the_table_of_a_mask_that_was_edited_is_left_out(folder, patients_root, tmp_path, capfd):
    reference = nib.load(patients_root / "patient_0" / CONSENSUS)
    nib.save(reference, folder / "patient_0.nii.gz")
    evaluation = evaluate(patients_root, folder)
    found = evaluation.lesions
    assert list(evaluation.warnings) == ["patient_0"]
    assert found[found.patient == "patient_0"].side.isna().all()
    assert found[found.patient == "patient_1"].side.notna().any()
    scores = tmp_path / "scores"
    where = [f"--reference={patients_root}", f"--prediction={folder}", "-o", scores]
    assert run("evaluate", *where) == 0
    message = "patient_0_lesions.csv: does not belong to the mask next to it"
    assert message in capfd.readouterr().err
    assert message in (scores / "report.html").read_text()


@pytest.mark.parametrize("damage", ["", "a,b\n1,2\n", "twice", "text"])
def test_a_table_that_cannot_be_read_is_left_out(folder, patients_root, damage):
    file = folder / "patient_0_lesions.csv"
    table = pd.read_csv(file)
    if damage == "twice":
        pd.concat([table, table]).to_csv(file, index=False)
    elif damage == "text":
        table.astype({"volume_mm3": str}).assign(volume_mm3="large").to_csv(file, index=False)
    else:
        file.write_text(damage)
    evaluation = evaluate(patients_root, folder)
    assert "patient_0_lesions.csv: cannot be read" in evaluation.warnings["patient_0"]
    assert len(evaluation.of_prediction) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("index", "a result of the patient 'index' and one of all patients together"),
        ("patient_0_lesions", "'patient_0_lesions' and one of the patient 'patient_0'"),
    ],
)
def test_no_file_is_written_twice(model, patients_root, tmp_path, capsys, name, message):
    shutil.copytree(patients_root / "patient_0", patients_root / name)
    out = tmp_path / "out"
    flags = [f"--model={model}", f"--dataset={patients_root}", "-o", out, f"--report={out}"]
    assert run("predict", *flags) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("name", ["lesions.csv", "patients.csv", "index.html"])
def test_a_table_or_page_of_another_program_is_not_replaced(
    model, patients_root, tmp_path, capsys, name
):
    file = tmp_path / "out" / name
    file.parent.mkdir()
    file.write_text("patient,age\nanna,40\n")
    flags = [f"--model={model}", f"--dataset={patients_root}", "-o", file.parent]
    assert run("predict", *flags) == 1
    assert f"{file}: is a file of another program" in capsys.readouterr().err
    assert file.read_text() == "patient,age\nanna,40\n"
    assert [path.name for path in file.parent.iterdir()] == [name]


def test_a_folder_of_results_cannot_have_the_place_of_a_table(
    model, patients_root, tmp_path, capsys
):
    out = tmp_path / "out"
    flags = [f"--model={model}", f"--dataset={patients_root}", "-o", out]
    for place in ("lesions.csv", "index.html/pages"):
        assert run("predict", *flags, f"--report={out / place}") == 1
        assert "a table or the page of all patients has this place" in capsys.readouterr().err
    assert run("predict", *flags, f"--report={tmp_path / 'pages.csv'}") == 1
    assert "has the name of a file, but with --dataset a folder" in capsys.readouterr().err
    assert not out.exists()


def test_a_patient_with_the_name_of_a_formula_is_guarded_in_the_tables(
    model, patients_root, tmp_path
):
    (patients_root / "patient_1").rename(patients_root / "=1+1")
    out = tmp_path / "out"
    for done_before in range(2):
        assert run("predict", f"--model={model}", f"--dataset={patients_root}", "-o", out) == 0
        for name in ("patients.csv", "lesions.csv", "=1+1_lesions.csv"):
            rows = (out / name).read_text().splitlines()[1:]
            assert not any(row.startswith("=") for row in rows), done_before
            assert any(row.startswith("'=1+1,") for row in rows), done_before


def test_the_page_links_only_reports_that_are_there(model, patients_root, tmp_path):
    out = tmp_path / "out"
    flags = [f"--model={model}", f"--dataset={patients_root}", "-o", out]
    assert run("predict", *flags, "--report") == 0
    (out / "patient_2.html").unlink()
    assert run("predict", *flags) == 0
    page = (out / "index.html").read_text()
    assert 'href="patient_1.html"' in page
    assert "patient_2.html" not in page


def test_masks_with_two_suffixes_do_not_share_a_record(model, patients_root, tmp_path, capsys):
    pair = patients_root / "patient_0"
    flags = [f"--model={model}", "-t1", pair / TIME01, "-t2", pair / TIME02]
    assert run("predict", *flags, "-o", tmp_path / "new.nii") == 0
    before = (tmp_path / "new.json").read_bytes()
    assert run("predict", *flags, "-o", tmp_path / "new.nii.gz") == 1
    assert "new.json: is the record of new.nii." in capsys.readouterr().err
    assert (tmp_path / "new.json").read_bytes() == before
    assert run("predict", *flags, "-o", tmp_path / "new.nii") == 0
    (tmp_path / "new.nii").unlink()
    assert run("predict", *flags, "-o", tmp_path / "new.nii.gz") == 0


@pytest.mark.parametrize("separator", ["", ";"])
def test_a_damaged_table_of_an_earlier_run_fails_only_its_patient(
    model, patients_root, folder, capsys, separator
):
    table = folder / "patient_1_lesions.csv"
    table.write_text(table.read_text().replace(",", separator) if separator else "")
    flags = [f"--model={model}", f"--dataset={patients_root}", "-o", folder]
    assert run("predict", *flags) == 1
    printed = capsys.readouterr()
    assert "patient_1_lesions.csv: cannot be read" in printed.err
    assert "(4 patients, 1 failed, 3 done before)" in printed.out
    patients = pd.read_csv(folder / "patients.csv").set_index("patient")
    assert patients.status.tolist().count("done") == 3
    assert patients.status["patient_1"] == "failed"
    assert run("predict", *flags, "--overwrite") == 0


def test_a_single_pair_that_joins_a_folder_has_one_name_there(
    model, patients_root, folder, tmp_path
):
    pair = patients_root / "patient_0"
    flags = ["-t1", pair / TIME01, "-t2", pair / TIME02, f"--mask={pair / BRAIN_MASK}"]
    assert run("predict", f"--model={model}", *flags, "-o", folder / "patient_0.nii.gz") == 0
    assert run("predict", f"--model={model}", f"--dataset={patients_root}", "-o", folder) == 0
    assert set(pd.read_csv(folder / "lesions.csv").patient) <= {f"patient_{k}" for k in range(4)}


def test_the_report_states_how_much_of_the_brain_was_searched(model, patients_root, tmp_path):
    pair = patients_root / "patient_0"
    visit = nib.load(pair / TIME02)
    array = np.asarray(visit.dataobj).copy()
    array[:7] = 0  # this visit lacks a part of the brain
    nib.save(nib.Nifti1Image(array, visit.affine, visit.header), pair / TIME02)
    brain = voxels(pair / BRAIN_MASK) > 0
    voxel_ml = np.prod(visit.header.get_zooms()) / 1000
    whole_ml, searched_ml = brain.sum() * voxel_ml, brain[7:].sum() * voxel_ml
    flags = ["-t1", pair / TIME01, "-t2", pair / TIME02, f"--mask={pair / BRAIN_MASK}"]
    page = tmp_path / "new.html"
    flags += ["-o", tmp_path / "new.nii.gz", f"--report={page}"]
    assert run("predict", f"--model={model}", *flags) == 0
    text = f"{searched_ml:.0f} of {whole_ml:.0f} ml of the brain were searched"
    assert text in page.read_text()
    assert text.startswith("1 of 1 "), "half of 1.3 ml: not 0 of 1"
