"""End to end, as a user types it: phantoms, training, predictions, scores; then once more."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from msseg_jax.data.dataset import TIME01

ROOT = Path(__file__).parents[1]


def test_the_demo_in_small_runs_from_nothing_to_its_table(tmp_path):
    run = tmp_path / "run"
    command = [
        sys.executable, "launch.py", "--config=configs/demo.py", f"--workdir={run}",
        "--config.model.widths=(2, 2)", "--config.model.node_convolutions=1",
        "--config.model.refinement_convolutions=1", "--config.data.phantom_patients=4",
        "--config.data.phantom_spacing_mm=4.0", "--config.data.spacing_mm=4.0",
        "--config.data.validation_patients=2", "--config.data.patch_size=16",
        "--config.train.max_steps=3", "--config.train.log_every_steps=1",
        "--config.data.workers=1",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "step 3/3" in done.stdout
    assert "leaked" not in done.stderr
    table = done.stdout.split("held-out patients")[1].splitlines()
    assert table[1].split() == ["patient", "Dice", "found", "missed", "false"]
    names = [line.split()[0] for line in table[2:4]]
    assert table[4].startswith("all")
    for name in names:
        mask = nib.load(run / "predictions" / f"{name}.nii.gz")
        visit = nib.load(run / "phantoms" / name / TIME01)
        assert mask.shape == visit.shape
        np.testing.assert_array_equal(mask.affine, visit.affine)

    log = (run / "log.jsonl").read_text()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "the run has all its 3 steps" in again.stdout
    assert again.stdout.split("held-out patients")[1] == done.stdout.split("held-out patients")[1]
    assert (run / "log.jsonl").read_text() == log
