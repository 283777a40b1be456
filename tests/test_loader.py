import numpy as np
import pytest
from absl import flags

from msseg_jax.data.cache import open_patient
from msseg_jax.data.loader import PatchSource, Sampling, load_batches
from msseg_jax.data.preprocess import Settings
from msseg_jax.data.split import HoldOut
from msseg_jax.data.training_set import prepare


@pytest.fixture
def source(patients_root, tmp_path):
    (tmp_path / "cache").mkdir()
    settings = Settings(1.0, (1, 50, 99), 8)
    data = prepare(patients_root, 2, settings, HoldOut(0), tmp_path / "cache")
    return PatchSource(data.training, Sampling(0, 8, 0.8), 40)


def test_visits_and_targets_share_the_crop(source):
    patients = [open_patient(*entry) for entry in source._entries]
    for index in range(40):
        patch = source[index]
        lesion = patch["targets"][..., 0] == 1
        if lesion.any():
            # The new lesion is bright at the second visit, in just these voxels.
            assert patch["time02"][lesion].min() > patch["time01"][lesion].max()
    assert {patient.images.dtype for patient in patients} == {np.dtype(np.float32)}


def test_most_patches_of_patients_with_a_lesion_show_it(source):
    shows = [source[i]["targets"][..., 0].any() for i in range(40)]
    assert 0.5 < np.mean(shows) < 0.95  # 3 patients of 4 have one: 0.6 and those met by chance


def test_batches_hold_the_patches_of_their_numbers(source):
    batches = list(load_batches(source, 8, 0, workers=0))
    assert len(batches) == 5
    for k, batch in enumerate(batches):
        assert batch["patch_ids"].tolist() == list(range(8 * k, 8 * k + 8))
        assert batch["time01"].shape == batch["time02"].shape == (8, 8, 8, 8, 1)
        assert batch["targets"].shape == (8, 8, 8, 8, 2)
        np.testing.assert_array_equal(batch["time02"][3], source[8 * k + 3]["time02"])


def test_a_run_goes_on_with_the_number_of_its_step_alone(source):
    whole = list(load_batches(source, 8, 0, workers=0))
    rest = list(load_batches(source, 8, 3, workers=0))
    assert len(rest) == 2
    for one, other in zip(whole[3:], rest, strict=True):
        for field in one:
            np.testing.assert_array_equal(one[field], other[field])


def test_processes_give_the_same_batches_in_the_same_order(source):
    flags.FLAGS.mark_as_parsed()  # grain's workers read flags, which absl.app.run parses
    alone = list(load_batches(source, 8, 1, workers=0))
    together = list(load_batches(source, 8, 1, workers=2))
    assert len(alone) == len(together) == 4
    for one, other in zip(alone, together, strict=True):
        for field in one:
            np.testing.assert_array_equal(one[field], other[field])
