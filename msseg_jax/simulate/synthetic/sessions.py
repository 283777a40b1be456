"""Draw the settings of the scanner, of the patient's head and of the masks for both visits.

The numbers were chosen for this project, by comparing simulated pairs with real ones.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from msseg_jax.volumes.anatomy import THICK_MM

# Maximum intensity changes of another protocol, at the intensities `visit.TONES[1:]`.
TONE_SIZES = np.array([0.1, 0.1, 0.05, 0.1, 0.2, 0.3])
SLICES_MM = (2.0, 7.0)  # slices of a 2D scan, simulated from a 3D one
SAME_PROTOCOL = 0.55  # probability that both visits have the same protocol


@dataclass(frozen=True)
class Session:
    """Settings for the scan of one visit, and for its registration to the shared grid.

    Lengths are in mm. Intensities are relative to the median of the brain.
    """

    spacing_mm: np.ndarray  # (3,), voxel spacing of the scan; nowhere finer than the source's
    pose: np.ndarray  # (4, 4), rigid pose of the head in the scanner, mm about the image centre
    error: np.ndarray  # (4, 4), rigid registration error, mm about the image centre
    distortion_mm: float  # standard deviation of a smooth displacement, due to coils, age, slices
    atrophy_mm: float  # displacement of tissue next to fluid, away from it: fluid spaces are wider
    blur_mm: float  # Gaussian standard deviation
    lesion_contrast: float  # factor on the contrast of all lesions to the tissue around them
    normal_contrast: float  # the same for bright tissue that is normal
    rims: float  # brightness of normal lines and caps along the ventricles
    local_contrast: float  # difference to the surroundings is multiplied by 1 + local_contrast
    gamma: float  # exponent applied to the intensities
    tones: tuple[float, ...]  # added at the intensities `visit.TONES[1:]`
    gain: float  # factor on the stored intensities
    bias: float  # standard deviation of the log of the bias field that N4 does not remove
    noise: float  # Gaussian standard deviation
    flow: float  # maximum brightness that flow adds to fluid
    cistern_flow: float  # the same for fluid around the brain stem, and next to it
    stripped_mm: float | None  # nothing is seen further than this outside the brain; None: all is
    seed: int  # seed of the random fields and the noise


@dataclass(frozen=True)
class Sessions:
    """The settings of both visits."""

    visits: tuple[Session, Session]
    mask_margin_mm: float  # margin of the pair's brain mask around the brain
    rim_seed: int  # seed of the places of lines and caps along the ventricles


def draw_sessions(spacing_mm: np.ndarray, is_pair: bool, rng: np.random.Generator) -> Sessions:
    """Draw the settings of both visits.

    Args:
      spacing_mm: (3,), voxel spacing of the source.
      is_pair: whether the source is a real pair. Its images already come from two scans, so less
        variation is added.
      rng: draws the settings.
    """
    same_protocol = rng.random() < SAME_PROTOCOL
    first = _draw_spacing(spacing_mm, rng)
    second = first if same_protocol else _draw_spacing(spacing_mm, rng)
    noise = rng.uniform(0.01, 0.045)
    moving = int(rng.integers(2))  # the visit that may get a registration error
    shrunk = 1 if rng.random() < 0.85 else 0  # the visit with the wider fluid spaces
    atrophy_mm = rng.uniform(0.2, 1.2) * (rng.random() < 0.5)
    rims = rng.uniform(0.05, 0.5) * (rng.random() < 0.6)
    stripped_mm = rng.uniform(0, 3) if rng.random() < 0.3 else None
    strips = rng.integers(3)  # the visit that is skull-stripped: 0, 1, or 2 for both
    vary = 0.1 if same_protocol else 0.2  # largest log factor on a contrast
    tone, contrast = (0.3, 1.0) if same_protocol else (1.0, 2.0)
    add = 0.5 if is_pair else 1.0
    sessions: list[Session] = []
    for visit, voxel_mm in enumerate((first, second)):
        misaligned = visit == moving and rng.random() < 0.7
        own_noise = noise if same_protocol else rng.uniform(0.01, 0.045)
        sessions.append(
            Session(
                spacing_mm=spacing_mm if is_pair else voxel_mm,
                pose=np.eye(4) if is_pair else _rigid(rng, 4.0, 0.5 * voxel_mm),
                error=_rigid(rng, 1.0, np.full(3, 0.58)) if misaligned else np.eye(4),
                distortion_mm=add * _mostly_small(rng, 0.4, 1.0),
                atrophy_mm=add * atrophy_mm * (visit == shrunk),
                blur_mm=add * rng.uniform(0, 0.8) * (rng.random() < 0.5),
                lesion_contrast=_factor(rng, add * vary),
                normal_contrast=_factor(rng, 2 * add * vary),
                rims=rims * _factor(rng, 2 * vary),
                local_contrast=contrast * add * rng.uniform(-0.15, 0.15),
                gamma=_factor(rng, contrast * add * 0.12),
                tones=tuple((add * tone * rng.uniform(-TONE_SIZES, TONE_SIZES)).tolist()),
                gain=_factor(rng, 0.4),
                bias=_mostly_small(rng, 0.05, 0.2),
                noise=add * own_noise * rng.uniform(0.8, 1.25),
                flow=rng.uniform(0.2, 1.4) * (rng.random() < 0.65),
                cistern_flow=rng.uniform(0.2, 1.2) * (rng.random() < 0.6),
                stripped_mm=stripped_mm if strips in (visit, 2) else None,
                seed=int(rng.integers(2**31)),
            )
        )
    margin_mm = rng.uniform(0, 5) if rng.random() < 0.5 else 0.0
    return Sessions((sessions[0], sessions[1]), float(margin_mm), int(rng.integers(2**31)))


def _draw_spacing(spacing_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a voxel spacing (3,) in mm. It is nowhere finer than that of the source."""
    result = spacing_mm * (rng.uniform(1, 1.25) if rng.random() < 0.4 else 1.0)
    slices = int(spacing_mm.argmax())
    if spacing_mm[slices] > THICK_MM:
        result[slices] = spacing_mm[slices] * (rng.uniform(1, 1.5) if rng.random() < 0.5 else 1.0)
    elif rng.random() < 0.55:
        axis = 2 if rng.random() < 0.8 else int(rng.integers(3))
        result[axis] = max(result[axis], np.exp(rng.uniform(*np.log(SLICES_MM))))
    return result


def _factor(rng: np.random.Generator, largest_log: float) -> float:
    """Draw a factor whose logarithm is uniform between -largest_log and largest_log."""
    return float(np.exp(rng.uniform(-largest_log, largest_log)))


def _mostly_small(rng: np.random.Generator, small: float, large: float) -> float:
    """Draw a number from 0 to `small`, or, in a quarter of the cases, from 0 to `large`."""
    return float(rng.uniform(0, large if rng.random() < 0.25 else small))


def draw_rotation(rng: np.random.Generator, degrees: float) -> np.ndarray:
    """Draw a rotation matrix (3, 3) about a random axis, by up to `degrees`."""
    axis = rng.standard_normal(3)
    angle = np.radians(rng.uniform(0, degrees))
    return Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()


def _rigid(rng: np.random.Generator, degrees: float, shift_mm: np.ndarray) -> np.ndarray:
    """Draw a rigid transform (4, 4).

    Its rotation is at most `degrees`. Its shift is at most `shift_mm` (3,) along each axis.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = draw_rotation(rng, degrees)
    matrix[:3, 3] = rng.uniform(-1, 1, 3) * shift_mm
    return matrix
