import nibabel as nib
import numpy as np
import pytest

from msseg_jax.data import dataset
from msseg_jax.data.volumes import VolumeError
from msseg_jax.evaluate import format_table, score_patients
from tests.conftest import SHAPE, save_nifti


@pytest.fixture
def predictions(patients_root, tmp_path):
    """Patient 0 perfect, 1 missed, 2 (nothing new) with one false lesion."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    perfect = nib.load(patients_root / "patient_0" / dataset.CONSENSUS).get_fdata()
    false = np.zeros(SHAPE)
    false[5, 5, 5] = 1
    for k, array in enumerate((perfect, np.zeros(SHAPE), false)):
        save_nifti(folder / f"patient_{k}.nii.gz", array.astype(np.uint8))
    return folder


def test_scores_and_totals(patients_root, predictions):
    names = ["patient_0", "patient_1", "patient_2"]
    lines = format_table(score_patients(patients_root, predictions, names)).splitlines()
    assert [line.split() for line in lines[:-1]] == [
        ["patient", "Dice", "found", "missed", "false"],
        ["patient_0", "1.000", "1", "0", "0"],
        ["patient_1", "0.000", "0", "1", "0"],
        ["patient_2", "0.000", "0", "0", "1"],
        ["all", "0.333", "1", "1", "1"],
    ]
    assert lines[-1] == "1 of 2 new lesions found (50 %)"


def test_a_missing_prediction_is_an_error_that_names_it(patients_root, predictions):
    with pytest.raises(VolumeError, match=r"predictions/patient_3.nii.gz: no such file"):
        score_patients(patients_root, predictions, ["patient_3"])


def test_a_prediction_on_another_grid_is_refused(patients_root, predictions):
    save_nifti(predictions / "patient_0.nii.gz", np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(VolumeError, match=r"\(3, 4, 5\) voxels"):
        score_patients(patients_root, predictions, ["patient_0"])
