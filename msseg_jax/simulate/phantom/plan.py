"""Plan of each patient of a phantom data set: the scanner and the new lesions.

The numbers follow the training set of the MSSEG-2 challenge (MICCAI 2021). There, 29 of 40 patients
have new lesions. These patients have a median of 3 new lesions (from 1 to 32), with about 20 to
about 20,000 voxels in all. The voxel sizes range from 0.5 x 0.75 x 0.75 mm to 1.2 mm isotropic.
All other details were chosen for this project.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msseg_jax.system.errors import InputError

POSITIVES, OUT_OF = 29, 40

# (voxel size in mm, direction of each array axis, data type of the stored intensities). In most 3D
# FLAIR sequences, the spacing of the first axis differs from that of the other two.
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

# (new lesions, voxels of new lesions in all) of the 29 positive patients, sorted by the number of
# new lesions. Each entry is a "card". Card r is scanned by SCANNERS[r % 10]. The cards with few
# voxels get coarse grids, so that even 20 voxels make a lesion of 3 mm or more. Radiologists do not
# count smaller ones.
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
    """Plan of one patient: the scanner and the new lesions.

    Attributes:
        name: folder name, `phantom_001` for index 0.
        seed, index: all random numbers of the patient depend only on these two.
        spacing_mm: voxel size along the three array axes.
        orientation: direction in which the index of each array axis grows, such as "LPS".
        dtype: data type of the stored images.
        new_lesions_mm3: volume of each new lesion, largest first; empty if there is none.
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
        """Number of voxels of all new lesions together, on the planned grid."""
        return round(sum(self.new_lesions_mm3) / float(np.prod(self.spacing_mm)))

    def rng(self, stream: str) -> np.random.Generator:
        """Return the random generator of one of STREAMS. The streams do not affect each other."""
        return np.random.default_rng([self.seed, self.index, STREAMS.index(stream)])


def positives_among(patients: int) -> int:
    """Return how many of the first `patients` have new lesions: 29/40 of them, rounded half up."""
    return (2 * POSITIVES * patients + OUT_OF) // (2 * OUT_OF)


def plan_patient(seed: int, index: int, patients: int | None = None) -> PatientPlan:
    """Return the plan of patient `index` (from 0) of the data set `seed`. No image is made.

    A patient has new lesions (is positive) if it increases the rounded count `positives_among`.
    Therefore the first N patients of a data set contain 29/40 positive ones, up to rounding, for
    any N. The positive patients are spread evenly, and no plan depends on N.

    The seed determines the first card of DECK. Each further positive patient gets the card 18
    places later, modulo 29. 18/29 is close to the golden ratio. Therefore a few patients already
    cover both few and many lesions. As 29 is prime, 40 patients use each card once.

    Args:
        seed: seed of the data set, 0 or more.
        index: index of the patient, 0 or more.
        patients: size of the data set. It is used only to check `index`.

    Raises:
        InputError: `seed` or `index` is negative, or `index` is not below `patients`.
    """
    if seed < 0 or index < 0 or (patients is not None and index >= patients):
        raise InputError(
            f"seed={seed}, index={index}, patients={patients}: seed and index must be 0 or more, "
            "and index must be less than patients."
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
    # Lesion volumes are roughly log-normal. The minimum, a ball of 3 mm diameter, keeps every
    # lesion visible.
    floor_mm3 = min(14.0, total_mm3 / lesions)
    share = rng.lognormal(0.0, 0.9, lesions)
    volumes = floor_mm3 + (total_mm3 - lesions * floor_mm3) * share / share.sum()
    volumes = tuple(sorted(map(float, volumes), reverse=True))
    return PatientPlan(name, seed, index, spacing_mm, orientation, dtype, volumes)
