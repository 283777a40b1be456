"""Draw the lesions of a pair and the scanner settings of its visits.

The numbers were chosen for this project, by comparing simulated pairs with real ones.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.spatial.transform import Rotation

from msseg_jax.simulate.synthetic.bank import Bank, Shape

NEW_PROBABILITY = 0.8  # probability that a pair has at least one new lesion
NEW_MORE = 0.65  # probability that a new lesion is followed by another one
MOST_NEW = 12  # maximum number of new lesions
# Mean numbers per pair of the lesions that are not new.
DECOYS = {"persists": 3.0, "enlarges": 0.8, "fades": 0.8, "vanishes": 0.6}
BORDER_DEVIATIONS = 3  # a soft border is cut off at this many standard deviations
VOLUME_MM3 = (12.0, 3500.0)  # range of lesion volumes in MNI space, uniform on a log scale
LEAST_FADED = 0.12  # minimum contrast; a lesion below this would look as if it were absent
# Maximum intensity changes of another protocol, at the intensities `visit.TONES[1:]`.
TONE_SIZES = np.array([0.1, 0.1, 0.05, 0.1, 0.2, 0.3])
THICK_MM = 2.0  # an axis with a larger voxel spacing is the slice axis


class Kind(StrEnum):
    """Change of a lesion between the first visit and the second."""

    NEW = "new"
    PERSISTS = "persists"
    ENLARGES = "enlarges"
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


@dataclass(frozen=True)
class Session:
    """Settings for the scan of one visit, and for its registration to the shared grid.

    Lengths are in mm. Intensities are relative to the median of the brain.
    """

    spacing_mm: np.ndarray  # (3,), voxel spacing of the scan; nowhere finer than the source's
    pose: np.ndarray  # (4, 4), rigid pose of the head in the scanner, mm about the image centre
    error: np.ndarray  # (4, 4), rigid registration error, mm about the image centre
    distortion_mm: float  # standard deviation of a smooth displacement, due to coils, age, slices
    blur_mm: float  # Gaussian standard deviation
    local_contrast: float  # difference to the surroundings is multiplied by 1 + local_contrast
    gamma: float  # exponent applied to the intensities
    tones: tuple[float, ...]  # added at the intensities `visit.TONES[1:]`
    gain: float  # factor on the stored intensities
    bias: float  # standard deviation of the log of the bias field that N4 does not remove
    noise: float  # Gaussian standard deviation
    flow: float  # maximum brightness that flow adds to fluid
    seed: int  # seed of the random fields and the noise


def draw_lesions(bank: Bank, rng: np.random.Generator) -> list[PaintedLesion]:
    """Draw the lesions of a pair. They are placed in the order of this list."""
    kinds = [Kind.NEW] * _count_new(rng)
    for kind, mean in DECOYS.items():
        kinds += [Kind(kind)] * int(rng.poisson(mean))
    return [draw_lesion(kind, bank, rng) for kind in kinds]


def _count_new(rng: np.random.Generator) -> int:
    if rng.random() >= NEW_PROBABILITY:
        return 0
    return min(int(rng.geometric(1 - NEW_MORE)), MOST_NEW)


def draw_lesion(kind: Kind, bank: Bank, rng: np.random.Generator) -> PaintedLesion:
    """Draw one lesion of a kind.

    Its shape is rotated and scaled slightly. Shape and position are mirrored between left and
    right in half of the cases.
    """
    volume_mm3 = float(np.exp(rng.uniform(*np.log(VOLUME_MM3))))
    shape, place = bank.draw(rng, volume_mm3)
    mirror = np.diag([rng.choice([-1.0, 1.0]), 1.0, 1.0])
    scale = (volume_mm3 / shape.volume_mm3) ** (1 / 3) * rng.uniform(0.85, 1.18, 3)
    matrix = _turn(rng, 20) @ mirror @ np.diag(scale)
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
    if kind is Kind.ENLARGES:
        return (contrast, contrast * rng.uniform(0.9, 1.15)), (rng.uniform(0.75, 0.93), 1.0)
    if kind is Kind.FADES:
        weak = max(contrast * rng.uniform(0.35, 0.75), LEAST_FADED)
        return ((weak, contrast) if rng.random() < 0.4 else (contrast, weak)), (1.0, 1.0)
    return (contrast, contrast * rng.uniform(0.9, 1.1)), (1.0, 1.0)


def draw_sessions(
    spacing_mm: np.ndarray, is_pair: bool, rng: np.random.Generator
) -> tuple[Session, Session]:
    """Draw the settings of both visits.

    Args:
      spacing_mm: (3,), voxel spacing of the source.
      is_pair: whether the source is a real pair. Its images already come from two scans, so less
        variation is added.
      rng: draws the settings.
    """
    first = _draw_spacing(spacing_mm, rng)
    same_protocol = rng.random() < 0.6
    second = first if same_protocol else _draw_spacing(spacing_mm, rng)
    noise = rng.uniform(0.01, 0.045)
    moving = int(rng.integers(2))  # the visit that may get a registration error
    sessions: list[Session] = []
    for visit, voxel_mm in enumerate((first, second)):
        misaligned = visit == moving and rng.random() < 0.7
        contrast = 1.0 if same_protocol else 2.0
        tone = 0.3 if same_protocol else 1.0
        add = 0.5 if is_pair else 1.0
        sessions.append(
            Session(
                spacing_mm=spacing_mm if is_pair else voxel_mm,
                pose=np.eye(4) if is_pair else _rigid(rng, 4.0, 0.5 * voxel_mm),
                error=_rigid(rng, 1.0, np.full(3, 0.58)) if misaligned else np.eye(4),
                distortion_mm=add * _mostly_small(rng, 0.4, 1.0),
                blur_mm=add * rng.uniform(0, 0.6) * (rng.random() < 0.5),
                local_contrast=contrast * add * rng.uniform(-0.15, 0.15),
                gamma=float(np.exp(contrast * add * rng.uniform(-0.12, 0.12))),
                tones=tuple((add * tone * rng.uniform(-TONE_SIZES, TONE_SIZES)).tolist()),
                gain=float(np.exp(rng.uniform(-0.4, 0.4))),
                bias=_mostly_small(rng, 0.05, 0.2),
                noise=add * noise * rng.uniform(0.8, 1.25),
                flow=rng.uniform(0.2, 1.4) * (rng.random() < 0.65),
                seed=int(rng.integers(2**31)),
            )
        )
    return sessions[0], sessions[1]


def _draw_spacing(spacing_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a voxel spacing (3,) in mm. It is nowhere finer than that of the source."""
    result = spacing_mm * (rng.uniform(1, 1.25) if rng.random() < 0.4 else 1.0)
    slices = int(spacing_mm.argmax())
    if spacing_mm[slices] > THICK_MM:
        result[slices] = spacing_mm[slices] * (rng.uniform(1, 1.5) if rng.random() < 0.5 else 1.0)
    elif rng.random() < 0.6:
        axis = 2 if rng.random() < 0.8 else int(rng.integers(3))
        result[axis] = max(result[axis], rng.uniform(2.0, 4.5))
    return result


def _mostly_small(rng: np.random.Generator, small: float, large: float) -> float:
    """Draw a number from 0 to `small`, or, in a quarter of the cases, from 0 to `large`."""
    return float(rng.uniform(0, large if rng.random() < 0.25 else small))


def _turn(rng: np.random.Generator, degrees: float) -> np.ndarray:
    """Draw a rotation matrix (3, 3) about a random axis, by up to `degrees`."""
    axis = rng.standard_normal(3)
    angle = np.radians(rng.uniform(0, degrees))
    return Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()


def _rigid(rng: np.random.Generator, degrees: float, shift_mm: np.ndarray) -> np.ndarray:
    """Draw a rigid transform (4, 4).

    Its rotation is at most `degrees`. Its shift is at most `shift_mm` (3,) along each axis.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = _turn(rng, degrees)
    matrix[:3, 3] = rng.uniform(-1, 1, 3) * shift_mm
    return matrix
