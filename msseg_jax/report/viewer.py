"""The data of the viewer in the page: the volumes of a pair, and the lesions to go to."""

import json
import math
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine

from msseg_jax.report.drawn import DrawnPair
from msseg_jax.report.packed import pack
from msseg_jax.report.section import PatientSection, ShownLesions, centres_of
from msseg_jax.volumes.lesions import CENTRE, voxels_by_number


@dataclass(frozen=True)
class ViewerPlace:
    """The names and coordinates that the viewer states."""

    patient: str  # name for the table of answers
    answers_file: str  # name under which the answers are saved
    to_scanner: np.ndarray  # (4, 4), mm of the pair to mm of the second scan


def viewer_json(
    section: PatientSection,
    pair: DrawnPair,
    affine: np.ndarray,
    lesions: dict[str, ShownLesions],
    place: ViewerPlace,
    places_mm: list[np.ndarray],
) -> str:
    """Return the data as JSON, for a script element of the page.

    Args:
      section: with the rows of the lesions, from `add_pictures`.
      pair: the pair as it is drawn.
      affine: (4, 4), voxel indices of the pair to mm.
      lesions: as for `add_pictures`. Their rows have a `label`.
      place: names and coordinates.
      places_mm: further places to go to, (3,) mm of the pair each.
    """
    labels = np.zeros(next(iter(lesions.values())).labels.shape, np.int32)
    points: dict[int, np.ndarray] = {}  # where the viewer goes, by label
    for shown in lesions.values():
        numbers = np.array([0, *(row["label"] for row in shown.rows)])
        here = (shown.labels > 0) & (labels == 0)  # resampled classes may overlap: the first wins
        labels[here] = numbers[shown.labels[here]]
        points |= dict(zip(numbers[1:].tolist(), centres_of(shown), strict=True))
    points |= _points(labels, affine)  # a lesion that was lost when it was resampled has none
    packed = pack(pair, labels)
    content = {
        "patient": place.patient,
        "answers_file": place.answers_file,
        "shape": packed.shape,
        "spacing": packed.spacing_mm,
        "to_scanner": (place.to_scanner @ packed.affine).tolist(),
        "visits": packed.visits,
        "labels": packed.labels,
        "lesions": [
            {
                "name": row["name"], "kind": row["kind"], "lesion": row["lesion"],
                "class": row["class"], "label": row["label"],
                "volume_mm3": round(row["volume_mm3"], 2),
                "mean_probability": _or_none(row["mean_probability"]),
                "centre_mm": [round(row[name], 2) for name in CENTRE],
                "voxel": packed.voxel_of(points[row["label"]]),
            }
            for row in section.lesions
        ],
        "places": [packed.voxel_of(point_mm) for point_mm in places_mm],
    }  # fmt: skip
    # Some texts with "<" would end the script element or hide its end. JSON allows the escape.
    return json.dumps(content).replace("<", "\\u003c")


def _or_none(number: float) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return None if math.isnan(number) else round(number, 4)


def _points(labels: np.ndarray, affine: np.ndarray) -> dict[int, np.ndarray]:
    """Return for each lesion the voxel that is nearest to its centre: (3,) mm."""
    points = {}
    for number, voxels in voxels_by_number(labels).items():
        mm = apply_affine(affine, voxels)
        points[number] = mm[np.linalg.norm(mm - mm.mean(axis=0), axis=1).argmin()]
    return points
