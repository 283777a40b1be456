"""The data of the viewer: lesions that were lost or overlap, and names that break pages."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from msseg_jax.report.closeups import CloseUps
from msseg_jax.report.drawn import DrawnPair
from msseg_jax.report.section import PatientSection, ShownLesions, add_closeups, add_pictures
from msseg_jax.report.viewer import ViewerPlace, viewer_json
from msseg_jax.volumes.lesions import describe_lesions
from msseg_jax.volumes.pair import Pair
from msseg_jax.volumes.volume import Volume

SHAPE = (30, 34, 26)
AFFINE = np.diag([-1.0, 1.0, 1.0, 1.0])


def section_of(lesions):
    """Return a pair as it is drawn, and its section with pictures and close-ups of lesions."""
    rng = np.random.default_rng(0)
    visits = [
        Volume(Path("v.nii.gz"), rng.normal(100, 5, SHAPE).astype(np.float32), AFFINE,
               nib.Nifti1Header())
        for _ in range(2)
    ]  # fmt: skip
    brain = np.zeros(SHAPE, bool)
    brain[3:-3, 3:-3, 3:-3] = True
    pair = Pair(*visits, brain, np.zeros((0, *SHAPE), np.uint8), np.zeros(0, bool))
    section = add_pictures(PatientSection("anna", "patient", [], []), pair, lesions)
    drawn = DrawnPair.of((visits[0].array, visits[1].array), brain, AFFINE)
    return drawn, add_closeups(section, CloseUps(drawn), lesions)


def shown(labels, start=0):
    rows = describe_lesions(labels, AFFINE, (1, 1, 1), np.full(SHAPE, 0.9))
    rows = [row | {"class": "new", "label": start + row["lesion"]} for row in rows]
    return ShownLesions(labels, rows)


def test_a_lesion_that_was_lost_when_it_was_resampled_is_still_listed():
    labels = np.zeros(SHAPE, int)
    labels[8:11, 8:11, 8:11] = 1
    labels[20, 22, 14] = 2
    whole = shown(labels)
    lost = ShownLesions(np.where(labels == 2, 0, labels), whole.rows)
    pair, section = section_of({"prediction": lost})
    place = ViewerPlace("anna", "anna_answers.csv", np.eye(4))
    data = json.loads(viewer_json(section, pair, AFFINE, {"prediction": lost}, place, []))
    assert [one["name"] for one in data["lesions"]] == ["P1", "P2"]
    mm = np.array(data["to_scanner"]) @ [*data["lesions"][1]["voxel"], 1]
    np.testing.assert_allclose(mm[:3], [-20, 22, 14], atol=0.6)
    assert list(section.closeups) == ["P1"]


def test_of_two_classes_that_overlap_the_first_is_drawn_and_both_are_listed():
    new, grown = np.zeros(SHAPE, int), np.zeros(SHAPE, int)
    new[10, 10, 10] = 1
    grown[10, 10, 10] = 1
    lesions = {"prediction": shown(new), "enlarging": shown(grown, start=1)}
    pair, section = section_of(lesions)
    place = ViewerPlace("anna", "anna_answers.csv", np.eye(4))
    places_mm = [np.array([-10.0, 10, 10])]
    data = json.loads(viewer_json(section, pair, AFFINE, lesions, place, places_mm))
    assert [one["label"] for one in data["lesions"]] == [1, 2]
    assert data["lesions"][0]["voxel"] == data["lesions"][1]["voxel"] == data["places"][0]


def test_a_name_cannot_end_the_script_element():
    labels = np.zeros(SHAPE, int)
    labels[10, 10, 10] = 1
    pair, section = section_of({"prediction": shown(labels)})
    name = "</script><!--<script>"
    place = ViewerPlace(name, "a.csv", np.eye(4))
    text = viewer_json(section, pair, AFFINE, {"prediction": shown(labels)}, place, [])
    assert "<" not in text
    assert json.loads(text)["patient"] == name
