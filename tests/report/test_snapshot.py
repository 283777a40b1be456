import numpy as np
import pytest

from msseg_jax.report.snapshot import BAR, FRAME, GAP, choose_slice, draw_snapshot

BLUE, ORANGE = (86, 180, 233), (230, 159, 0)
SHAPE = (16, 20, 12)  # columns, rows, slices, according to the affine
SCALE = 32  # 20 rows to 640 pixels
AFFINE = np.diag([0.8, -0.8, 0.8, 1.0])  # to the right, to the back, to the head
BOX = np.s_[3:6, 5:9, 7]


def mask(*boxes):
    mask = np.zeros(SHAPE, bool)
    for box in boxes:
        mask[box] = True
    return mask


def drawn(reference, prediction, brain=None, visits=None):
    brain = np.ones(SHAPE, bool) if brain is None else brain
    if visits is None:
        visits = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
    return draw_snapshot("patient_3", AFFINE, visits, brain, reference, prediction)


def slices_of(snapshot):
    """Return the slices of the first and the second visit, without frame and text."""
    rows = slice(BAR + FRAME, BAR + FRAME + 20 * SCALE)
    width = 16 * SCALE + 2 * FRAME
    return [
        snapshot.pixels[rows, left + FRAME : left + FRAME + 16 * SCALE] for left in (0, width + GAP)
    ]


def extent(picture, colour):
    """Return the bounding box of a colour in pixels: left, top, right, bottom (exclusive)."""
    rows, columns = np.nonzero((picture == colour).all(axis=-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_the_picture_contains_both_visits_and_the_text():
    snapshot = drawn(mask(BOX), mask())
    assert snapshot.patient == "patient_3"
    assert snapshot.pixels.dtype == np.uint8
    width, height = 16 * SCALE + 2 * FRAME, 20 * SCALE + 2 * FRAME
    assert snapshot.pixels.shape == (BAR + height, 2 * width + GAP, 3)
    assert (snapshot.pixels[:BAR] == 255).all(axis=-1).any()


def test_outlines_surround_the_lesions_only_on_the_second_visit():
    # The columns of the file run to the patient's right, so in the picture they run from 15 to 0.
    first, second = slices_of(drawn(mask(BOX), mask(np.s_[10:12, 14:15, 7])))
    columns, rows = (16 - 6, 16 - 3), (5, 9)
    left, top, right, bottom = extent(second, BLUE)
    assert (left, right) == (columns[0] * SCALE - 1, columns[1] * SCALE + 1)
    assert (top, bottom) == (rows[0] * SCALE - 1, rows[1] * SCALE + 1)
    left, top, right, bottom = extent(second, ORANGE)
    assert (left, right) == (4 * SCALE - 1, 6 * SCALE + 1)
    assert (top, bottom) == (14 * SCALE - 1, 15 * SCALE + 1)
    inside = second[5 * SCALE + 3 : 9 * SCALE - 3, 10 * SCALE + 3 : 13 * SCALE - 3]
    assert (inside[..., 0] == inside[..., 2]).all()  # the lesion stays grey
    assert (first[..., 0] == first[..., 2]).all()


def test_both_outlines_are_visible_where_they_coincide():
    _, second = slices_of(drawn(mask(BOX), mask(BOX)))
    assert extent(second, BLUE) == extent(second, ORANGE)


def test_pictures_of_a_training_differ_only_in_the_prediction():
    before, after = (  # The second prediction is not in the slice that is shown.
        drawn(mask(BOX), mask(box)).pixels
        for box in (np.s_[10:12, 14:15, 7], np.s_[0:16, 14:18, 2])
    )
    changed = (before != after).any(axis=-1)
    rows, columns = np.nonzero(changed[BAR:])
    assert rows.min() >= FRAME + 14 * SCALE - 2
    assert rows.max() < FRAME + 15 * SCALE + 2
    assert columns.min() > 16 * SCALE + 2 * FRAME + GAP


def test_the_outside_of_the_brain_is_black_and_the_grey_values_span_the_brain():
    brain = mask(np.s_[4:12, 5:15, :])
    ramp = np.broadcast_to(np.linspace(-1, 1, 8)[:, None, None], (8, 10, 12))
    visits = np.zeros((2, *SHAPE), np.float32)  # 0 outside the brain, as normalised images are
    visits[:, 4:12, 5:15] = ramp
    for picture in slices_of(drawn(mask(), mask(), brain, visits)):
        grey = picture[:, :, 0]
        assert grey[: 4 * SCALE].max() == 0
        assert grey[:, : 3 * SCALE].max() == 0
        middle = grey[10 * SCALE]
        assert middle[4 * SCALE + SCALE // 2] > 250  # the file's last column comes first
        assert middle[11 * SCALE + SCALE // 2] < 5
        assert middle[8 * SCALE] == pytest.approx(127, abs=3)


def test_the_slice_with_most_of_the_reference_is_chosen():
    brain = np.ones((12, 20, 16), bool)
    reference = np.zeros((12, 20, 16), bool)
    reference[2, :3, :3] = reference[5, :4, :3] = reference[9, :2, :2] = True
    assert choose_slice(reference, brain) == 5


def test_the_slice_at_half_the_brains_height_is_chosen_without_a_reference():
    brain = np.zeros((30, 4, 4), bool)
    brain[6:25] = True
    assert choose_slice(np.zeros_like(brain), brain) == 15
