"""What is drawn for a pair: its lesions, and how each visit is scanned. All randomness of both.

The numbers are this project's own, set by looking at pairs beside real ones.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.spatial.transform import Rotation

from msseg_jax.simulate.synthetic.bank import Bank, Shape

NEW_PROBABILITY = 0.8  # pairs in which there is anything new
NEW_MORE = 0.65  # probability of one more, after each
MOST_NEW = 12
DECOYS = {"persists": 3.0, "enlarges": 0.8, "fades": 0.8, "vanishes": 0.6}  # mean numbers
BORDER_DEVIATIONS = 3  # what of a soft border counts
VOLUME_MM3 = (12.0, 3500.0)  # of a lesion in MNI space, evenly on a logarithmic scale
LEAST_FADED = 0.12  # contrast; what has faded to less would be taken for gone, or not yet there
TONE_SIZES = np.array([0.1, 0.1, 0.05, 0.1, 0.2, 0.3])  # at most, of another protocol
THICK_MM = 2.0  # voxels with a longer side are slices


class Kind(StrEnum):
    """What becomes of a lesion from the first visit to the second."""

    NEW = "new"
    PERSISTS = "persists"
    ENLARGES = "enlarges"
    FADES = "fades"  # or grows brighter
    VANISHES = "vanishes"


@dataclass(frozen=True)
class PaintedLesion:
    """One lesion to be painted."""

    kind: Kind
    shape: Shape
    centre_mm: np.ndarray  # (3,), in MNI space
    matrix: np.ndarray  # (3, 3), from the shape's mm to MNI mm: turned, mirrored, scaled
    border_mm: float  # Gaussian standard deviation of its soft border
    contrasts: tuple[float, float]  # above the tissue around it, by visit; 0: not there
    sizes: tuple[float, float]  # factor on its diameter, by visit
    texture_seed: int

    @property
    def reach_mm(self) -> float:
        """Radius of a ball of MNI space that holds it, border included."""
        stretch = np.linalg.norm(self.matrix, 2) * max(self.sizes)
        return float(self.shape.radius_mm * stretch + BORDER_DEVIATIONS * self.border_mm)


@dataclass(frozen=True)
class Session:
    """How one visit is scanned, and brought back to the grid that both share.

    Lengths in mm; intensities relative to the brain's median.
    """

    spacing_mm: np.ndarray  # (3,), of the scanner's voxels; no smaller than the scan's own
    pose: np.ndarray  # (4, 4), of the head in the scanner: mm about the middle of the brain
    error: np.ndarray  # (4, 4), what registration leaves of it
    distortion_mm: float  # deviation of a smooth displacement: coils, age, other slices
    blur_mm: float  # Gaussian standard deviation
    local_contrast: float  # factor on what differs from the surroundings, less 1
    gamma: float
    tones: tuple[float, ...]  # added at the brightnesses `visit.TONES`, but the first
    gain: float
    bias: float  # deviation of the logarithm of what N4 leaves of the coil's field
    noise: float  # Gaussian standard deviation
    flow: float  # brightness of flowing fluid, at most
    seed: int  # of its fields


def draw_lesions(bank: Bank, rng: np.random.Generator) -> list[PaintedLesion]:
    """The lesions to be painted into a pair, in the order in which places are sought for them."""
    wanted = [Kind.NEW] * _count_new(rng)
    for kind, mean in DECOYS.items():
        wanted += [Kind(kind)] * int(rng.poisson(mean))
    return [draw_lesion(kind, bank, rng) for kind in wanted]


def _count_new(rng: np.random.Generator) -> int:
    if rng.random() >= NEW_PROBABILITY:
        return 0
    return min(int(rng.geometric(1 - NEW_MORE)), MOST_NEW)


def draw_lesion(kind: Kind, bank: Bank, rng: np.random.Generator) -> PaintedLesion:
    """One lesion: its shape turned and scaled a little, at its place or its mirror image's."""
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
    """Contrasts and sizes at both visits."""
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
    """How both visits are scanned.

    Args:
      spacing_mm: of the source's voxels.
      is_pair: the source's images are of two sessions already, and differ as such do: little is
        added to that.
    """
    first = _draw_spacing(spacing_mm, rng)
    same_protocol = rng.random() < 0.6
    second = first if same_protocol else _draw_spacing(spacing_mm, rng)
    noise = rng.uniform(0.01, 0.045)
    moving = int(rng.integers(2))  # the visit that registration has left apart
    sessions: list[Session] = []
    for visit, voxel_mm in enumerate((first, second)):
        apart = visit == moving and rng.random() < 0.7
        unlike = 1.0 if same_protocol else 2.0
        tone = 0.3 if same_protocol else 1.0
        add = 0.5 if is_pair else 1.0
        sessions.append(
            Session(
                spacing_mm=spacing_mm if is_pair else voxel_mm,
                pose=np.eye(4) if is_pair else _rigid(rng, 4.0, 0.5 * voxel_mm),
                error=_rigid(rng, 1.0, np.full(3, 0.58)) if apart else np.eye(4),
                distortion_mm=add * _mostly_small(rng, 0.4, 1.0),
                blur_mm=add * rng.uniform(0, 0.6) * (rng.random() < 0.5),
                local_contrast=unlike * add * rng.uniform(-0.15, 0.15),
                gamma=float(np.exp(unlike * add * rng.uniform(-0.12, 0.12))),
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
    """The voxels of a scanner that sees what the source shows: (3,) mm, none smaller."""
    result = spacing_mm * (rng.uniform(1, 1.25) if rng.random() < 0.4 else 1.0)
    slices = int(spacing_mm.argmax())
    if spacing_mm[slices] > THICK_MM:
        result[slices] = spacing_mm[slices] * (rng.uniform(1, 1.5) if rng.random() < 0.5 else 1.0)
    elif rng.random() < 0.6:
        axis = 2 if rng.random() < 0.8 else int(rng.integers(3))
        result[axis] = max(result[axis], rng.uniform(2.0, 4.5))
    return result


def _mostly_small(rng: np.random.Generator, small: float, large: float) -> float:
    """Up to `small`; of one visit in four, up to `large`."""
    return float(rng.uniform(0, large if rng.random() < 0.25 else small))


def _turn(rng: np.random.Generator, degrees: float) -> np.ndarray:
    """(3, 3): about an axis of any direction, by up to so many degrees."""
    axis = rng.standard_normal(3)
    angle = np.radians(rng.uniform(0, degrees))
    return Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()


def _rigid(rng: np.random.Generator, degrees: float, shift_mm: np.ndarray) -> np.ndarray:
    """(4, 4): a turn of up to so many degrees, and a shift of up to (3,) mm along each axis."""
    matrix = np.eye(4)
    matrix[:3, :3] = _turn(rng, degrees)
    matrix[:3, 3] = rng.uniform(-1, 1, 3) * shift_mm
    return matrix
