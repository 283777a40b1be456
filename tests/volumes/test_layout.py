import shutil

import nibabel as nib
import numpy as np
import pytest

from msseg_jax.system.errors import InputError
from msseg_jax.volumes import coverage, layout
from msseg_jax.volumes.layout import find_patients
from msseg_jax.volumes.pair import read_pair
from tests.support.patients import SHAPE, SPACING_MM, add_changes, save_nifti


def first(root, targets=2):
    return find_patients(root, targets)[0]


def test_patients_are_sorted_by_name_and_their_consensus_comes_first(patients_root):
    patients = find_patients(patients_root, 2)
    assert [p.name for p in patients] == ["patient_0", "patient_1", "patient_2", "patient_3"]
    assert [t.name for t in patients[0].targets] == [
        "ground_truth.nii.gz",
        "ground_truth_expert1.nii.gz",
    ]
    assert patients[0].brain_mask.name == "brain_mask.nii.gz"


def test_read_pair_returns_visits_brain_and_targets(patients_root):
    pair = read_pair(first(patients_root))
    assert pair.time01.array.shape == pair.brain.shape == SHAPE
    assert pair.targets.shape == (2, *SHAPE)
    assert pair.targets[0].sum() == 3 * 3 * 4
    lesion = pair.targets[0] == 1
    assert (pair.time02.array - pair.time01.array)[lesion].min() > 30


def test_without_a_mask_the_non_zero_voxels_are_brain_and_a_warning_says_so(patients_root, caplog):
    (patients_root / "patient_0" / layout.BRAIN_MASK).unlink()
    masked = read_pair(find_patients(patients_root, 0)[1])
    pair = read_pair(first(patients_root, 0))
    np.testing.assert_array_equal(pair.brain, masked.brain)
    assert "no brain mask" in caplog.text


def test_target_voxels_outside_the_brain_are_removed_with_a_warning(patients_root, caplog):
    path = patients_root / "patient_0" / layout.CONSENSUS
    target = nib.load(path).get_fdata()
    target[0, 0, :2] = 1
    save_nifti(path, target.astype(np.uint8))
    assert read_pair(first(patients_root)).targets[0].sum() == 3 * 3 * 4
    assert "2 voxels outside the brain" in caplog.text


@pytest.mark.parametrize("visit", [0, 1])
@pytest.mark.parametrize("value", [0.0, -1024.0])
def test_a_part_of_the_brain_without_data_in_one_visit_is_left_out(
    patients_root, visit, value, monkeypatch
):
    monkeypatch.setattr(coverage, "LEAST_EMPTY_ML", 0.1)  # these brains are tiny
    path = patients_root / "patient_0" / (layout.TIME01, layout.TIME02)[visit]
    whole = read_pair(first(patients_root))
    array = nib.load(path).get_fdata(dtype=np.float32)
    array[:, :, :6] = value
    save_nifti(path, array)
    pair = read_pair(first(patients_root))
    expected = whole.brain.copy()
    expected[:, :, :6] = False
    np.testing.assert_array_equal(pair.brain, expected)
    lost_ml = (whole.brain & ~expected).sum() * np.prod(SPACING_MM) / 1000
    assert pair.empty_ml[visit] == pytest.approx(lost_ml)
    assert pair.empty_ml[1 - visit] == 0
    assert pair.targets[:, ~expected].sum() == 0
    assert whole.empty_ml == (0.0, 0.0)
    assert whole.no_data is None
    np.testing.assert_array_equal(pair.no_data, (whole.brain & ~expected) * (visit + 1))


def test_parts_without_data_that_the_preparation_found_are_read(patients_root, caplog):
    folder = patients_root / "patient_0"
    mask = nib.load(folder / layout.BRAIN_MASK).get_fdata()
    codes = np.zeros(SHAPE, np.uint8)
    codes[:, :, 3:5] = mask[:, :, 3:5] * 2
    codes[:, :, 5] = mask[:, :, 5]
    save_nifti(folder / layout.BRAIN_MASK, (mask * (codes == 0)).astype(np.uint8))
    save_nifti(folder / layout.NO_DATA, codes)
    pair = read_pair(first(patients_root, 0))
    np.testing.assert_array_equal(pair.no_data, codes)
    voxel_ml = np.prod(SPACING_MM) / 1000
    counts = [(codes == code).sum() * voxel_ml for code in (1, 2)]
    assert pair.empty_ml == (pytest.approx(counts[0]), pytest.approx(counts[1]))
    assert pair.brain.sum() == (mask * (codes == 0)).sum()
    save_nifti(folder / layout.NO_DATA, codes * 2)
    with pytest.raises(InputError, match=r"no_data.nii.gz: has other values than 0, 1 and 2"):
        read_pair(first(patients_root, 0))


def test_patients_with_both_visits_are_found_and_the_others_are_listed(patients_root, monkeypatch):
    (patients_root / "patient_1" / layout.TIME02).unlink()
    (patients_root / "patient_9").symlink_to(patients_root / "patient_9")
    (patients_root / "patient_0.nii.gz").touch()  # a mask beside the patients
    patient_in = layout.patient_in

    def closed(folder, targets=0):
        if folder.name == "patient_2":
            raise PermissionError(13, "Permission denied", str(folder))
        return patient_in(folder, targets)

    monkeypatch.setattr(layout, "patient_in", closed)
    patients, problems = layout.find_pairs(patients_root, "--dataset")
    assert [patient.name for patient in patients] == ["patient_0", "patient_3"]
    assert problems == {
        "patient_1": f"{patients_root}/patient_1/{layout.TIME02}: no such file.",
        "patient_2": f"{patients_root}/patient_2: cannot be read (Permission denied). Check the "
        "permissions.",
        "patient_9": f"{patients_root}/patient_9: is a link to nothing or to itself. Expected a "
        "folder.",
    }


def test_a_visit_without_data_in_the_brain_is_refused(patients_root, monkeypatch):
    monkeypatch.setattr(coverage, "LEAST_EMPTY_ML", 0.1)
    folder = patients_root / "patient_0"
    brain = nib.load(folder / layout.BRAIN_MASK).get_fdata() > 0
    generator = np.random.default_rng(0)
    skull = np.where(brain, 0, generator.uniform(50, 60, SHAPE)).astype(np.float32)
    save_nifti(folder / layout.TIME01, skull)
    time02 = nib.load(folder / layout.TIME02).get_fdata(dtype=np.float32)
    time02[6:8, 7, 9] = 0  # a few zeros of its own
    save_nifti(folder / layout.TIME02, time02)
    with pytest.raises(InputError, match=r"flair_time01.*has no data in most of the brain"):
        read_pair(first(patients_root))


def test_every_missing_file_of_a_patient_is_named(patients_root):
    (patients_root / "patient_0" / layout.TIME02).unlink()
    (patients_root / "patient_0" / layout.EXPERT.format(1)).unlink()
    with pytest.raises(InputError) as error:
        read_pair(first(patients_root))
    message = str(error.value)
    assert "patient_0/flair_time02_on_middle_space.nii.gz: no such file" in message
    assert "patient_0/ground_truth_expert1.nii.gz: no such file" in message


def test_a_missing_or_empty_root_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"absent: no such folder\. .* one folder per patient\.$"):
        find_patients(tmp_path / "absent", 1)
    with pytest.raises(InputError, match="no patient folder"):
        find_patients(tmp_path, 1)


def spoil(root, name, change):
    """Apply `change` to the array in a file of the first patient."""
    path = root / "patient_0" / name
    save_nifti(path, change(np.asarray(nib.load(path).dataobj)))


def _set(value):
    def change(array):
        array = array.copy()
        array.flat[array.size // 2] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (layout.TIME01, _set(np.nan), "1 voxels are NaN or infinite"),
        (layout.TIME02, _set(np.inf), "1 voxels are NaN or infinite"),
        (layout.TIME02, np.zeros_like, r"every voxel is 0\. Expected a FLAIR image"),
        (layout.TIME02, lambda a: a[1:], r"has \(13, 15, 20\) voxels"),
        (layout.BRAIN_MASK, lambda a: a[:, :, 1:], r"has \(14, 15, 19\) voxels"),
        (layout.BRAIN_MASK, np.zeros_like, "the brain would be empty"),
        (layout.BRAIN_MASK, np.ones_like, r"the brain would be 100.0 % of the volume"),
        (layout.CONSENSUS, _set(3), r"1 voxels have values other than 0 and 1, for example 3\."),
        (layout.EXPERT.format(1), lambda a: 0.5 * a, "36 voxels have values other than 0 and 1"),
    ],
)
def test_invalid_input_is_refused_with_the_name_of_the_file(patients_root, name, change, message):
    spoil(patients_root, name, change)
    with pytest.raises(InputError, match=message) as error:
        read_pair(first(patients_root))
    assert str(patients_root / "patient_0" / name) in str(error.value)


def test_the_message_for_a_visit_without_background_and_mask_gives_advice(patients_root):
    spoil(patients_root, layout.TIME01, lambda a: a + 1)
    (patients_root / "patient_0" / layout.BRAIN_MASK).unlink()
    with pytest.raises(InputError, match=r"no brain mask.*100.0 % of the volume.*Mask the"):
        read_pair(first(patients_root))


def test_the_message_for_visits_on_different_grids_gives_their_distance(patients_root):
    path = patients_root / "patient_0" / layout.TIME02
    save_nifti(path, np.asarray(nib.load(path).dataobj), (SPACING_MM[0] + 0.1, *SPACING_MM[1:]))
    with pytest.raises(InputError, match=r"up to 1.30 mm away"):
        read_pair(first(patients_root))


def test_all_problems_of_a_patient_are_in_one_message(patients_root):
    spoil(patients_root, layout.TIME01, _set(np.nan))
    spoil(patients_root, layout.CONSENSUS, _set(2))
    with pytest.raises(InputError) as error:
        read_pair(first(patients_root))
    assert len(str(error.value).splitlines()) == 2


def test_hidden_folders_and_loose_files_are_not_patients(patients_root):
    (patients_root / ".cache").mkdir()
    shutil.copy(patients_root / "patient_0" / layout.TIME01, patients_root)
    assert len(find_patients(patients_root, 2)) == 4


def test_the_same_scan_twice_is_not_a_pair(patients_root):
    folder = patients_root / "patient_0"
    (folder / layout.TIME02).write_bytes((folder / layout.TIME01).read_bytes())
    with pytest.raises(InputError, match="the same scan was given twice"):
        read_pair(find_patients(patients_root, 0)[0])


def test_a_visit_is_refused_as_a_brain_mask(patients_root):
    folder = patients_root / "patient_0"
    (folder / layout.BRAIN_MASK).write_bytes((folder / layout.TIME01).read_bytes())
    spoil(patients_root, layout.TIME01, np.rint)
    spoil(patients_root, layout.BRAIN_MASK, np.rint)
    with pytest.raises(
        InputError, match=r"brain_mask.nii.gz and .*time01.* contain the same voxels"
    ):
        read_pair(find_patients(patients_root, 0)[0])


@pytest.mark.parametrize("values", [256, 257])
def test_a_label_map_may_be_a_brain_mask_and_an_image_of_integers_may_not(patients_root, values):
    folder = patients_root / "patient_0"
    brain = read_pair(first(patients_root)).brain
    labels = np.zeros(SHAPE, np.int16)
    labels[brain] = 1 + 50 * (np.arange(brain.sum()) % (values - 1))  # 0 outside the brain
    save_nifti(folder / layout.BRAIN_MASK, labels)
    if values == 256:
        np.testing.assert_array_equal(read_pair(first(patients_root)).brain, brain)
    else:
        with pytest.raises(InputError, match=r"brain_mask.nii.gz: has 257 different values"):
            read_pair(first(patients_root))


def test_a_probability_map_is_refused_as_a_brain_mask(patients_root):
    path = patients_root / "patient_0" / layout.BRAIN_MASK
    save_nifti(path, np.full(SHAPE, 0.3, np.float32))
    with pytest.raises(InputError, match=r"brain_mask.nii.gz: has values that are not integers"):
        read_pair(find_patients(patients_root, 0)[0])


def change(path, **changes):
    """Replace the affine or voxels of a file."""
    image = nib.load(path)
    array = image.get_fdata(dtype=np.float32)
    save = nib.Nifti1Image(changes.get("array", array), changes.get("affine", image.affine))
    nib.save(save, path)


def test_visits_with_hardly_any_data_in_common_are_refused(patients_root, monkeypatch):
    monkeypatch.setattr(coverage, "LEAST_EMPTY_ML", 0.1)
    for name, lost in ((layout.TIME01, np.s_[:, :, :10]), (layout.TIME02, np.s_[:, :, 10:])):
        path = patients_root / "patient_0" / name
        array = nib.load(path).get_fdata(dtype=np.float32)
        array[lost] = 0
        save_nifti(path, array)
    with pytest.raises(InputError, match=r"flair_time02.*both have data in only 0\.0 % of the"):
        read_pair(first(patients_root))


def test_a_large_part_without_data_in_either_visit_is_left_out_with_a_warning(patients_root):
    whole = read_pair(first(patients_root)).brain
    for name in (layout.TIME01, layout.TIME02):
        path = patients_root / "patient_0" / name
        array = nib.load(path).get_fdata(dtype=np.float32)
        array[:, :, :8] = 0
        save_nifti(path, array)
    pair = read_pair(first(patients_root))
    expected = whole.copy()
    expected[:, :, :8] = False
    np.testing.assert_array_equal(pair.brain, expected)
    assert pair.empty_ml == (0.0, 0.0)
    (warning,) = pair.warnings
    assert "ml of the brain have no data in either visit" in warning


def test_scattered_padding_is_left_out_and_does_not_blur_into_tissue(patients_root):
    path = patients_root / "patient_0" / layout.TIME02
    whole = read_pair(first(patients_root))
    array = nib.load(path).get_fdata(dtype=np.float32)
    scattered = whole.brain & (np.random.default_rng(0).random(SHAPE) < 0.01)
    array[scattered] = -32768
    save_nifti(path, array)
    pair = read_pair(first(patients_root))
    np.testing.assert_array_equal(pair.brain, whole.brain & ~scattered)
    np.testing.assert_array_equal(pair.no_data, 2 * scattered)
    assert pair.empty_ml[1] == pytest.approx(scattered.sum() * 0.8 / 1000)
    first_visit, second_visit = pair.filled
    assert second_visit[whole.brain].min() > 0
    np.testing.assert_array_equal(second_visit[~scattered], whole.time02.array[~scattered])
    np.testing.assert_array_equal(first_visit, whole.time01.array)
    np.testing.assert_array_equal(pair.time02.array, array)  # as the report shows it


def test_a_mask_of_a_whole_head_is_refused(patients_root):
    for path in (patients_root / "patient_0").glob("*.nii.gz"):
        change(path, affine=np.diag([12.5, 12.5, 12.5, 1.0]))
    expected = r"brain_mask.*the brain would have 3\d+ ml, as much as a whole head.*at most 3000 ml"
    with pytest.raises(InputError, match=expected):
        read_pair(first(patients_root))


def test_a_pair_with_sheared_axes_is_refused(patients_root):
    affine = np.eye(4)
    affine[0, 1] = 0.1
    for path in (patients_root / "patient_0").glob("*.nii.gz"):
        change(path, affine=affine)
    with pytest.raises(InputError, match=r"flair_time01.*axes are 5\.7 degrees away from right"):
        read_pair(first(patients_root))


def changes_of(folder):
    """Return the patient of a folder, with the target set "changes"."""
    (patient,) = (p for p in find_patients(folder.parent, 5, "root", "changes")
                  if p.name == folder.name)  # fmt: skip
    return patient


def test_reads_the_five_maps_of_changes_in_their_order(patients_root):
    folder = patients_root / "patient_0"
    written = add_changes(folder)
    pair = read_pair(changes_of(folder))
    assert pair.known.tolist() == [True] * 5
    for target, name in zip(pair.targets, layout.CHANGES, strict=True):
        np.testing.assert_array_equal(target, written[name])
    # The number of output maps does not matter: all five are read.
    assert layout.patient_in(folder, 1, "changes") == changes_of(folder)


def test_only_the_new_lesions_must_be_known(patients_root):
    folder = patients_root / "patient_0"
    add_changes(folder, without=("vanished.nii.gz", "lesions_time01.nii.gz"))
    patient = changes_of(folder)
    assert {path.name for path in patient.files} == {
        layout.TIME01, layout.TIME02, layout.BRAIN_MASK, layout.CONSENSUS, "enlarging.nii.gz",
        "lesions_time02.nii.gz",
    }  # fmt: skip
    pair = read_pair(patient)
    assert pair.known.tolist() == [True, True, False, False, True]
    assert [bool(target.any()) for target in pair.targets] == pair.known.tolist()
    (folder / layout.CONSENSUS).unlink()
    with pytest.raises(InputError, match=r"patient_0/ground_truth.nii.gz: no such file"):
        read_pair(changes_of(folder))


def test_an_optional_map_that_cannot_be_read_is_not_taken_as_unknown(patients_root):
    folder = patients_root / "patient_0"
    add_changes(folder)
    (folder / "vanished.nii.gz").unlink()
    (folder / "vanished.nii.gz").symlink_to("nowhere")
    save_nifti(folder / "enlarging.nii.gz", np.full(SHAPE, 2, np.uint8))
    with pytest.raises(InputError) as error:
        read_pair(changes_of(folder))
    assert "patient_0/vanished.nii.gz" in str(error.value)
    assert "patient_0/enlarging.nii.gz" in str(error.value)


def test_all_targets_of_raters_are_known(patients_root):
    assert read_pair(find_patients(patients_root, 2)[0]).known.tolist() == [True, True]
