import gc
import threading

import numpy as np
import pytest

from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data.loader import PatchBatches, PlaceBatches, Places, Sampling, Share, load_batches
from msseg_jax.data.packing import unpack_batch
from msseg_jax.data.patches import crop
from msseg_jax.data.split import HoldOut
from msseg_jax.data.training_set import prepare
from msseg_jax.system.errors import InputError

SHARE = Share(batch_size=8)


@pytest.fixture
def places(patients_root, tmp_path):
    settings = PreprocessingSettings(spacing_mm=1.0, percentiles=(1, 50, 99), patch_size=8)
    data = prepare(patients_root, 2, settings, HoldOut(0), tmp_path / "cache")
    return Places(data.training, Sampling(0, 8, 0.8))


@pytest.fixture
def source(places):
    return PatchBatches(places, SHARE, steps=5)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for field in one:
        np.testing.assert_array_equal(one[field], other[field])


def test_visits_and_targets_share_the_crop(source):
    for step in range(5):
        batch = unpack_batch(source[step], targets=2)
        lesion = batch["targets"][..., :1] == 1
        assert lesion.any()
        # The new lesion is bright at the second visit, and only in these voxels.
        assert batch["time02"][lesion].min() > batch["time01"][lesion].max()
        np.testing.assert_array_equal(batch["targets"][..., 0], batch["targets"][..., 1])


def test_most_patches_of_patients_with_a_lesion_show_it(source):
    shows = [unpack_batch(source[step], 2)["targets"][..., 0].any((1, 2, 3)) for step in range(5)]
    assert 0.5 < np.mean(shows) < 0.95  # 3 of 4 patients have one: 0.6, and a few by chance


def test_a_batch_contains_the_patches_with_its_numbers(places, source):
    for step, batch in enumerate(load_batches(source, 0, threads=1)):
        assert batch["patch_ids"].tolist() == list(range(8 * step, 8 * step + 8))
        for k, patch_id in enumerate(batch["patch_ids"]):
            number, corner = places.of(int(patch_id))
            patient = places.patient(number)
            np.testing.assert_array_equal(
                batch["images"][k], crop(patient.images, corner, (8, 8, 8), 0)
            )
            np.testing.assert_array_equal(
                batch["targets"][k], crop(patient.targets, corner, (8, 8, 8), 0)
            )


def test_a_run_needs_only_its_step_number_to_resume(source):
    whole = list(load_batches(source, 0, threads=1))
    rest = list(load_batches(source, 3, threads=1))
    assert len(whole) == 5
    assert len(rest) == 2
    for one, other in zip(whole[3:], rest, strict=True):
        assert_same(one, other)


def test_any_number_of_threads_gives_the_same_batches_in_the_same_order(source):
    for one, other in zip(
        load_batches(source, 1, threads=1), load_batches(source, 1, threads=4), strict=True
    ):
        assert_same(one, other)


def test_processes_share_a_batch_in_order(places):
    whole = PatchBatches(places, SHARE, steps=2)[1]
    parts = [PatchBatches(places, Share(8, process, 2), steps=2)[1] for process in (0, 1)]
    assert_same(whole, {name: np.concatenate([part[name] for part in parts]) for name in whole})


def test_place_batches_have_the_positions_of_the_patches(places, source):
    batch = PlaceBatches(places, SHARE, steps=5)[2]
    assert batch["patch_ids"].tolist() == source[2]["patch_ids"].tolist()
    for k in range(8):
        patient = places.patient(int(batch["patients"][k]))
        patch = crop(patient.images, batch["corners"][k].tolist(), (8, 8, 8), 0)
        np.testing.assert_array_equal(patch, source[2]["images"][k])


def test_a_damaged_entry_is_reported_before_any_batch(patients_root, tmp_path):
    settings = PreprocessingSettings(spacing_mm=1.0, percentiles=(1, 50, 99), patch_size=8)
    data = prepare(patients_root, 2, settings, HoldOut(0), tmp_path / "cache")
    name, folder = data.training[-1]
    (folder / "images.npy").write_bytes(b"cut short")
    with pytest.raises(InputError, match=name):
        Places(data.training, Sampling(0, 8, 0.8))


def test_a_deleted_loader_leaves_no_thread(source):
    before = threading.active_count()
    batches = load_batches(source, 0, threads=3)
    next(batches)
    del batches
    gc.collect()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(timeout=10)
    assert threading.active_count() <= before
