"""The count of right and of all marked lesions, on maps in which one can count by hand."""

import nibabel as nib
import numpy as np
import pytest

from benchmarks import operating_point, reliability
from msseg_jax.models.reliability import read_reliability
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import CONSENSUS

SHAPE = (30, 20, 20)  # voxels of 1 mm3


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def write(root, maps, name, marked, true):
    """Write the map and the reference of a pair.

    Args:
      marked: (box, probability) of each marked lesion.
      true: boxes of the true lesions.
    """
    probability, reference = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    for box, value in marked:
        probability[box] = value
    for box in true:
        reference[box] = 1
    save(root / name / CONSENSUS, reference)
    save(maps / f"{name}.nii.gz", probability)


def box(*sides):
    return tuple(slice(start, start + length) for start, length in sides)


SMALL = box((0, 2), (0, 2), (0, 3))  # 12 mm3
THIRTY = box((5, 5), (0, 3), (0, 2))  # 30 mm3: the upper end of a bin is part of it
LARGER = box((12, 18), (0, 1), (0, 2))  # 36 mm3
LARGE = box((0, 8), (10, 8), (10, 8))  # 512 mm3
TINY = box((20, 1), (15, 1), (15, 3))  # 3 mm3: no lesion of the challenge
FIVE = box((25, 1), (15, 1), (10, 5))  # 5 mm3


@pytest.fixture
def folders(tmp_path):
    """Write two folders of pairs with their maps, by networks with other pairs."""
    one, two = (tmp_path / "one", tmp_path / "maps1"), (tmp_path / "two", tmp_path / "maps2")
    # Right: LARGE, which the reference fills to one half, and THIRTY. False: SMALL, LARGER.
    half = box((0, 8), (10, 8), (10, 4))
    write(
        *one,
        "anna",
        [(SMALL, 0.65), (THIRTY, 0.7), (LARGER, 0.95), (LARGE, 0.85), (TINY, 0.9)],
        [half, THIRTY, TINY],
    )
    write(*one, "empty", [], [])
    # Right: SMALL. False: FIVE, and LARGE, of which the reference covers only 32 of 512 mm3.
    part = box((0, 4), (10, 8), (10, 1))
    write(*two, "bert", [(SMALL, 0.65), (FIVE, 0.62), (LARGE, 0.95)], [SMALL, part])
    return one, two


def count(monkeypatch, folders, output, *more):
    flags = [
        flag for root, maps in folders for flag in (f"--reference={root}", f"--probability={maps}")
    ]
    given = [*flags, f"--output={output}", "--pairs=three pairs", *more]
    monkeypatch.setattr("sys.argv", ["reliability", *given])
    reliability.main()
    return read_reliability(output)


def test_lesions_are_counted_by_volume_and_probability(folders, tmp_path, monkeypatch, capsys):
    path = tmp_path / "table.json"
    options = ["--threshold=0.6", "--min_lesion_mm3=0", "--min_peak=0", "--flips=2"]
    table = count(monkeypatch, folders, path, *options)
    assert table.above_mm3 == (3, 10, 30, 100, 300)
    assert table.above_probability == (0.6, 0.7, 0.8, 0.9)
    assert table.marked == (
        (1, 0, 0, 0),  # FIVE; TINY does not count
        (3, 0, 0, 0),  # both SMALL, and THIRTY
        (0, 0, 0, 1),  # LARGER
        (0, 0, 0, 0),
        (0, 0, 1, 1),  # LARGE
    )
    assert table.right == ((0,) * 4, (2, 0, 0, 0), (0,) * 4, (0,) * 4, (0, 0, 1, 0))
    assert (table.threshold, table.min_lesion_mm3, table.flips) == (0.6, 0, 2)
    assert table.pairs == "three pairs"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "3 of 7 marked lesions were right, by volume and mean probability p:"
    assert said[-1] == f"table: {path} (7 marked lesions in 3 pairs)"


def test_threshold_and_smallest_lesion_decide_what_is_marked(folders, tmp_path, monkeypatch):
    path = tmp_path / "table.json"
    options = ["--threshold=0.8", "--min_lesion_mm3=36"]
    table = count(monkeypatch, folders[:1], path, *options, "--min_peak=0")
    assert table.above_mm3 == (3, 100, 300)
    assert table.above_probability == (0.8, 0.9)
    assert table.marked == ((0, 1), (0, 0), (1, 0))  # LARGER has exactly 36 mm3
    assert table.right == ((0, 0), (0, 0), (1, 0))
    assert (table.flips, table.min_peak) == (1, 0)
    peak = count(monkeypatch, folders[:1], path, *options, "--min_peak=0.92")
    assert peak.min_peak == 0.92
    assert sum(map(sum, peak.marked)) < sum(map(sum, table.marked))


def test_the_operating_point_counts_several_folders_together(
    folders, tmp_path, monkeypatch, capsys
):
    (root1, maps1), (root2, maps2) = folders
    both = [f"--reference={root1}", f"--probability={maps1}"]
    both += [f"--reference={root2}", f"--probability={maps2}"]
    monkeypatch.setattr("sys.argv", ["operating_point", *both])
    operating_point.main()
    last = capsys.readouterr().out.splitlines()[-1]
    # The reference has a part of LARGE and THIRTY in the first pair, SMALL and a part in the third.
    assert "of 4 detected" in last
    assert last.endswith("in 3 pairs")


def test_what_cannot_be_counted_is_refused_before_anything_is_written(
    folders, tmp_path, monkeypatch
):
    path = tmp_path / "table.json"
    options = ["--threshold=0.6", "--min_lesion_mm3=0", "--min_peak=0"]
    with pytest.raises(InputError, match="pairs: the text is empty"):
        count(monkeypatch, folders, path, *options, "--pairs=")
    with pytest.raises(InputError, match="--reference is given 2 times, and --probability 3 times"):
        count(monkeypatch, folders, path, *options, f"--probability={tmp_path}")
    with pytest.raises(InputError, match="holds no probability map; expected files"):
        count(monkeypatch, [(folders[0][0], tmp_path / "none")], path, *options)
    with pytest.raises(InputError, match="expected a name that ends in"):
        count(monkeypatch, folders, tmp_path / "table.txt", *options)
    with pytest.raises(InputError, match="maps1 is given twice"):
        count(monkeypatch, [folders[0], folders[1], folders[0]], path, *options)
    save(folders[0][1] / "anna.nii.gz", np.full(SHAPE, 2, np.float32))  # a numbered mask
    with pytest.raises(
        InputError, match=r"anna\.nii\.gz: its values are 2 to 2; expected probabil"
    ):
        count(monkeypatch, folders, path, *options)
    save(folders[0][1] / "anna.nii.gz", np.zeros((4, 4, 4), np.float32))
    with pytest.raises(InputError, match=r"anna.nii.gz"):
        count(monkeypatch, folders, path, *options)
    assert not list(tmp_path.glob("table*"))
