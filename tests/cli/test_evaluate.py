"""`msseg evaluate`: scores of a folder of masks, tables, and the command itself."""

import json
import math
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from msseg_jax.cli.main import main
from msseg_jax.evaluation.cohort import summarise
from msseg_jax.evaluation.evaluate import evaluate
from msseg_jax.evaluation.raters import WITH, WITHOUT
from msseg_jax.evaluation.tables import format_summary, format_table, write_tables
from msseg_jax.models.fitted import fitted_by_patient
from msseg_jax.models.folds import Folds
from msseg_jax.system.errors import InputError
from msseg_jax.volumes import layout
from tests.support.patients import SHAPE, save_nifti
from tests.support.runs import save_run


def consensus_of(root, k):
    return nib.load(root / f"patient_{k}" / layout.CONSENSUS).get_fdata().astype(np.uint8)


@pytest.fixture
def predictions(patients_root, tmp_path):
    """Return a folder of masks.

    Patient 0 is perfect, patient 1 misses its lesion, patient 2 has a false lesion but no new one,
    and the lesion of patient 3 is too large.
    """
    folder = tmp_path / "predictions"
    folder.mkdir()
    false = np.zeros(SHAPE, np.uint8)
    false[5, 5, 4:10] = 1
    large = np.zeros(SHAPE, np.uint8)
    large[6:9, 7:10, 9:15] = 1  # 54 voxels, of which 36 are the lesion
    arrays = (consensus_of(patients_root, 0), np.zeros(SHAPE, np.uint8), false, large)
    for k, array in enumerate(arrays):
        save_nifti(folder / f"patient_{k}.nii.gz", array)
    return folder


@pytest.fixture
def probabilities(patients_root, tmp_path):
    """Return a folder with a map of patient 0: 0.7 in the lesion, 0.32 in 8 voxels next to it."""
    folder = tmp_path / "probabilities"
    folder.mkdir()
    array = 0.7 * consensus_of(patients_root, 0).astype(np.float32)
    array[2:4, 2:4, 2:4] = 0.32
    save_nifti(folder / "patient_0.nii.gz", array)
    return folder


def test_the_table_agrees_with_scores_computed_by_hand(patients_root, predictions):
    *lines, last = format_table(evaluate(patients_root, predictions)).splitlines()
    voxel_mm3 = 0.8
    lesion = f"{36 * voxel_mm3:.0f}"
    assert [line.split() for line in lines] == [
        ["patient", "Dice", "F1", "found", "missed", "false", "reference", "predicted"],
        ["patient_0", "1.000", "1.000", "1", "0", "0", lesion, "mm3", lesion, "mm3"],
        ["patient_1", "0.000", "0.000", "0", "1", "0", lesion, "mm3", "0", "mm3"],
        ["patient_2", "-", "-", "0", "0", "1", "0", "mm3", f"{6 * voxel_mm3:.0f}", "mm3"],
        ["patient_3", "0.800", "1.000", "1", "0", "0", lesion, "mm3", "43", "mm3"],
    ]
    found = "2 of 3 new lesions found (67 %), 1 false"
    assert last == f"{found}; mean Dice of patients with new lesions 0.600"


def test_patients_with_and_without_new_lesions_are_summarised_separately(
    patients_root, predictions
):
    summary = evaluate(patients_root, predictions).summary
    ours = summary[(summary["reference"] == "consensus") & (summary["rater"] == "prediction")]
    means = {(row.group, row.measure): (row.mean, row.patients) for row in ours.itertuples()}
    assert means[WITH, "Dice"] == (pytest.approx((1 + 0 + 0.8) / 3), 3)
    assert means[WITH, "Hausdorff95_mm"][1] == 2  # not defined for the empty prediction
    assert means[WITHOUT, "NbTestedLesions"] == (1, 1)
    assert means[WITHOUT, "VolTestedLesions"] == (pytest.approx(6 * 0.8), 1)
    assert (WITHOUT, "Dice") not in means
    assert means["patients with any new lesion", "Sensitivity"] == (pytest.approx(2 / 3), 3)
    assert means["patients with any new lesion", "Specificity"] == (0, 1)


def test_experts_are_scored_against_the_consensus_and_each_other(patients_root, predictions):
    folder = patients_root / "patient_0"
    second = consensus_of(patients_root, 0)
    second[6] = 0  # the second expert marked 24 of the 36 voxels
    save_nifti(folder / layout.EXPERT.format(2), second)
    scores = evaluate(patients_root, predictions).scores
    rows = scores[scores["patient"] == "patient_0"].set_index(["reference", "rater"])
    pairs = {("consensus", "prediction"), ("expert1", "prediction"), ("expert2", "prediction"),
             ("consensus", "expert1"), ("expert2", "expert1"), ("consensus", "expert2"),
             ("expert1", "expert2")}  # fmt: skip
    assert set(rows.index) == pairs
    assert rows.loc[("expert1", "expert2"), "Dice"] == pytest.approx(48 / 60)
    assert rows.loc[("expert2", "expert1"), "RelativeVolumeError"] == pytest.approx(50)


def test_the_bootstrap_interval_agrees_with_the_normal_approximation():
    generator = np.random.default_rng(0)
    values = generator.normal(5, 2, 200)
    scores = pd.DataFrame({
        "reference": "consensus", "rater": "prediction", "group": WITH, "Dice": values,
        "reference_lesions": 1, "rater_lesions": 1,
    })  # fmt: skip
    row = summarise(scores).set_index("measure").loc["Dice"]
    half = 1.96 * values.std() / math.sqrt(200)
    assert row["mean"] == pytest.approx(values.mean())
    assert row["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert row["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_lesions_are_listed_with_agreement_position_and_probability(
    patients_root, predictions, probabilities
):
    lesions = evaluate(patients_root, predictions, probabilities).lesions
    rows = {(row.patient, row.mask, row.lesion): row for row in lesions.itertuples()}
    perfect = rows["patient_0", "reference", 1]
    assert perfect.agrees
    assert perfect.volume_mm3 == pytest.approx(36 * 0.8)
    assert (perfect.x_mm, perfect.y_mm) == (7 - 7, 8 + 11)
    assert perfect.z_mm == pytest.approx(0.8 * 10.5 + 3)
    assert perfect.mean_probability == pytest.approx(0.7)
    assert not rows["patient_1", "reference", 1].agrees
    assert not rows["patient_2", "prediction", 1].agrees
    assert math.isnan(rows["patient_3", "prediction", 1].mean_probability)


def test_the_curve_counts_lesions_at_each_threshold(patients_root, predictions, probabilities):
    curve = evaluate(patients_root, predictions, probabilities).curve
    assert set(curve["patient"]) == {"patient_0"}
    at = curve.set_index("threshold")[["detected", "missed", "false"]]
    assert at.loc[0.3].tolist() == [1, 0, 1]
    assert at.loc[0.35].tolist() == [1, 0, 0]
    assert at.loc[0.7].tolist() == [0, 1, 0]  # positive means above the threshold


def test_patients_without_a_prediction_or_a_reference_are_listed(patients_root, predictions):
    (predictions / "patient_1.nii.gz").rename(predictions / "stranger.nii.gz")
    evaluation = evaluate(patients_root, predictions)
    assert evaluation.patients == ["patient_0", "patient_2", "patient_3"]
    assert "patient_1.nii.gz: no such prediction" in evaluation.left_out["patient_1"]
    assert "no such reference" in evaluation.left_out["stranger"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full(SHAPE, 2, np.uint8), r"for example 2\. .* It looks like a label map"),
        (np.full(SHAPE, 0.25, np.float32), r"example 0\.25\. .* It looks like a probability map"),
        (np.full(SHAPE, -3.5, np.float32), r"for example -3\.5\. .* Make it binary"),
        (np.full(SHAPE, np.nan, np.float32), "NaN or infinite"),
        (np.zeros((3, 4, 5), np.uint8), r"\(3, 4, 5\) voxels"),
    ],
)
def test_a_prediction_that_is_not_a_mask_is_refused(patients_root, predictions, array, message):
    save_nifti(predictions / "patient_0.nii.gz", array)
    with pytest.raises(InputError, match=f"patient_0.nii.gz.*{message}"):
        evaluate(patients_root, predictions, names=["patient_0"])
    evaluation = evaluate(patients_root, predictions)  # the others are still scored
    assert "patient_0.nii.gz" in evaluation.left_out["patient_0"]


def test_values_above_1_are_refused_as_probabilities(patients_root, predictions, probabilities):
    save_nifti(probabilities / "patient_0.nii.gz", np.full(SHAPE, 3, np.float32))
    left_out = evaluate(patients_root, predictions, probabilities).left_out
    assert "its values are from 3 to 3. Expected probabilities" in left_out["patient_0"]


def test_empty_and_missing_folders_are_refused(patients_root, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        InputError, match=r"empty: no .nii.gz file in it\. Expected <patient>.nii.gz"
    ):
        evaluate(patients_root, empty)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        evaluate(patients_root, tmp_path / "nowhere")
    with pytest.raises(InputError, match="empty: no patient folder in it"):
        evaluate(empty, patients_root)


def test_tables_are_written_and_undefined_scores_are_null_in_json(
    patients_root, predictions, tmp_path
):
    evaluation = evaluate(patients_root, predictions)
    write_tables(evaluation, tmp_path)
    everything = json.loads((tmp_path / "evaluation.json").read_text())
    first = everything["scores"][0]
    assert (first["patient"], first["Dice"], first["NbTestedLesions"]) == ("patient_0", 1, None)
    read = pd.read_csv(tmp_path / "scores.csv")
    assert len(read) == len(evaluation.scores)
    assert not (tmp_path / "curve.csv").exists()


def test_the_command_writes_all_files_and_lists_patients_without_scores(
    patients_root, predictions, tmp_path, capsys
):
    shutil.rmtree(patients_root / "patient_3")
    output = tmp_path / "deep" / "evaluation"
    flags = ["evaluate", f"--reference={patients_root}", f"--prediction={predictions}"]
    flags.append(f"--output={output}")
    assert main(flags) == 1
    printed = capsys.readouterr()
    dice = "mean Dice of patients with new lesions 0.500"
    assert f"1 of 2 new lesions found (50 %), 1 false; {dice}" in printed.out
    assert "2 patients with new lesions" in printed.out
    assert printed.err.startswith("not scored: 1\n  patient_3: ")
    names = {path.name for path in output.iterdir()}
    assert names == {"scores.csv", "lesions.csv", "summary.csv", "evaluation.json", "report.html"}
    (predictions / "patient_3.nii.gz").unlink()
    assert main(flags) == 0


def test_scores_do_not_import_jax():
    """Check that JAX is not imported, because that takes seconds."""
    code = "import sys, msseg_jax.cli.evaluate; print('jax' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_the_summary_names_prediction_and_experts(patients_root, predictions):
    lines = format_summary(evaluate(patients_root, predictions)).splitlines()
    assert lines[1].split() == [
        "3", "patients", "with", "new", "lesions", "prediction", "95%", "interval", "expert1",
    ]  # fmt: skip
    dice = next(line for line in lines if line.startswith("Dice")).split()
    assert dice[1] == "0.600"
    assert dice[-1] == "1.000"  # here the expert agrees with the consensus


def test_intensities_are_compared_with_the_runs_that_predicted(tmp_path, small_config):
    """Check that a cross-validation gives the run that held the patient out.

    A patient that is in no fold is compared with all runs.
    """
    folds = Folds(tmp_path / "cv")
    for fold in range(2):
        save_run(folds.run(fold), small_config, middle=50.0 + fold)
    folds.save([["patient_0", "patient_3"], ["patient_1"]])
    other = save_run(tmp_path / "other", small_config, middle=60.0)
    names = [f"patient_{k}" for k in range(4)]
    fitted = fitted_by_patient([folds.path, other], names)
    landmarks = {name: [one.landmarks[1] for one in fitted[name]] for name in names}
    assert landmarks == {
        "patient_0": [50, 60], "patient_1": [51, 60], "patient_2": [50, 51, 60],
        "patient_3": [50, 60],
    }  # fmt: skip


def test_the_command_takes_a_cross_validation_and_a_run_as_models(
    patients_root, predictions, tmp_path, small_config, capsys
):
    folds = Folds(tmp_path / "cv")
    for fold in range(2):
        save_run(folds.run(fold), small_config, middle=50.0 + fold)
    folds.save([["patient_0", "patient_3"], ["patient_1"]])
    other = save_run(tmp_path / "other", small_config, middle=60.0)
    flags = ["evaluate", f"--reference={patients_root}", f"--prediction={predictions}"]
    flags += [f"--output={tmp_path / 'out'}", f"--model={folds.path}", f"--model={other}"]
    assert main(flags) == 0
    assert (tmp_path / "out" / "report.html").exists()


def test_a_refused_evaluation_makes_no_folder(patients_root, tmp_path, capsys):
    (tmp_path / "masks").mkdir()
    where = [f"--reference={patients_root}", f"--prediction={tmp_path / 'masks'}"]
    assert main(["evaluate", *where, f"--output={tmp_path / 'scores'}"]) == 1
    assert "masks: no .nii.gz file in it" in capsys.readouterr().err
    assert not (tmp_path / "scores").exists()
