"""What each patient of a phantom data set is to hold, decided before anything is drawn.

The figures follow the training set of the MSSEG-2 challenge (MICCAI 2021): 29 of its 40 patients
have new lesions; a positive patient has a median of 3 (from 1 to 32) and from about 20 to about
20,000 voxels of them; voxels go from 0.5 x 0.75 x 0.75 mm to 1.2 mm isotropic. What lies between
those published figures is our own choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msseg_jax.system.errors import InputError

POSITIVES, OUT_OF = 29, 40

# (voxel size in mm, direction in which each array axis points, type of the stored numbers). The
# first axis is the one that 3D FLAIR sequences usually treat differently.
SCANNERS = (
    ((1.2, 1.2, 1.2), "RAS", "int16"),
    ((1.0, 1.0, 1.0), "LPS", "int16"),
    ((1.1, 0.98, 0.98), "RPS", "int16"),
    ((1.2, 0.9, 0.9), "LAS", "float32"),
    ((0.9, 0.9, 0.9), "PSR", "int16"),
    ((0.7, 1.0, 1.0), "LPS", "float32"),
    ((0.6, 0.98, 0.98), "RAS", "int16"),
    ((0.5, 0.75, 0.75), "LAS", "int16"),
    ((0.8, 0.8, 0.8), "LIP", "int16"),
    ((0.5, 0.98, 0.98), "RSA", "int16"),
)

# (new lesions, voxels of new lesion in all) of the 29 positive patients, by number of lesions.
# Card r is scanned by SCANNERS[r % 10]: the cards with few voxels lie on coarse grids, so that
# even 20 voxels make a lesion of 3 mm or more, which is the smallest that radiologists count.
DECK = (
    (1, 20), (1, 34), (1, 60), (1, 110), (1, 260), (1, 700),
    (2, 70), (2, 220), (2, 180), (2, 420), (2, 60), (2, 1100),
    (3, 90), (3, 170), (3, 320), (3, 600), (3, 1500),
    (4, 900), (4, 400), (5, 800), (5, 260), (6, 1300), (7, 600), (8, 2600), (9, 1500),
    (11, 3300), (14, 5200), (24, 20000), (32, 8000),
)  # fmt: skip

STREAMS = ("plan", "anatomy", "lesions", "experts", "time01", "time02")


@dataclass(frozen=True)
class PatientPlan:
    """One patient: the scanner and the new lesions.

    Attributes:
        name: folder name, `phantom_001` for index 0.
        seed, index: what all random numbers of the patient follow from.
        spacing_mm: voxel size along the three array axes.
        orientation: direction of growing index of each array axis, such as "LPS".
        dtype: of the stored images.
        new_lesions_mm3: volume of each new lesion, largest first; empty without any.
    """

    name: str
    seed: int
    index: int
    spacing_mm: tuple[float, float, float]
    orientation: str
    dtype: str
    new_lesions_mm3: tuple[float, ...]

    @property
    def new_lesion_voxels(self) -> int:
        """Voxels of new lesion in all, on the planned grid."""
        return round(sum(self.new_lesions_mm3) / float(np.prod(self.spacing_mm)))

    def rng(self, stream: str) -> np.random.Generator:
        """Random numbers of one of STREAMS. No stream depends on how much another one draws."""
        return np.random.default_rng([self.seed, self.index, STREAMS.index(stream)])


def positives_among(patients: int) -> int:
    """Patients with new lesions among the first `patients`: 29/40 of them, rounded half up."""
    return (2 * POSITIVES * patients + OUT_OF) // (2 * OUT_OF)


def plan_patient(seed: int, index: int, patients: int | None = None) -> PatientPlan:
    """The plan of patient `index` (from 0) of the data set `seed`. Fast: nothing is drawn.

    A patient is positive when it raises the rounded count `positives_among`. Every first-N part of
    a data set thus holds 29/40 positives as nearly as possible, spread out evenly, and no plan
    depends on N. The positives take their cards from DECK in steps of 18 (of 29, a prime, near the
    golden ratio) from a start set by the seed: few patients already cover few and many lesions,
    and 40 patients use each card once.

    Args:
        seed: of the data set, 0 or more.
        index: of the patient, 0 or more.
        patients: size of the data set; only checked, so that `index` cannot lie outside of it.

    Raises:
        InputError: negative `seed` or `index`, or `index` not below `patients`.
    """
    if seed < 0 or index < 0 or (patients is not None and index >= patients):
        raise InputError(
            f"seed={seed}, index={index}, patients={patients}: seed and index must be 0 or more "
            "and index below patients"
        )
    name = f"phantom_{index + 1:03d}"
    before = positives_among(index)
    if positives_among(index + 1) == before:
        spacing_mm, orientation, dtype = SCANNERS[(3 * index + seed) % len(SCANNERS)]
        return PatientPlan(name, seed, index, spacing_mm, orientation, dtype, ())

    start = int(np.random.default_rng(seed).integers(len(DECK)))
    card = (start + 18 * before) % len(DECK)
    lesions, voxels = DECK[card]
    spacing_mm, orientation, dtype = SCANNERS[card % len(SCANNERS)]
    total_mm3 = voxels * float(np.prod(spacing_mm))
    rng = np.random.default_rng([seed, index, STREAMS.index("plan")])
    # Lesion volumes are roughly log-normal. The floor, 3 mm in diameter, keeps each one visible.
    floor_mm3 = min(14.0, total_mm3 / lesions)
    share = rng.lognormal(0.0, 0.9, lesions)
    volumes = floor_mm3 + (total_mm3 - lesions * floor_mm3) * share / share.sum()
    volumes = tuple(sorted(map(float, volumes), reverse=True))
    return PatientPlan(name, seed, index, spacing_mm, orientation, dtype, volumes)
