"""The training set: pairs that are read, cached and drawn from."""

import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from msseg_jax.configuration.files import typed
from msseg_jax.configuration.sections import PreprocessingSettings
from msseg_jax.data import cache
from msseg_jax.data.packing import unpack_images, unpack_target
from msseg_jax.data.preprocess import Preprocessing, resample
from msseg_jax.data.split import HoldOut, groups_of
from msseg_jax.data.training_set import prepare
from msseg_jax.system.errors import InputError
from msseg_jax.training.batches import check_patients
from msseg_jax.volumes import layout
from msseg_jax.volumes.layout import find_patients
from msseg_jax.volumes.pair import read_pair
from tests.support.patients import SHAPE, SPACING_MM, add_changes, save_nifti

SETTINGS = PreprocessingSettings(spacing_mm=1.0, percentiles=(1, 50, 99), patch_size=8)


@pytest.fixture
def cache_folder(tmp_path):
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def prepared(root, cache_folder, validation_patients=1, **folds):
    hold_out = HoldOut(0, validation_patients, **folds)
    return prepare(root, 2, SETTINGS, hold_out, cache_folder)


def test_cached_patients_are_normalised_and_cut_to_the_brain(patients_root, cache_folder):
    data = prepared(patients_root, cache_folder)
    patient = cache.open_patient(*data.training[0])
    assert patient.images.shape[1:] == patient.brain.shape == patient.targets.shape[1:]
    assert all(n <= s for n, s in zip(patient.brain.shape, SHAPE, strict=True))
    assert patient.brain[0].any()
    assert patient.brain[-1].any()
    for visit in unpack_images(patient.images):
        assert visit[patient.brain].mean() == pytest.approx(0, abs=1e-4)
        assert visit[patient.brain].std() == pytest.approx(1, abs=1e-4)
        assert (visit[~patient.brain] == 0).all()
    consensus = unpack_target(patient.targets, 0)
    np.testing.assert_array_equal(np.argwhere(consensus), patient.lesion_voxels)


def test_the_affine_of_a_cached_patient_agrees_with_its_files(patients_root, cache_folder):
    """Compare the centre of the lesion, which covers voxels 6 to 8, 7 to 9 and 9 to 12."""
    data = prepared(patients_root, cache_folder)
    name, folder = next(entry for entry in data.training if entry[0] != "patient_2")
    patient = cache.open_patient(name, folder)
    middle_mm = patient.affine @ [*patient.lesion_voxels.mean(axis=0), 1]
    in_file_mm = np.diag([*SPACING_MM, 1]) @ [7, 8, 10.5, 1] + [-7, 11, 3, 0]
    # Labels are resampled to the nearest voxel, so the centre may be half a voxel away.
    np.testing.assert_allclose(middle_mm, in_file_mm, atol=0.5)


def test_landmarks_are_fitted_only_on_the_training_patients(patients_root, cache_folder):
    data = prepared(patients_root, cache_folder)
    ((name, _),) = data.validation
    time01 = patients_root / name / layout.TIME01
    held_out = read_pair(next(p for p in find_patients(patients_root, 0) if p.name == name))
    save_nifti(time01, (held_out.time01.array**2).astype(np.float32))
    assert prepared(patients_root, cache_folder).preprocessing == data.preprocessing


def test_with_a_full_cache_no_file_is_read_again(patients_root, cache_folder, monkeypatch):
    first = prepared(patients_root, cache_folder)
    monkeypatch.setattr(cache, "read_pair", lambda patient: pytest.fail("read again"))
    assert prepared(patients_root, cache_folder) == first


def test_a_changed_file_or_setting_makes_a_new_entry(patients_root, cache_folder):
    first = prepared(patients_root, cache_folder, 0)
    other = prepare(
        patients_root,
        2,
        PreprocessingSettings(spacing_mm=0.9, percentiles=(1, 50, 99), patch_size=8),
        HoldOut(0),
        cache_folder,
    )
    assert not {f for _, f in first.training} & {f for _, f in other.training}
    changed = patients_root / "patient_0" / layout.TIME01
    os.utime(changed, ns=(1, 1))
    again = prepared(patients_root, cache_folder, 0)
    assert again.training[0] != first.training[0]
    assert again.training[1:] == first.training[1:]


def test_an_interrupted_entry_is_written_again(patients_root, cache_folder, monkeypatch):
    save = np.save

    def fail(path, array):
        if path.name == "brain.npy":
            raise OSError(28, "No space left on device")
        save(path, array)

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(InputError, match=r"cannot be written .*No space left"):
        prepared(patients_root, cache_folder)
    (place,) = cache_folder.iterdir()
    assert not [p for p in place.iterdir() if p.is_dir()]  # no partial entry is left
    monkeypatch.undo()
    assert len(prepared(patients_root, cache_folder).training) == 3


def test_every_problem_of_every_patient_is_listed_in_one_message(patients_root, cache_folder):
    (patients_root / "patient_0" / layout.TIME01).write_bytes(b"")
    (patients_root / "patient_1" / layout.EXPERT.format(1)).unlink()
    save_nifti(patients_root / "patient_3" / layout.CONSENSUS, np.full(SHAPE, 2, np.uint8))
    with pytest.raises(InputError) as error:
        prepared(patients_root, cache_folder)
    message = str(error.value)
    assert message.startswith("3 of 4 patients cannot be used:")
    assert "patient_0/flair_time01" in message
    assert "patient_1/ground_truth_expert1.nii.gz: no such file" in message
    assert "patient_3/ground_truth.nii.gz" in message
    assert "as config.model.targets (2)" in message
    assert message.endswith(" If there is only a consensus, use --config.model.targets=1.")
    assert not list(cache_folder.rglob("patient_*"))  # no patient was preprocessed


def test_refuses_a_brain_smaller_than_a_patch(patients_root):
    patient = find_patients(patients_root, 0)[0]
    with pytest.raises(InputError, match=r"brain_mask.nii.gz: the brain measures .* at least 16"):
        resample(
            patient,
            read_pair(patient),
            PreprocessingSettings(spacing_mm=1.0, percentiles=(1, 99), patch_size=16),
        )


def test_refuses_a_visit_that_is_constant_inside_the_brain(patients_root, cache_folder):
    visit = np.full(SHAPE, 5, np.float32)
    visit[0, 0, 0] = 9  # outside the brain
    save_nifti(patients_root / "patient_0" / layout.TIME02, visit)
    with pytest.raises(InputError, match=r"patient_0/flair_time02.*constant inside the brain"):
        prepared(patients_root, cache_folder)


def test_a_map_is_resampled_to_the_grid_of_the_files(patients_root):
    patient = find_patients(patients_root, 1)[0]
    pair = read_pair(patient)
    resampled = resample(patient, pair, SETTINGS)
    back = resampled.to_file_grid(resampled.targets[0].astype(np.float32))
    assert back.shape == SHAPE
    overlap = ((back > 0.5) & (pair.targets[0] == 1)).sum()
    assert overlap >= 0.7 * pair.targets[0].sum()
    assert (back > 0.5).sum() <= 1.3 * pair.targets[0].sum()


def test_preprocessing_survives_saving_and_loading(tmp_path):
    preprocessing = Preprocessing(settings=SETTINGS, landmarks=(0.0, 31.25, 100.0), deviation=5.0)
    preprocessing.save(tmp_path / "p.json")
    assert Preprocessing.load(tmp_path / "p.json") == preprocessing


def test_refuses_training_patients_without_any_new_lesion(patients_root, cache_folder):
    for folder in patients_root.iterdir():
        save_nifti(folder / layout.CONSENSUS, np.zeros(SHAPE, np.uint8))
    with pytest.raises(InputError, match="no training patient has a new-lesion voxel"):
        prepared(patients_root, cache_folder)


def test_refuses_a_brain_that_falls_between_the_voxels_of_the_isotropic_grid(patients_root):
    brain = np.zeros(SHAPE, np.uint8)
    brain[7, 7, 3] = 1
    save_nifti(patients_root / "patient_0" / layout.BRAIN_MASK, brain)
    patient = find_patients(patients_root, 0)[0]
    with pytest.raises(InputError, match=r"brain_mask.nii.gz: the brain measures \(0, 0, 0\)"):
        resample(
            patient,
            read_pair(patient),
            PreprocessingSettings(spacing_mm=3.0, percentiles=(1, 99), patch_size=8),
        )


def test_refuses_to_hold_out_all_patients(patients_root, cache_folder):
    with pytest.raises(InputError, match="validation_patients is 4; expected 0 to 3"):
        prepared(patients_root, cache_folder, 4)


def test_each_run_holds_out_its_fold_and_lists_all_folds(patients_root, cache_folder):
    folds = [prepared(patients_root, cache_folder, 0, folds=3, fold=k) for k in range(3)]
    names = [[name for name, _ in data.validation] for data in folds]
    assert sorted(name for held_out in names for name in held_out) == [
        f"patient_{k}" for k in range(4)
    ]
    for data, held_out in zip(folds, names, strict=True):
        assert data.folds == names
        assert list(data.split["validation"]) == held_out
        assert not {name for name, _ in data.training} & set(held_out)
        assert len(data.training) + len(held_out) == 4


def test_refuses_more_folds_than_patients_and_folds_without_new_lesions_to_train_on(
    patients_root, cache_folder
):
    with pytest.raises(InputError, match=r"patients: config.data.folds is 5, but .* Use at most 4"):
        prepared(patients_root, cache_folder, 0, folds=5)
    for k in (1, 3):
        shutil.copy(patients_root / "patient_2" / layout.CONSENSUS, patients_root / f"patient_{k}")
    with pytest.raises(
        InputError,
        match=r"config.data.folds is 2, but .* for only 1 of the 4 patients\. At least 2",
    ):
        prepared(patients_root, cache_folder, 0, folds=2)
    assert not list(cache_folder.rglob("patient_*"))  # no patient was preprocessed


def mark_as_made_from_scans(root, scans):
    """Mark patients as pairs that were made from scans: {patient: scan}."""
    for name, scan in scans.items():
        (root / name / layout.SYNTHETIC).write_text(json.dumps({"source": scan, "number": 0}))


def test_pairs_made_from_one_scan_are_trained_on_or_held_out_together(patients_root, cache_folder):
    scans = {"patient_0": "bea", "patient_1": "carl", "patient_2": "carl", "patient_3": "bea"}
    mark_as_made_from_scans(patients_root, scans)
    together = [["patient_0", "patient_3"], ["patient_1", "patient_2"]]
    for kwargs in ({"folds": 2}, {"folds": 2, "fold": 1}, {"validation_patients": 1}):
        data = prepared(patients_root, cache_folder, **{"validation_patients": 0} | kwargs)
        assert sorted(list(names) for names in data.split.values()) == together
        assert sorted(data.folds) == (together if "folds" in kwargs else [])


def test_a_patient_with_the_name_of_a_scan_stays_with_its_pairs(patients_root):
    mark_as_made_from_scans(patients_root, {"patient_0": "patient_1", "patient_3": "patient_1"})
    assert groups_of(find_patients(patients_root, 2)) == [[0, 1, 3], [2]]


def test_too_few_scans_are_reported_before_any_volume_is_read(small_config, patients_root):
    mark_as_made_from_scans(
        patients_root, {f"patient_{k}": "bea" if k else "carl" for k in range(4)}
    )
    for path in patients_root.rglob("*.nii.gz"):
        path.write_bytes(b"")
    small_config.data.validation_patients = 2
    message = r"patients: config.data.validation_patients is 2; expected 0 to 1, because 3 of the 4"
    with pytest.raises(InputError, match=message):
        check_patients(typed(small_config))
    small_config.data.validation_patients, small_config.data.folds = 0, 3
    message = r"patients: config.data.folds is 3, but there are only 2 scans"
    with pytest.raises(InputError, match=message):
        check_patients(typed(small_config))
    small_config.data.folds = 2
    check_patients(typed(small_config))
    small_config.train.batch_size = 17  # more than the 16 patches of the one pair that is left
    with pytest.raises(InputError, match=r"from each of 1 patients\)\. Use at most 16\."):
        check_patients(typed(small_config))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"source": "be', "synthetic.json: is damaged"),
        ("[]", "synthetic.json: its source is None. Expected the name of the scan"),
        ('{"source": 3}', "synthetic.json: its source is 3. Expected the name of the scan"),
    ],
)
def test_a_pair_with_a_damaged_record_of_its_scan_cannot_be_split(
    patients_root, cache_folder, record, message
):
    (patients_root / "patient_1" / layout.SYNTHETIC).write_text(record)
    with pytest.raises(InputError, match=f"patient_1/{message}"):
        prepared(patients_root, cache_folder)
    assert read_pair(find_patients(patients_root, 1)[1])  # a prediction can still read the pair


def test_the_announced_disk_space_is_what_the_entries_need(patients_root, cache_folder, capsys):
    data = prepared(patients_root, cache_folder)
    assert "preprocessing 4 patients needs 0.00 GiB of disk" in capsys.readouterr().out
    patients = find_patients(patients_root, 2)
    measures = cache.measure(patients, SETTINGS, cache.open_cache(cache_folder))
    entries = dict([*data.training, *data.validation])
    for patient, measured in zip(patients, measures, strict=True):
        size = sum(file.stat().st_size for file in entries[patient.name].iterdir())
        announced = cache._entry_bytes(measured, 2)
        assert announced < size < announced + 7 * 256  # the headers of seven files
    prepared(patients_root, cache_folder)
    assert capsys.readouterr().out == ""  # no entry is missing


def test_too_little_disk_space_is_reported_before_preprocessing(
    patients_root, cache_folder, monkeypatch
):
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: full)
    monkeypatch.setattr(cache, "_build", lambda *_: pytest.fail("preprocessing was started"))
    with pytest.raises(InputError, match=r"preprocessing 4 patients needs .* GiB are free\. Free"):
        prepared(patients_root, cache_folder)


def test_a_cache_of_another_format_is_not_read(patients_root, cache_folder):
    other = cache_folder / f"format-{cache.FORMAT - 1}"
    other.mkdir()
    data = prepared(patients_root, cache_folder)
    assert all(folder.parent != other for _, folder in data.training)
    assert not list(other.iterdir())


def test_old_partial_entries_of_killed_runs_are_deleted(patients_root, cache_folder):
    place = cache.open_cache(cache_folder)
    old, new = place / ".partial-1-x", place / ".partial-2-y"
    old.mkdir()
    new.mkdir()
    os.utime(old, (1, 1))
    cache.open_cache(cache_folder)
    assert not old.exists()
    assert new.exists()  # another run may still be writing it


def test_a_damaged_entry_is_named(patients_root, cache_folder):
    ((name, folder),) = prepared(patients_root, cache_folder).validation
    (folder / "images.npy").write_bytes(b"")
    with pytest.raises(InputError, match=f"{folder}: this cache entry is damaged"):
        cache.open_patient(name, folder)


def test_runs_that_start_together_share_a_cache(patients_root, cache_folder):
    # Each run is a separate process: a single process never creates the same entry twice.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, context) as pool:
        runs = list(pool.map(prepared, [patients_root] * 3, [cache_folder] * 3))
    assert runs[0] == runs[1] == runs[2]
    place = cache.open_cache(cache_folder)
    assert len([p for p in place.iterdir() if p.is_dir()]) == 4
    assert not list(place.glob(".partial-*"))


@pytest.mark.parametrize("name", [*cache.FIELDS, "checksums"])
def test_a_damaged_entry_is_made_again_with_the_same_content(patients_root, cache_folder, name):
    (entry,) = prepared(patients_root, cache_folder).validation
    (file,) = entry.folder.glob(f"{name}.*")
    right = file.read_bytes()
    file.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert not cache.is_intact(entry.folder)
    assert prepared(patients_root, cache_folder).validation == [entry]
    assert file.read_bytes() == right


@pytest.mark.parametrize(
    ("old", "new"),
    [("shape", [10**400, 1, 1]), ("histograms", [[1.0], [1.0, 2.0]]), ("digest", "")],
)
def test_damaged_measurements_are_made_again_with_the_same_content(
    patients_root, cache_folder, old, new
):
    right = prepared(patients_root, cache_folder)
    files = sorted(cache_folder.rglob("measures-*.json"))
    contents = [file.read_bytes() for file in files]
    assert contents
    for file in files:
        stored = json.loads(file.read_text())
        stored["measures"][old] = new
        file.write_text(json.dumps(stored))
    assert prepared(patients_root, cache_folder) == right
    assert [file.read_bytes() for file in files] == contents
    files[0].write_bytes(contents[1])  # those of another patient
    assert prepared(patients_root, cache_folder) == right
    assert [file.read_bytes() for file in files] == contents


@pytest.mark.parametrize(
    ("field", "array", "problem"),
    [
        ("brain", np.zeros((12, 13, 14), bool), "brain"),
        ("images", np.zeros((2, 3, 4, 5), np.int16), r"images is \(2, 3, 4, 5\) int16"),
        ("lesion_voxels", np.full((1, 3), 99, np.int32), "brain or lesion_voxels"),
        ("affine", np.eye(4, dtype=np.float32), "affine is .4, 4. float32"),
        ("lesion_counts", np.array([10**6]), "lesion_counts"),
        ("lesion_counts", np.zeros(0, np.int64), "lesion_counts"),
        ("known", np.ones(9, bool), "known"),
        ("known", np.ones(2, np.uint8), "known is .2,. uint8"),
    ],
)
def test_an_entry_whose_arrays_disagree_is_refused(
    patients_root, cache_folder, field, array, problem
):
    ((name, folder),) = prepared(patients_root, cache_folder).validation
    if field == "brain":
        array = np.zeros_like(np.load(folder / "brain.npy"))
    np.save(folder / f"{field}.npy", array)
    with pytest.raises(InputError, match=rf"this cache entry is damaged \({problem}"):
        cache.open_patient(name, folder)


def with_changes(root):
    """Write the maps of "changes" of all patients. Some are not known. Return them by patient."""
    lacking = {"patient_1": (layout.CHANGES[3],), "patient_2": layout.CHANGES[1:]}
    return {p.name: add_changes(p, lacking.get(p.name, ())) for p in sorted(root.iterdir())}


def prepared_changes(root, cache_folder, targets=5):
    return prepare(root, targets, SETTINGS, HoldOut(0), cache_folder, target_set="changes")


def test_the_cache_keeps_all_five_maps_and_which_of_them_are_known(patients_root, cache_folder):
    written = with_changes(patients_root)
    data = prepared_changes(patients_root, cache_folder)
    for name, folder in data.training:
        patient = cache.open_patient(name, folder)
        pair = read_pair(layout.patient_in(patients_root / name, 5, "changes"))
        resampled = resample(layout.patient_in(patients_root / name), pair, SETTINGS)
        assert patient.known.tolist() == [file in written[name] for file in layout.CHANGES]
        for k in range(5):
            np.testing.assert_array_equal(unpack_target(patient.targets, k), resampled.targets[k])
        assert [len(kind) for kind in patient.lesion_kinds] == patient.lesion_counts.tolist()
        for k, kind in enumerate(patient.lesion_kinds):
            np.testing.assert_array_equal(kind, np.argwhere(resampled.targets[k]))
        assert len(patient.lesion_kinds) == 3
        assert patient.has_lesions == (name != "patient_2")
    # The number of output maps does not matter.
    assert prepared_changes(patients_root, cache_folder, 1).training == data.training


def test_a_patient_with_only_vanished_lesions_has_no_new_ones(patients_root, cache_folder):
    with_changes(patients_root)
    save_nifti(patients_root / "patient_0" / layout.CONSENSUS, np.zeros(SHAPE, np.uint8))
    data = prepared_changes(patients_root, cache_folder)
    patient = cache.open_patient(*data.training[0])
    assert not patient.has_lesions
    assert patient.lesion_counts[0] == 0 < patient.lesion_counts[2]


def test_a_map_that_becomes_known_makes_a_new_entry(patients_root, cache_folder):
    with_changes(patients_root)
    before = prepared_changes(patients_root, cache_folder)
    add_changes(patients_root / "patient_1")
    after = prepared_changes(patients_root, cache_folder)
    differ = [a.name for a, b in zip(before.training, after.training, strict=True) if a != b]
    assert differ == ["patient_1"]
    assert before.split["training"]["patient_1"] != after.split["training"]["patient_1"]


def test_the_same_files_make_another_entry_for_raters(patients_root, cache_folder):
    """A patient with a consensus only has one target of raters, or five of changes."""
    changes = prepared_changes(patients_root, cache_folder, 1)
    raters = prepare(patients_root, 1, SETTINGS, HoldOut(0), cache_folder)
    assert not {f for _, f in changes.training} & {f for _, f in raters.training}
    assert cache.open_patient(*raters.training[0]).known.tolist() == [True]


def test_the_announced_disk_space_counts_all_places_of_patches(patients_root, cache_folder):
    with_changes(patients_root)
    data = prepared_changes(patients_root, cache_folder)
    patients = find_patients(patients_root, 5, "root", "changes")
    measures = cache.measure(patients, SETTINGS, cache.open_cache(cache_folder))
    for (_, folder), measured in zip(data.training, measures, strict=True):
        size = sum(file.stat().st_size for file in folder.iterdir())
        announced = cache._entry_bytes(measured, 5)
        assert announced < size < announced + 7 * 256  # the headers of seven files
    assert measures[0].changed_voxels > 0 == measures[2].changed_voxels


def test_the_message_about_unusable_patients_says_which_maps_may_be_missing(
    patients_root, cache_folder
):
    with_changes(patients_root)
    (patients_root / "patient_1" / layout.CONSENSUS).unlink()
    message = r"with ground_truth.nii.gz; the other reference maps may be missing\. .*away\.$"
    with pytest.raises(InputError, match=message):
        prepared_changes(patients_root, cache_folder)
