"""Draw the lesions of a pair.

The numbers were chosen for this project, by comparing simulated pairs with real ones.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from msseg_jax.simulate.synthetic.bank import Bank, Shape
from msseg_jax.simulate.synthetic.sessions import draw_rotation

NEW_PROBABILITY = 0.8  # probability that a pair has at least one new lesion
NEW_MORE = 0.65  # probability that a new lesion is followed by another one
MOST_NEW = 12  # maximum number of new lesions
# Mean numbers per pair of the lesions that are not new.
OTHERS = {"persists": 3.0, "enlarges": 1.0, "shrinks": 0.6, "fades": 0.8, "vanishes": 0.8}
SMALLER = (0.55, 0.92)  # diameter of a lesion before it grows, or after it shrinks
BORDER_DEVIATIONS = 3  # a soft border is cut off at this many standard deviations
VOLUME_MM3 = (12.0, 3500.0)  # range of lesion volumes in MNI space, uniform on a log scale
LEAST_FADED = 0.12  # minimum contrast; a lesion below this would look as if it were absent


class Kind(StrEnum):
    """Change of a lesion between the first visit and the second."""

    NEW = "new"
    PERSISTS = "persists"
    ENLARGES = "enlarges"
    SHRINKS = "shrinks"
    FADES = "fades"  # or grows brighter
    VANISHES = "vanishes"


@dataclass(frozen=True)
class PaintedLesion:
    """One lesion to paint into the visits of a pair."""

    kind: Kind
    shape: Shape
    centre_mm: np.ndarray  # (3,), in MNI space
    matrix: np.ndarray  # (3, 3), shape mm to MNI mm: rotation, mirroring and scaling
    border_mm: float  # Gaussian standard deviation of the soft border
    contrasts: tuple[float, float]  # contrast to the tissue around it, one per visit; 0 if absent
    sizes: tuple[float, float]  # factor on the diameter, one per visit
    texture_seed: int

    @property
    def reach_mm(self) -> float:
        """Radius of a ball in MNI space that contains the lesion and its soft border."""
        stretch = np.linalg.norm(self.matrix, 2) * max(self.sizes)
        return float(self.shape.radius_mm * stretch + BORDER_DEVIATIONS * self.border_mm)


def draw_lesions(bank: Bank, has_new: bool, rng: np.random.Generator) -> list[PaintedLesion]:
    """Draw the lesions of a pair. They are placed in the order of this list.

    Args:
      bank: the lesion shapes to choose from.
      has_new: whether there are new lesions.
      rng: draws the lesions.
    """
    new = min(int(rng.geometric(1 - NEW_MORE)), MOST_NEW)
    kinds = [Kind.NEW] * (new if has_new else 0)
    for kind, mean in OTHERS.items():
        kinds += [Kind(kind)] * int(rng.poisson(mean))
    return [draw_lesion(kind, bank, rng) for kind in kinds]


def draw_lesion(kind: Kind, bank: Bank, rng: np.random.Generator) -> PaintedLesion:
    """Draw one lesion of a kind.

    Its shape is rotated and scaled slightly. Shape and position are mirrored between left and
    right in half of the cases.
    """
    volume_mm3 = float(np.exp(rng.uniform(*np.log(VOLUME_MM3))))
    shape, place = bank.draw(rng, volume_mm3)
    mirror = np.diag([rng.choice([-1.0, 1.0]), 1.0, 1.0])
    scale = (volume_mm3 / shape.volume_mm3) ** (1 / 3) * rng.uniform(0.85, 1.18, 3)
    matrix = draw_rotation(rng, 20) @ mirror @ np.diag(scale)
    contrast = bank.draw_contrast(rng)
    contrasts, sizes = _course(kind, contrast, rng)
    return PaintedLesion(
        kind,
        shape,
        mirror @ place + rng.normal(0, 3, 3),
        matrix,
        float(rng.uniform(0.4, 1.1)),
        contrasts,
        sizes,
        int(rng.integers(2**31)),
    )


def _course(
    kind: Kind, contrast: float, rng: np.random.Generator
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Draw the contrasts and the sizes of a lesion, each for both visits."""
    if kind is Kind.NEW:
        return (0.0, contrast), (1.0, 1.0)
    if kind is Kind.VANISHES:
        return (contrast, 0.0), (1.0, 1.0)
    if kind in (Kind.ENLARGES, Kind.SHRINKS):
        other, small = contrast * rng.uniform(0.9, 1.15), rng.uniform(*SMALLER)
        grows = kind is Kind.ENLARGES
        return (contrast, other), ((small, 1.0) if grows else (1.0, small))
    if kind is Kind.FADES:
        weak = max(contrast * rng.uniform(0.35, 0.75), LEAST_FADED)
        return ((weak, contrast) if rng.random() < 0.4 else (contrast, weak)), (1.0, 1.0)
    return (contrast, contrast * rng.uniform(0.9, 1.1)), (1.0, 1.0)
