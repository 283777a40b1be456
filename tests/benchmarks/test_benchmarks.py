"""Tests of the benchmarks that measure the figures of MODEL_CARD.md."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from benchmarks import difference, lesion_sizes, operating_point, pictures, real_pair
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import BRAIN_MASK, CONSENSUS, TIME01, TIME02, patient_in
from msseg_jax.volumes.pair import read_pair

LESION, OTHER = np.s_[14:19, 20:25, 18:23], np.s_[30:34, 20:24, 18:22]  # 125 and 64 mm3


def save(path, array, shift_mm=0.0):
    affine = nib.affines.from_matvec(np.eye(3), (shift_mm, 0, 0))
    nib.save(nib.Nifti1Image(array, affine), path)


def marks(*boxes):
    mask = np.zeros((48, 48, 40), np.uint8)
    for box in boxes:
        mask[box] = 1
    return mask


def write_pair(folder, seed=0):
    """Write a pair and its masks: a ball of tissue with a new lesion at the second visit."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*map(np.arange, (48, 48, 40)), indexing="ij"), -1)
    brain = np.linalg.norm(places - (23.5, 23.5, 19.5), axis=-1) < 18
    tissue = 100 + 20 * ndimage.gaussian_filter(rng.standard_normal(brain.shape), 3) * 10
    for name, new in ((TIME01, ()), (TIME02, (LESION,))):
        image = brain * (tissue + 60.0 * marks(*new) + rng.normal(0, 3, brain.shape))
        save(folder / name, image.astype(np.float32))
    save(folder / BRAIN_MASK, brain.astype(np.uint8))
    save(folder / CONSENSUS, marks(LESION))
    save(folder / "change_mask.nii.gz", ndimage.binary_dilation(marks(LESION)).astype(np.uint8))
    return folder


def test_the_difference_finds_only_what_is_brighter_at_the_second_visit(tmp_path):
    for k in range(3):
        write_pair(tmp_path / "tune" / f"p{k}", k)
    fitted = difference.fit(tmp_path / "tune")
    assert (fitted.f1, fitted.pairs) == (1.0, 3)
    folder = write_pair(tmp_path / "test", 7)
    pair = read_pair(patient_in(folder, targets=1))
    found = difference.find_new(pair, fitted)
    lesion = pair.targets[0] > 0
    assert ndimage.label(found)[1] == 1
    assert (found & lesion).sum() > 60
    exchanged = replace(pair, time01=pair.time02, time02=pair.time01)
    assert not (difference.find_new(exchanged, fitted) & lesion).any()


def test_a_predicted_lesion_outside_all_marked_changes_is_a_false_positive(tmp_path, capsys):
    folder = write_pair(tmp_path / "anna")
    real_pair.describe(folder, lambda patient, pair: (marks(LESION, OTHER) > 0, None))
    as_they_are, exchanged, *_, dice = capsys.readouterr().out.splitlines()
    assert (
        "2 predicted, 189 mm3; false positives (10 mm3 or more, outside all marked changes): 1"
        in as_they_are
    )
    assert "largest new lesion, 125 mm3: detected, 100 % of its voxels" in as_they_are
    assert "largest" not in exchanged, "the exchanged visits have no reference"
    assert dice.endswith("changes: 0.539 (new lesions), 0.539 (both orders)")
    real_pair.describe(folder, lambda patient, pair: (marks(OTHER) > 0, marks(LESION) > 0))
    as_they_are, *_, dice = capsys.readouterr().out.splitlines()
    assert "125 mm3: NOT detected, 0 %" in as_they_are
    assert dice.endswith("0.000 (new lesions), 0.625 (all classes)")
    save(folder / "change_mask.nii.gz", marks(LESION), shift_mm=3)
    with pytest.raises(InputError, match="change_mask"):
        real_pair.describe(folder, lambda patient, pair: (marks(LESION) > 0, None))


def test_the_operating_point_has_the_best_f1(tmp_path, monkeypatch, capsys):
    folder = write_pair(tmp_path / "root" / "anna")
    # The true lesion, a false one of lower probability, and a very small false one.
    probability = (
        0.65 * marks(LESION) + 0.45 * marks(OTHER) + 0.65 * marks(np.s_[24:26, 8:10, 18:20])
    )
    (tmp_path / "maps").mkdir()
    save(tmp_path / "maps" / "anna.nii.gz", probability.astype(np.float32))
    flags = [f"--reference={folder.parent}", f"--probability={tmp_path / 'maps'}"]
    monkeypatch.setattr("sys.argv", ["operating_point", *flags])
    operating_point.main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(
        "best: threshold 0.5, smallest lesion 10 mm3, smallest peak 0; 1 of 1 detected, 1 of 1"
    )
    monkeypatch.setattr("sys.argv", ["operating_point", *flags, "--at", "0.1", "9", "0"])
    operating_point.main()
    printed = capsys.readouterr().out
    assert "threshold 0.1, smallest lesion 9 mm3, smallest peak 0:" in printed
    rows = {line[:14].strip(): line[14:].split() for line in printed.splitlines()}
    assert rows["30 to 100"][-5:-1] == ["0.00", "(0", "of", "1)"], "the false lesion of 64 mm3"
    assert " ".join(rows["100 or more"]) == "1.00 (1 of 1) 1.00 (1 of 1) 1.00"
    assert " ".join(rows["all"]) == "1.00 (1 of 1) 0.50 (1 of 2) 0.67"
    monkeypatch.setattr("sys.argv", ["operating_point", *flags, "--at", "0.1", "9", "0.6"])
    operating_point.main()
    printed = capsys.readouterr().out
    rows = {line[:14].strip(): line[14:].split() for line in printed.splitlines()}
    assert " ".join(rows["all"]) == "1.00 (1 of 1) 1.00 (1 of 1) 1.00", "no false peak of 0.45"


def test_a_peak_is_chosen_if_nothing_else_leaves_out_false_lesions(tmp_path, monkeypatch, capsys):
    folder = write_pair(tmp_path / "root" / "anna")
    # The true lesion is only 0.5 in most of its voxels. The false one is larger, and nowhere sure.
    probability = 0.55 * marks(LESION) + 0.85 * marks(np.s_[2:9, 2:9, 2:9])
    probability[np.unravel_index(np.flatnonzero(marks(LESION))[:9], probability.shape)] = 0.92
    (tmp_path / "maps").mkdir()
    save(tmp_path / "maps" / "anna.nii.gz", probability.astype(np.float32))
    flags = [f"--reference={folder.parent}", f"--probability={tmp_path / 'maps'}"]
    monkeypatch.setattr("sys.argv", ["operating_point", *flags])
    operating_point.main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("best: threshold 0.2, smallest lesion 3 mm3, smallest peak 0.9; 1 of 1")
    assert "1 of 1 confirmed" in last


def test_lesions_are_counted_by_their_volume():
    lesions = pd.DataFrame(
        [("reference", 20, True), ("reference", 50, False), ("prediction", 2000, True),
         ("prediction", 25, False)],
        columns=["mask", "volume_mm3", "agrees"],
    )  # fmt: skip
    rows = {name: counts for name, *counts in lesion_sizes.by_volume(lesions)}
    assert rows["0 to 30"] == [1, 1, 0, 1]
    assert rows["30 to 100"] == [0, 1, 0, 0]
    assert rows["1000 or more"] == [0, 0, 1, 1]
    assert rows["100 or more"] == [0, 0, 1, 1]
    assert rows["all"] == [1, 2, 1, 2]
    assert "0.50 (1 of 2)    0.50 (1 of 2)    0.50" in lesion_sizes.format_row("all", *rows["all"])
    assert lesion_sizes.format_row("none", 0, 3, 0, 2).endswith("0.00")


def test_a_picture_has_a_column_for_each_lesion(tmp_path):
    folder = write_pair(tmp_path / "anna")
    save(tmp_path / "mask.nii.gz", marks(LESION, OTHER))
    assert len(pictures.draw(folder, tmp_path / "mask.nii.gz", lesions=6).axes) == 2 * 3
    assert len(pictures.draw(folder, tmp_path / "mask.nii.gz", lesions=1).axes) == 3
    save(tmp_path / "mask.nii.gz", marks())
    with pytest.raises(InputError, match="no lesion in it"):
        pictures.draw(folder, tmp_path / "mask.nii.gz", lesions=6)
