"""The demo from the command line, run twice: phantoms, training, predictions and scores."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msseg_jax.configuration.files import shipped, typed
from msseg_jax.system.errors import InputError
from msseg_jax.training.experiment import run_experiment
from msseg_jax.training.phantom_data import use_phantoms
from msseg_jax.volumes.layout import CONSENSUS, EXPERT, TIME01

ROOT = Path(__file__).parents[2]


def test_a_small_demo_runs_from_phantoms_to_its_table_of_scores(tmp_path):
    run = tmp_path / "run"
    command = [
        sys.executable, "launch.py", "--config=configs/demo.py", f"--workdir={run}",
        "--config.model.widths=(2, 2)", "--config.model.node_convolutions=1",
        "--config.model.refinement_convolutions=1", "--config.data.phantom_patients=4",
        "--config.data.phantom_spacing_mm=4.0", "--config.data.spacing_mm=4.0",
        "--config.data.validation_patients=2", "--config.data.patch_size=16",
        "--config.train.max_steps=3", "--config.train.log_every_steps=1",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "step 3/3" in done.stdout
    assert "leaked" not in done.stderr
    table = done.stdout.split("held-out patients")[1].splitlines()
    assert table[1].split()[:5] == ["patient", "Dice", "F1", "found", "missed"]
    names = [line.split()[0] for line in table[2:4]]
    assert "new lesions found" in table[4]
    report = (run / "evaluation" / "report.html").read_text()
    assert all(f"<h2>{name}</h2>" in report for name in names)
    for name in names:
        mask = nib.load(run / "predictions" / f"{name}.nii.gz")
        visit = nib.load(run / "phantoms" / name / TIME01)
        assert mask.shape == visit.shape
        np.testing.assert_array_equal(mask.affine, visit.affine)

    log = (run / "log.jsonl").read_text()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "all 3 steps of the run are done" in again.stdout
    assert again.stdout.split("held-out patients")[1] == done.stdout.split("held-out patients")[1]
    assert (run / "log.jsonl").read_text() == log


def test_held_out_patients_without_new_lesions_have_no_dice_and_no_f1(
    small_config, patients_root, tmp_path, capsys
):
    for name in ("patient_0", "patient_1"):  # only patient_3 keeps its lesion
        for target in (CONSENSUS, EXPERT.format(1)):
            shutil.copy(patients_root / "patient_2" / target, patients_root / name / target)
    small_config.data.validation_patients = 2
    small_config.predict.threshold = 0.999  # nothing is predicted
    small_config.train.max_steps = 1
    run_experiment(typed(small_config), tmp_path / "run")
    output = capsys.readouterr().out
    assert "validation: Dice -, new lesions detected 0, missed 0, false 0" in output
    rows = [line.split() for line in output.splitlines() if line.endswith("mm3")]
    assert [row[1:6] for row in rows if row[0].startswith("patient_")] == [
        ["-", "-", "0", "0", "0"]
    ] * 2
    assert "0 of 0 new lesions found, 0 false; mean Dice of patients with new lesions -" in output
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["validation"] == {"dice": None, "detected": 0, "missed": 0, "false": 0}


def test_a_folder_named_phantoms_that_belongs_to_the_user_is_not_changed(tmp_path):
    config = shipped("demo")
    own = tmp_path / "phantoms" / "patient"
    own.mkdir(parents=True)
    with pytest.raises(InputError, match="phantoms: this folder was not made by this run"):
        use_phantoms(typed(config), tmp_path)
    assert own.is_dir()


def test_phantoms_are_reused_and_made_again_for_another_seed(tmp_path):
    config = shipped("demo")
    config.data.phantom_patients = 1
    config.data.phantom_spacing_mm = 4.0
    use_phantoms(typed(config), tmp_path)
    visit = tmp_path / "phantoms" / "phantom_001" / TIME01
    made, first = visit.stat().st_mtime_ns, visit.read_bytes()
    use_phantoms(typed(config), tmp_path)
    assert visit.stat().st_mtime_ns == made
    config.seed = 1
    use_phantoms(typed(config), tmp_path)
    assert visit.read_bytes() != first
    used = use_phantoms(typed(config), tmp_path)
    assert used.data.root == str(tmp_path / "phantoms")
