"""Close-ups and the checkerboard: what they show, and on which side."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from msseg_jax.report.checkerboard import checkerboard
from msseg_jax.report.closeups import COLUMNS, GAP, PIXELS, CloseUps
from msseg_jax.report.drawn import DrawnPair
from tests.support.grids import CODES, grid_of

NOTHING = (0.0, 0.0, 0.0)
# A place to the patient's left, to the front and to the head of the middle, mm.
SHIFTS_MM = {"axial": (-8, 8, 0), "coronal": (-8, 0, 8), "sagittal": (0, 8, 8)}


def picture_of(uri) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def pictures_of(closeup) -> list[np.ndarray]:
    """Return the pictures of a row, (rows, columns, 3) each."""
    row = picture_of(closeup.picture)
    starts = [k * (PIXELS + GAP) for k in range(len(COLUMNS))]
    return [row[:, start : start + PIXELS].astype(int) for start in starts]


def centre_mm(bright, closeup) -> np.ndarray:
    """Return how far down and to the right of the middle the bright pixels lie, mm."""
    middle = np.argwhere(bright).mean(axis=0) - (PIXELS - 1) / 2
    return middle * closeup.side_mm / PIXELS


@pytest.fixture(params=CODES)
def head(request):
    """Return an affine, the mm of each voxel from the middle, and the middle in scanner mm."""
    affine, shape = grid_of(request.param, (1.0, 1.0, 2.0), (80, 90, 50))
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    mm = places @ affine[:3, :3].T + affine[:3, 3]
    middle_mm = mm.reshape(-1, 3).mean(axis=0)
    return affine, mm - middle_mm, middle_mm


def ball(mm, centre, radius_mm):
    return np.linalg.norm(mm - np.array(centre), axis=-1) < radius_mm


def draw_with(head, *lesions):
    """Return close-ups of a pair with lesions at the second visit."""
    affine, mm, _ = head
    brain = np.linalg.norm(mm / (35, 40, 45), axis=-1) < 1
    first = np.where(brain, 100.0, 0.0)
    second = first + 100 * np.any(lesions, axis=0)
    return CloseUps(DrawnPair.of((first, second), brain, affine))


def test_a_lesion_is_in_the_middle_of_its_close_ups(head):
    lesion = ball(head[1], NOTHING, 4)
    found = draw_with(head, lesion).of_lesion(lesion, "prediction")
    assert [one.plane for one in found] == ["axial", "coronal", "sagittal"]
    assert [one.edges for one in found] == [("R", "L"), ("R", "L"), ("A", "P")]
    for one in found:
        first, second, outlined, difference = pictures_of(one)
        assert np.ptp(first) < 20, "the first visit has no lesion"
        orange = outlined[..., 0] - outlined[..., 2] > 80
        assert orange.sum() > 50
        for bright in (second[..., 0] > 200, orange, difference[..., 0] > 200):
            assert np.abs(centre_mm(bright, one)).max() < 1.1, one.plane


def test_left_front_and_head_are_where_the_edges_say(head):
    for plane, shift_mm in SHIFTS_MM.items():
        draw = draw_with(head, ball(head[1], shift_mm, 3))
        (one,) = (found for found in draw.of_point(head[2]) if found.plane == plane)
        down_mm, right_mm = centre_mm(pictures_of(one)[1][..., 0] > 200, one)
        # L is at the right edge, P too; the front of the axial plane and the head are at the top.
        assert down_mm == pytest.approx(-8, abs=1.5), plane
        assert right_mm == pytest.approx(-8 if plane == "sagittal" else 8, abs=1.5), plane


def test_a_large_lesion_fits_into_its_close_ups(head):
    lesion = ball(head[1], NOTHING, 22)
    for one in draw_with(head, lesion).of_lesion(lesion, "prediction"):
        assert one.side_mm == pytest.approx(44 + 2 * 10, abs=4)


def test_the_checkerboard_shows_both_visits_in_turn(head):
    affine, mm, _ = head
    brain = ball(mm, NOTHING, 38)
    grey = np.where(brain, np.abs(mm).sum(axis=-1), 0.0)
    picture = picture_of(checkerboard(DrawnPair.of((grey, -grey), brain, affine))).astype(int)
    same = picture_of(checkerboard(DrawnPair.of((grey, grey), brain, affine))).astype(int)
    changed = np.abs(picture - same) > 40
    assert 0.15 < changed.mean() < 0.6, "about half of the squares show the other visit"
