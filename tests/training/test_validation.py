"""Scores of the held-out patients during a training."""

import math

from msseg_jax.configuration.files import typed
from msseg_jax.data.cache import open_patient
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.network.model import initial_variables
from msseg_jax.training.batches import prepare_data
from msseg_jax.training.validation import Validation
from tests.support.runs import build_model


def test_validation_scores_all_held_out_voxels_together(small_config, tmp_path, patients_root):
    """Check the scores of a network that marks bright voxels of the second visit."""
    data = prepare_data(typed(small_config), RunFolder(tmp_path / "run"), None)
    patients = [*data.training, *data.validation]
    validation = Validation(typed(small_config).trained, patients)
    variables = initial_variables(build_model(small_config), 0)
    found = 0
    for name, folder in patients:
        found += open_patient(name, folder).has_lesions
    assert found == 3

    validation._forward = lambda variables, one, two: (two[..., 0] > 1.5)[:, None] * 0.61
    scores, snapshot = validation(variables)
    assert snapshot.patient == patients[0][0]  # it has new lesions
    assert scores["detected"] == 3
    assert scores["missed"] == 0
    assert scores["dice"] > 0.6
    validation._forward = lambda variables, one, two: (
        (two[..., 0] > 1.5)[:, None] * 0.59
    )  # under 0.6
    scores, _ = validation(variables)
    assert scores == {"dice": 0.0, "detected": 0, "missed": 3, "false": 0}
    empty = [entry for entry in patients if not open_patient(*entry).has_lesions]
    without_lesions = Validation(typed(small_config).trained, empty)
    without_lesions._forward = validation._forward
    scores, snapshot = without_lesions(variables)
    assert math.isnan(scores["dice"])
    assert snapshot.patient == empty[0][0]
    reordered = Validation(typed(small_config).trained, [*empty, *patients])
    reordered._forward = validation._forward
    assert reordered(variables)[1].patient == patients[0][0]
