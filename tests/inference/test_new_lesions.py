"""Classes of changed lesions: the label map, the masks of each visit, and the table."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from msseg_jax.configuration.options import Options
from msseg_jax.configuration.targets import ENLARGING, LESIONS01, NEW
from msseg_jax.inference.new_lesions import NewLesions
from msseg_jax.volumes.lesions import CENTRE, number_lesions, touched_mm3
from msseg_jax.volumes.volume import Volume

SHAPE = (10, 12, 14)
SPACING_MM = (1.0, 2.0, 0.5)  # voxels of 1 mm3


def found_in(maps, min_lesion_mm3=0.0, min_peak=0.0) -> NewLesions:
    """Return what is found in maps of SHAPE with a threshold of 0.5."""
    affine = np.diag([*SPACING_MM, 1.0])
    header = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), affine).header
    like = Volume(Path("like"), np.zeros(SHAPE, np.float32), affine, header)
    maps = np.asarray(maps, np.float32)
    options = Options(threshold=0.5, min_lesion_mm3=min_lesion_mm3, min_peak=min_peak)
    return NewLesions(like, maps, np.zeros(SHAPE, np.float32), options)


def empty(count: int) -> np.ndarray:
    return np.zeros((count, *SHAPE), np.float32)


def test_a_lesion_without_a_probable_voxel_is_dropped_as_a_whole():
    maps = empty(5)
    for row, highest in ((2, 0.9), (4, 0.89), (6, 0.6)):
        maps[NEW, 1, row, 2:5] = (0.6, highest, 0.55)
    maps[LESIONS01, 1, 8, 2:4] = (0.6, 0.95)
    maps[ENLARGING, 5, 5, 3] = 0.8
    kept = found_in(maps, min_peak=0.9)
    assert np.argwhere(kept.mask).tolist() == [[1, 2, 2], [1, 2, 3], [1, 2, 4]]
    assert not (kept.changes == ENLARGING + 1).any()
    assert kept.lesions01.sum() == 2
    assert found_in(maps, min_peak=0.89).count == 2
    assert found_in(maps, min_lesion_mm3=3, min_peak=0.6).count == 3
    assert found_in(maps, min_lesion_mm3=4, min_peak=0.6).count == 0
    assert found_in(maps, min_peak=0.5).count == 3
    assert found_in(empty(1), min_peak=0.9).count == 0


def test_the_mask_wins_over_other_changes_and_the_more_probable_change_over_the_other():
    maps = empty(3)
    line = np.s_[2, 3]
    maps[:, *line, :5] = np.array(
        [
            #  new  both above  new is less probable  vanished more  enlarging more  equal
            [0.9, 0.6, 0.1, 0.2, 0.3],
            [0.6, 0.9, 0.6, 0.8, 0.7],
            [0.0, 0.8, 0.9, 0.7, 0.7],
        ]
    )
    found = found_in(maps)
    assert found.changes.dtype == np.uint8
    assert found.changes[line].tolist() == [1, 1, 3, 2, 2] + [0] * 9
    np.testing.assert_array_equal(found.changes == 1, found.mask == 1)
    assert found.changes.sum() == 9


def test_the_smallest_lesion_holds_for_each_label_and_dropped_new_voxels_are_not_new():
    maps = empty(3)
    maps[0, 5, 5, 5:7] = 0.9  # 2 mm3, too small to be new
    maps[1, 5, 5, 3:8] = 0.8  # 5 mm3 around it, enlarging
    maps[2, 1, 1, 0:4] = 0.9  # 4 mm3, vanished
    maps[2, 8, 8, 0:3] = 0.9  # 3 mm3, too small
    maps[1, 1, 1, 4:6] = 0.9  # 2 mm3: too small, although it touches the vanished lesion
    found = found_in(maps, min_lesion_mm3=4)
    assert found.count == 0
    expected = np.zeros(SHAPE)
    expected[5, 5, 3:8] = 2
    expected[1, 1, 0:4] = 3
    np.testing.assert_array_equal(found.changes, expected)
    # The mask of new lesions takes voxels from an enlarging lesion before its size is measured.
    maps[0, 5, 5, 3:8] = 0.6
    found = found_in(maps, min_lesion_mm3=4)
    assert (found.changes[5, 5, 3:8] == 1).all()
    assert found.mask.sum() == 5


def test_all_lesions_of_each_visit_have_the_threshold_and_the_smallest_lesion():
    maps = empty(5)
    maps[3, 2, 2, 2:5] = 0.51
    maps[3, 7, 7, 7] = 0.99
    maps[4, 2, 2, 2:9] = 0.7
    maps[4, 4, 4, :] = 0.5
    found = found_in(maps, min_lesion_mm3=2)
    assert found.lesions01.dtype == found.lesions02.dtype == np.uint8
    assert found.lesions01.sum() == found.lesions01[2, 2, 2:5].sum() == 3
    assert found.lesions02.sum() == found.lesions02[2, 2, 2:9].sum() == 7


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_what_the_maps_do_not_show_is_none(count):
    found = found_in(empty(count))
    assert (found.changes is not None) == (count >= 3)
    assert (found.lesions01 is not None) == (count >= 4)
    assert (found.lesions02 is not None) == (count >= 5)


def some_changes() -> np.ndarray:
    """Return five maps: two new lesions, one that grew, and one that split and partly went."""
    maps = empty(5)
    maps[0, 1, 1, 0:4] = 0.8  # new
    maps[0, 1, 9, 0:2] = 0.6  # new, not shown by the map of the second visit
    maps[1, 5, 5, 6:9] = 0.7  # the part that grew
    maps[2, 8, 8, 4:6] = 0.9  # the part that went
    maps[3, 5, 5, 2:7] = 0.9  # before it grew: 5 mm3; it shares a voxel with the part that grew
    maps[3, 8, 8, 0:9] = 0.9  # before it split: 9 mm3
    maps[4, 1, 1, 0:5] = 0.9  # 5 mm3
    maps[4, 5, 5, 2:9] = 0.9  # 7 mm3
    maps[4, 8, 8, 0:5] = 0.9  # 5 mm3, and
    maps[4, 8, 8, 5:6] = 0.4
    return maps


def test_the_table_has_the_class_and_the_volumes_at_both_visits_new_lesions_first():
    found = found_in(some_changes())
    columns = ("lesion", "class", "volume_mm3", "volume01_mm3", "volume02_mm3", "change_mm3")
    assert [tuple(row[name] for name in columns) for row in found.rows] == [
        (1, "new", 4, 0, 5, 5),
        (2, "new", 2, 0, 0, 0),
        (1, "enlarging", 3, 5, 7, 2),
        (1, "vanished or shrunk", 2, 9, 5, -4),
    ]
    np.testing.assert_allclose(
        [row["mean_probability"] for row in found.rows], [0.8, 0.6, 0.7, 0.9], rtol=1e-6
    )
    grown = found.rows[2]
    assert (grown["x_mm"], grown["y_mm"], grown["z_mm"]) == (5, 10, 3.5)
    assert found.count == 2
    assert found.volume_mm3 == 6
    assert str(found) == "2 new lesions, 6 mm3"


def test_volumes_at_visits_that_the_maps_do_not_show_are_nan():
    rows = found_in(some_changes()[:4]).rows
    assert [row["volume01_mm3"] for row in rows] == [0, 0, 5, 9]
    assert all(np.isnan(row["volume02_mm3"]) and np.isnan(row["change_mm3"]) for row in rows)


def test_the_rows_of_a_single_map_are_those_of_several_maps_without_the_volumes():
    rows = found_in(some_changes()[:1]).rows
    further = found_in(some_changes()).rows
    names = ("volume01_mm3", "volume02_mm3", "change_mm3")
    assert len(rows) == 2
    for row, other in zip(rows, further, strict=False):
        assert list(row) == list(other)
        assert all(np.isnan(row.pop(name)) for name in names)
        assert row == {name: value for name, value in other.items() if name not in names}


def test_the_numbered_mask_shows_each_lesion_with_its_label():
    found = found_in(some_changes())
    assert [row["label"] for row in found.rows] == list(range(1, len(found.rows) + 1))
    assert len({row["class"] for row in found.rows}) == 3
    for row in found.rows:
        here = found.numbered == row["label"]
        assert here.sum() * np.prod(SPACING_MM) == pytest.approx(row["volume_mm3"])
        centre = apply_affine(found.like.affine, np.argwhere(here).mean(axis=0))
        np.testing.assert_allclose(centre, [row[name] for name in CENTRE], atol=1e-4)
    np.testing.assert_array_equal(found.numbered > 0, found.changes > 0)


def test_a_lesion_is_compared_with_all_lesions_that_it_touches():
    labels, others = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    labels[5, 5, 0:8] = True  # touches two
    labels[1, 1, 1] = True  # touches none
    others[5, 5, 0:2] = True
    others[5, 5, 6:9] = True
    others[1, 1, 2] = True  # a neighbour that shares no voxel
    numbered = [number_lesions(mask)[0] for mask in (labels, others)]
    assert touched_mm3(*numbered, SPACING_MM).tolist() == [5, 0]
    assert touched_mm3(numbered[0], np.zeros(SHAPE, np.int32), SPACING_MM).tolist() == [0, 0]
    assert touched_mm3(np.zeros(SHAPE, np.int32), numbered[1], SPACING_MM).tolist() == []
