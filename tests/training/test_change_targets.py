"""Trainings on the target set "changes", from the files to the scores."""

import shutil

import pytest

from msseg_jax.configuration.files import typed
from msseg_jax.data.loader import PatchBatches, PlaceBatches, Places, Sampling, Share
from msseg_jax.data.packing import unpack_batch
from msseg_jax.models.networks import trained_networks
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.system.errors import InputError
from msseg_jax.training.batches import check_patients, prepare_data
from msseg_jax.training.cross_validation import cross_validate
from msseg_jax.training.experiment import run_experiment
from msseg_jax.volumes import layout
from tests.support.patients import add_changes
from tests.support.runs import assert_trees_equal, final_state, logged, train_run


@pytest.fixture
def config(small_config, patients_root):
    """Return a configuration with all five maps. Some patients lack some of the files."""
    lacking = {"patient_1": (layout.CHANGES[3],), "patient_2": layout.CHANGES[1:]}
    for folder in patients_root.iterdir():
        add_changes(folder, lacking.get(folder.name, ()))
    small_config.model.target_set = "changes"
    small_config.model.targets = 5
    small_config.train.loss = "each_target"
    small_config.train.decoder_weight = 0.5
    small_config.data.validation_patients = 1
    return small_config


def test_patients_with_unknown_targets_train_validate_and_predict(config, tmp_path, capsys):
    run_experiment(typed(config), tmp_path / "run")
    losses = logged(tmp_path / "run", "decoder_loss")
    assert list(losses) == [2, 3, 4, 6]
    assert all(-2 <= loss < 0 for loss in losses.values())
    validation = logged(tmp_path / "run", "validation")
    assert list(validation) == [3, 6]
    assert "  decoders -" in capsys.readouterr().out
    assert (tmp_path / "run" / "evaluation" / "report.html").is_file()
    (network,) = trained_networks(tmp_path / "run")
    assert network.config.model.target_set == "changes"


def test_a_cross_validation_works_with_unknown_targets(config, tmp_path):
    config.data.validation_patients, config.data.folds = 0, 2
    config.train.max_steps = 2
    cross_validate(typed(config), tmp_path / "cv")
    assert len(list((tmp_path / "cv" / "predictions").glob("*.json"))) == 4


def test_a_training_with_data_on_the_device_is_bit_identical(config, tmp_path):
    host, device = RunFolder(tmp_path / "host"), RunFolder(tmp_path / "device")
    train_run(config, host)
    config.data.device_resident = True
    train_run(config, device)
    one, other = (final_state(config, run)[0] for run in (host, device))
    assert_trees_equal((one.params, one.opt_state), (other.params, other.opt_state))


def test_batches_tell_which_targets_are_known_for_each_patch(config, tmp_path):
    config.data.validation_patients = 0
    data = prepare_data(typed(config), RunFolder(tmp_path / "run"), None)
    places, share = Places(data.training, Sampling(0, 8, 1.0)), Share(16)
    patches, positions = PatchBatches(places, share, 2)[1], PlaceBatches(places, share, 2)[1]
    names = [data.training[number].name for number in positions["patients"]]
    known = {
        "patient_0": [True] * 5,
        "patient_1": [True, True, True, False, True],
        "patient_2": [True, False, False, False, False],
        "patient_3": [True] * 5,
    }
    assert patches["known"].tolist() == [known[name] for name in names]
    targets = unpack_batch(patches, 5)["targets"]
    assert not targets[~patches["known"].repeat(8**3, 0).reshape(16, 8, 8, 8, 5)].any()
    # Patches are placed on all three kinds of changes.
    for target in range(3):
        assert targets[..., target].any()


def test_a_target_that_no_patient_has_is_refused_before_any_scan_is_read(config, patients_root):
    for path in patients_root.glob("*/vanished.nii.gz"):
        path.unlink()
    for path in patients_root.glob("*/flair*"):
        path.write_bytes(b"")
    message = r"patients: vanished.nii.gz does not exist for any .* config.model.targets is 5\. Add"
    with pytest.raises(InputError, match=message):
        check_patients(typed(config))
    config.model.targets = 2
    check_patients(typed(config))
    for path in patients_root.glob("*/lesions_time02.nii.gz"):
        path.unlink()
    message = r"lesions_time02.nii.gz does not exist .* config.train.decoder_weight is 0.5\. Add"
    with pytest.raises(InputError, match=message):
        check_patients(typed(config))
    config.train.decoder_weight = 0.0
    check_patients(typed(config))


def test_a_target_that_only_held_out_patients_have_is_refused(config, tmp_path, patients_root):
    data = prepare_data(typed(config), RunFolder(tmp_path / "run"), None)
    ((held_out, _),) = data.validation
    for path in patients_root.glob("*/vanished.nii.gz"):
        if path.parent.name != held_out:
            path.unlink()
    with pytest.raises(
        InputError, match=r"vanished.nii.gz does not exist for any patient to train"
    ):
        prepare_data(typed(config), RunFolder(tmp_path / "run"), None)


def test_a_run_is_refused_after_a_target_has_become_known(config, tmp_path, patients_root):
    """An empty map is not the same as an unknown one."""
    config.train.max_steps = 1
    run = RunFolder(tmp_path / "run")
    train_run(config, run)
    shutil.copy(
        patients_root / "patient_2" / layout.CONSENSUS,  # empty
        patients_root / "patient_2" / "vanished.nii.gz",
    )
    with pytest.raises(InputError, match="started with other data than"):
        train_run(config, run)
