import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msseg_jax.evaluation.evaluate import evaluate
from msseg_jax.report.closeups import COLUMNS
from msseg_jax.report.evaluation import write_evaluation_report
from msseg_jax.report.page import write_page
from msseg_jax.report.section import PatientSection, ShownLesions, add_pictures
from msseg_jax.report.slices import MOST_SLICES, choose_slices, make_slices, outline_path
from msseg_jax.volumes.axial_view import AxialView
from msseg_jax.volumes.coverage import empty_warnings
from msseg_jax.volumes.lesions import describe_lesions
from msseg_jax.volumes.pair import Pair
from msseg_jax.volumes.sides import side_of
from msseg_jax.volumes.volume import Volume
from tests.support.grids import CODES, grid_of
from tests.support.patients import SHAPE, save_nifti


def voxel_at(affine, world_mm):
    return tuple(np.rint(np.linalg.inv(affine) @ [*world_mm, 1])[:3].astype(int))


@pytest.mark.parametrize("codes", CODES)
def test_the_patients_left_is_on_the_right_and_the_front_is_at_the_top(codes):
    affine, shape = grid_of(codes)
    view = AxialView.of(affine, shape)
    centre = affine @ [*((np.array(shape) - 1) / 2), 1]
    marked = np.zeros(shape)
    marked[voxel_at(affine, np.add(centre[:3], (-2.4, 0.9, -13.4)))] = 1  # left, front, foot
    shown = view(marked)
    assert shown.shape == view.shape == (10, 8, 6)  # slices, rows, columns
    ((number, row, column),) = np.argwhere(shown)
    assert number == 0  # the lowest slice
    assert row < 4  # the upper half
    assert column == 5  # the right edge
    assert view.pixel_mm == (2.0, 1.0)
    assert view.height_mm(number) == pytest.approx(centre[2] - 4.5 * 3)
    assert view.tilt_degrees == pytest.approx(0)


def test_the_tilt_of_an_oblique_grid_is_known():
    turn = np.radians(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    assert AxialView.of(affine, (4, 5, 6)).tilt_degrees == pytest.approx(20)


def test_points_near_the_middle_are_neither_left_nor_right():
    assert [side_of(offset) for offset in (-30, -4, 0, 4, 30)] == [
        "left", "middle", "middle", "middle", "right",
    ]  # fmt: skip


def test_an_outline_runs_along_the_pixel_edges():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    edges = re.findall(r"M(\d+) (\d+)([HV])(\d+)", outline_path(mask))
    assert {tuple(edge) for edge in edges} == {
        ("2", "1", "H", "5"), ("2", "3", "H", "5"), ("2", "1", "V", "3"), ("5", "1", "V", "3"),
    }  # fmt: skip


def test_an_outline_includes_holes_and_the_border_of_the_picture():
    mask = np.ones((3, 3), bool)
    mask[1, 1] = False
    edges = re.findall(r"M(\d+) (\d+)([HV])(\d+)", outline_path(mask))
    assert sum(abs(int(end) - int(x if way == "H" else y)) for x, y, way, end in edges) == 12 + 4


def labels_of(*boxes, shape=(30, 10, 10)):
    labels = np.zeros(shape, int)
    for number, box in enumerate(boxes, start=1):
        labels[box] = number
    return labels


def test_a_few_slices_show_every_lesion():
    reference = labels_of(np.s_[3:9, 1:5, 1:5], np.s_[20:22, 1:3, 1:3])
    reference[5, 1:6, 1:6] = 1  # slice 5 contains most of the first lesion
    prediction = labels_of(np.s_[5:6, 7:9, 7:9])
    labels = {"reference": reference, "prediction": prediction}
    chosen, shown_in = choose_slices(labels, np.ones((30, 10, 10), bool))
    assert chosen == {5, 20}
    assert shown_in == {"R1": 5, "R2": 20, "P1": 5}


def test_the_smallest_lesions_are_not_shown_if_there_are_too_many():
    boxes = [np.s_[k, : 1 + (k < MOST_SLICES), 0] for k in range(MOST_SLICES + 3)]
    labels = {"prediction": labels_of(*boxes)}
    chosen, shown_in = choose_slices(labels, np.ones((30, 10, 10), bool))
    assert chosen == set(range(MOST_SLICES))
    assert f"P{MOST_SLICES}" in shown_in
    assert f"P{MOST_SLICES + 1}" not in shown_in


def test_the_middle_of_the_brain_is_shown_if_there_are_no_lesions():
    brain = np.zeros((30, 10, 10), bool)
    brain[6:25] = True
    chosen, shown_in = choose_slices({"prediction": labels_of()}, brain)
    assert chosen == {12, 15, 18}
    assert shown_in == {}


def test_pictures_are_cropped_to_the_brain_and_drawn_to_scale():
    affine, shape = grid_of("RAS", size_mm=(0.5, 0.5, 3.0), shape=(80, 90, 12))
    brain = np.zeros(shape, bool)
    brain[30:50, 30:60, 2:10] = True
    image = np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)
    lesion = np.zeros(shape, int)
    lesion[32:36, 50:56, 4] = 1
    view = AxialView.of(affine, shape)
    (shown,), shown_in = make_slices(view, (image, image), brain, {"prediction": lesion})
    assert shown.pixels == (20 + 24, 30 + 24)  # 6 mm around the brain
    assert shown.size_mm == (22.0, 27.0)
    assert shown_in == {"P1": shown.number}
    (outline,) = shown.outlines
    assert outline.name == "P1"
    column, _ = outline.label
    assert column == 12 + (50 - 32)  # the lesion's left end: columns run to the patient's left


def pair_of(image, brain, affine):
    """Return a pair of two identical visits."""
    visit = Volume(Path("visit.nii.gz"), image, affine, nib.Nifti1Header())
    return Pair(visit, visit, brain, np.zeros((0, *brain.shape), np.uint8), np.zeros(0, bool))


class Links(HTMLParser):
    """All links and ids in a page."""

    def __init__(self, html):
        super().__init__()
        self.targets, self.ids, self.tags = [], set(), set()
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        self.ids |= {attributes["id"]} if "id" in attributes else set()
        self.targets += [attributes[a] for a in ("href", "src") if a in attributes]


def check_self_contained(html):
    links = Links(html)
    assert "link" not in links.tags
    for target in links.targets:
        assert target.startswith("data:image/") or target[1:] in links.ids, target[:80]
    return links


def test_a_lesion_on_the_patients_left_is_listed_as_left_and_drawn_at_the_letter_l(tmp_path):
    affine, shape = grid_of("LPS", size_mm=(1.0, 1.0, 3.0), shape=(60, 70, 12))
    brain = np.zeros(shape, bool)
    brain[5:55, 5:65, 1:11] = True
    image = np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)
    lesion = np.zeros(shape, int)
    centre = affine @ [*((np.array(shape) - 1) / 2), 1]
    lesion[voxel_at(affine, np.add(centre[:3], (-15, 10, 0)))] = 1
    row = {"lesion": 1, "volume_mm3": 3.0, "x_mm": centre[0] - 15, "y_mm": centre[1] + 10,
           "z_mm": centre[2], "mean_probability": 0.9, "class": "new", "label": 1,
           "volume01_mm3": math.nan}  # fmt: skip
    section = add_pictures(
        PatientSection("patient <1>", "patient-1", ["Look & see."], [("model", "runs/x")]),
        pair_of(image, brain, affine), {"prediction": ShownLesions(lesion, [row])},
    )  # fmt: skip
    page = tmp_path / "page.html"
    write_page(page, "prediction.html", section=section, count=1, total_mm3=3.0, columns=COLUMNS)
    html = page.read_text()
    links = check_self_contained(html)
    assert "patient-1-P1" in links.ids
    assert "patient &lt;1&gt;" in html
    assert "Look &amp; see." in html
    assert '<td class="text place">left</td>' in html
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', html)[1])
    name_x = float(re.search(r'class="name prediction" x="([\d.]+)"', html)[1])
    assert name_x > width / 2  # the right half of the picture, at the letter L
    left, right = re.findall(r'class="edge" x="([\d.]+)" y="[\d.]+">[RL]<', html)[:2]
    assert float(left) < float(right)
    assert re.findall(r">([RL])</text>", html)[:2] == ["R", "L"]


def test_the_page_of_an_evaluation_shows_every_patient(patients_root, tmp_path):
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    mask = np.zeros(SHAPE, np.uint8)
    mask[6:9, 7:10, 9:15] = 1
    for k in range(3):
        save_nifti(predictions / f"patient_{k}.nii.gz", mask)
    evaluation = evaluate(patients_root, predictions)
    page = tmp_path / "report.html"
    write_evaluation_report(page, evaluation, {})
    html = page.read_text()
    links = check_self_contained(html)
    assert {"patient-1", "patient-2", "patient-3"} <= links.ids
    assert "2 of 2 new lesions found" in html
    assert "patient_3: " in html  # not scored
    assert html.count(">detected</td>") == 2
    assert html.count(">false</td>") == 1
    # The phantoms of these tests are too small for brains, so the page has a warning for each.
    assert html.count("ml. Expected 800 to 2000 ml for an adult.") == 3


def test_a_patient_with_damaged_visits_is_scored_and_the_page_says_what_is_wrong(
    patients_root, tmp_path
):
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    save_nifti(predictions / "patient_0.nii.gz", np.zeros(SHAPE, np.uint8))
    (patients_root / "patient_0" / "flair_time02_on_middle_space.nii.gz").unlink()
    evaluation = evaluate(patients_root, predictions, names=["patient_0"])
    page = tmp_path / "report.html"
    write_evaluation_report(page, evaluation, {})
    assert "The visits cannot be shown" in page.read_text()
    assert "0 of 1 new lesions found" in page.read_text()


def test_visits_on_another_grid_than_the_masks_are_not_drawn(patients_root, tmp_path):
    """The pictures would show left and right as they are on the grid of the masks."""
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    save_nifti(predictions / "patient_0.nii.gz", np.zeros(SHAPE, np.uint8))
    for name in ("flair_time01_on_middle_space", "flair_time02_on_middle_space", "brain_mask"):
        path = patients_root / "patient_0" / f"{name}.nii.gz"
        image = nib.load(path)
        flipped = image.affine @ np.diag([-1, 1, 1, 1])
        array = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(array, flipped), path)
    evaluation = evaluate(patients_root, predictions, names=["patient_0"])
    page = tmp_path / "report.html"
    write_evaluation_report(page, evaluation, {})
    assert "The visits cannot be shown" in page.read_text()
    assert "mm away" in page.read_text()
    assert "<svg" not in page.read_text()


def pair_without_data(codes):
    """Return a pair in which a visit has no data where its code is set, and the affine."""
    affine, shape = grid_of("LPS", size_mm=(1.0, 2.0, 3.0), shape=codes.shape)
    brain = np.zeros(shape, bool)
    brain[5:55, 5:65, 1:11] = True
    image = np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)
    ml = [float((codes == code).sum() * 6 / 1000) for code in (1, 2)]
    pair = pair_of(image, brain & (codes == 0), affine)
    return replace(pair, no_data=codes, empty_ml=(ml[0], ml[1])), affine


def page_of(path, pair):
    warnings = [*empty_warnings(pair.empty_ml), "Another warning."]
    section = PatientSection("anna", "patient", warnings, [])
    none = ShownLesions(np.zeros(pair.brain.shape, int), [])
    section = add_pictures(section, pair, {"prediction": none})
    write_page(path, "prediction.html", section=section, count=0, total_mm3=0.0)
    return section, path.read_text()


def test_a_part_that_one_visit_lacks_is_stated_with_its_volume_and_hatched(tmp_path):
    codes = np.zeros((60, 70, 12), np.uint8)
    codes[5:25, 5:30, 2:4] = 2  # 20 x 25 x 2 voxels of 6 mm3: 6 ml of 180 ml
    pair, _ = pair_without_data(codes)
    section, html = page_of(tmp_path / "page.html", pair)
    check_self_contained(html)
    assert section.no_data.brain_ml == pytest.approx(180)
    text = " ".join(html.split())
    assert (
        "<strong>6 ml of the brain (3.3 %) were not searched</strong>, because the second visit "
        "has no data there (zeros or padding)."
    ) in text
    assert text.count("ml of the brain") == 1  # the warning about it is not repeated
    assert "Another warning." in html
    assert "not searched: no data in one visit" in html  # the legend
    hatched = [one for one in section.slices if one.no_data]
    assert {one.number for one in hatched} <= {3, 4}
    area, outline = hatched[0].no_data
    boxes = re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)H([\d.]+)z", area)
    width_mm, height_mm = hatched[0].size_mm
    covered = sum(float(width) * float(height) for _, _, width, height, _ in boxes)
    assert covered == pytest.approx(20 * 25 * 2)  # mm2
    assert all(float(x) + float(w) <= width_mm + 0.01 for x, _, w, _, _ in boxes)
    assert all(float(y) + float(h) <= height_mm + 0.01 for _, y, _, h, _ in boxes)
    assert outline.count("M") == 4  # the four sides of a box
    assert html.count('class="no-data area"') == 2 * len(hatched)  # in both visits


def test_a_slice_shows_the_part_that_each_visit_lacks(tmp_path):
    codes = np.zeros((60, 70, 12), np.uint8)
    codes[5:25, 5:30, 2] = 2
    codes[5:20, 5:20, 9] = 1
    pair, _ = pair_without_data(codes)
    section, html = page_of(tmp_path / "page.html", pair)
    assert {3, 10} <= {one.number for one in section.slices if one.no_data}
    assert "the first visit has no data in 1 ml, and the second visit in 3 ml" in " ".join(
        html.split()
    )


def test_the_side_of_a_lesion_does_not_depend_on_the_part_that_one_visit_lacks():
    codes = np.zeros((60, 70, 12), np.uint8)
    pair, affine = pair_without_data(codes)
    labels = np.zeros(codes.shape, int)
    labels[34:37, 30:33, 5:7] = 1  # the middle of the brain is at 29.5
    lesions = {"prediction": ShownLesions(labels, describe_lesions(labels, affine, (1, 2, 3)))}
    lacking = codes.copy()
    lacking[5:25, 5:65, 1:11] = 2  # the right part
    section = PatientSection("anna", "patient", [], [])
    sides = [
        add_pictures(section, one, lesions).lesions[0]["side"]
        for one in (pair, pair_without_data(lacking)[0])
    ]
    assert sides == ["left", "left"]


def test_a_page_of_a_complete_pair_says_nothing_about_missing_data(tmp_path):
    codes = np.zeros((60, 70, 12), np.uint8)
    pair, _ = pair_without_data(codes)
    section, html = page_of(tmp_path / "page.html", replace(pair, no_data=None))
    assert section.no_data is None
    body = html.partition("</style>")[2]
    assert "no-data" not in body
    assert "searched" not in body


@pytest.mark.parametrize("degrees", [0, 15, 25, -25])
def test_the_listed_side_and_the_picture_agree_on_a_rotated_grid(degrees):
    """A lesion is 14 voxels left of and 60 in front of the brain's middle, on a rotated grid."""
    turn = np.radians(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    shape = (150, 180, 9)
    brain = np.ones(shape, bool)
    image = np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)
    lesion = np.zeros(shape, int)
    lesion[75 - 14, 90 + 60, 4] = 1
    rows = describe_lesions(lesion, affine, (1, 1, 1))
    section = add_pictures(
        PatientSection("one", "one", [], []), pair_of(image, brain, affine),
        {"prediction": ShownLesions(lesion, rows)},
    )  # fmt: skip
    assert section.lesions[0]["side"] == "left"
    (shown,) = section.slices
    assert shown.outlines[0].label[0] > shown.pixels[0] / 2  # at the letter L
