"""Patches that are cut from volumes in device memory."""

from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data.loader import PatchBatches, PlaceBatches, Places, Sampling, Share
from msseg_jax.data.split import HoldOut
from msseg_jax.data.training_set import prepare
from msseg_jax.models.run_folder import RunFolder
from msseg_jax.training import resident_volumes
from tests.support.runs import assert_trees_equal, final_state, train_run


@pytest.fixture
def patients(patients_root, tmp_path):
    settings = PreprocessingSettings(spacing_mm=1.0, percentiles=(1, 50, 99), patch_size=8)
    return prepare(patients_root, 2, settings, HoldOut(0), tmp_path / "cache").training


@pytest.mark.parametrize("seed", [0, 1])
def test_patches_cut_on_the_device_and_on_the_host_are_bit_identical(patients, seed):
    # The patches are so large that nearly all extend beyond the volume, on either side.
    places, share = Places(patients, Sampling(seed, 12, 0.8)), Share(16)
    host, device = PatchBatches(places, share, 3), PlaceBatches(places, share, 3)
    volumes = resident_volumes.read_volumes(patients)
    on_device = jax.device_put(volumes)
    cut = jax.jit(partial(resident_volumes.cut, patch_size=12))
    for step in range(3):
        expected, found = host[step], cut(on_device, device[step])
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            assert array.dtype == found[name].dtype
            np.testing.assert_array_equal(array, found[name])
        assert expected["targets"].any()
    corners = np.concatenate([device[step]["corners"] for step in range(3)])
    assert (corners < 0).any()
    assert (corners + 12 > volumes["shapes"][device[0]["patients"][0]]).any()


def test_a_patient_smaller_than_the_largest_is_padded_with_background():
    volumes = {
        "images": np.full((2, 2, 6, 6, 6), 7, np.int16),  # 7 also in the patient's padding
        "targets": np.full((2, 1, 6, 6, 6), 3, np.uint8),
        "known": np.array([[True, True], [True, False]]),
        "shapes": np.array([[6, 6, 6], [4, 5, 6]], np.int32),
    }
    batch = {
        "patients": np.array([1], np.int32),
        "corners": np.array([[2, 2, 2]], np.int32),
        "patch_ids": np.array([9], np.int32),
    }
    patch = resident_volumes.cut(jax.device_put(volumes), batch, 4)
    inside = np.zeros((4, 4, 4), bool)
    inside[:2, :3, :4] = True
    for visit in range(2):
        np.testing.assert_array_equal(patch["images"][0, visit], np.where(inside, 7, 0))
    np.testing.assert_array_equal(patch["targets"][0, 0], np.where(inside, 3, 0))
    assert patch["known"].tolist() == [[True, False]]


def test_the_reported_memory_is_that_of_the_volumes(patients):
    volumes = resident_volumes.read_volumes(patients)
    assert resident_volumes.volumes_bytes(patients) == sum(a.nbytes for a in volumes.values())


@pytest.mark.parametrize(("needed", "fits"), [(400, True), (401, False)])
def test_half_of_the_free_memory_is_left_for_the_network(needed, fits):
    stats = {"bytes_limit": 1000, "bytes_in_use": 200}
    assert resident_volumes.fits(needed, SimpleNamespace(memory_stats=lambda: stats)) == fits


def test_a_device_that_does_not_report_its_memory_is_used():
    assert resident_volumes.fits(10**15, SimpleNamespace(memory_stats=lambda: None))


@pytest.mark.slow
def test_a_training_with_data_on_the_device_is_bit_identical(small_config, tmp_path, capsys):
    host, device = RunFolder(tmp_path / "host"), RunFolder(tmp_path / "device")
    train_run(small_config, host)
    assert "device-resident" not in capsys.readouterr().out
    small_config.data.device_resident = True
    train_run(small_config, device)
    assert "device-resident data: 0.00 GiB on each device" in capsys.readouterr().out
    one, other = (final_state(small_config, run)[0] for run in (host, device))
    assert_trees_equal((one.params, one.opt_state), (other.params, other.opt_state))


def test_patches_are_cut_on_the_host_if_the_device_lacks_memory(
    small_config, tmp_path, monkeypatch, caplog
):
    small_config.data.device_resident = True
    small_config.train.max_steps = 1
    monkeypatch.setattr(resident_volumes, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(resident_volumes, "read_volumes", lambda patients: pytest.fail("no memory"))
    run = RunFolder(tmp_path / "run")
    train_run(small_config, run)
    assert int(final_state(small_config, run)[0].step) == 1
    assert "more than half of the free memory, so patches are cut on the host." in caplog.text
