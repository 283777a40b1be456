"""A simple brain for synthetic pairs: a ball of tissue with a fluid core, and lesions for it."""

from dataclasses import replace

import nibabel as nib
import numpy as np

from msseg_jax.simulate.synthetic.bank import Bank, Shape
from msseg_jax.simulate.synthetic.plan import Kind, PaintedLesion
from msseg_jax.simulate.synthetic.sessions import Session, Sessions
from msseg_jax.simulate.synthetic.source import Source

RADIUS_MM, FLUID_MM = 46.0, 8.0  # radius of the brain and of its fluid core
MNI_SHIFT_MM = np.array([3.0, -5.0, 7.0])  # position of the centre of the brain in MNI space


def make_source(
    spacing_mm=(2.0, 2.0, 2.0), noise: float = 0.0, name: str = "ball", fluid_mm: float = FLUID_MM
) -> Source:
    """Make a scan of the brain: the tissue is 1, the fluid core 0.2 and the background 0.

    The scan has no lesions, and this is not known.

    Args:
      noise: standard deviation of the noise inside the brain.
      fluid_mm: radius of the fluid core.
    """
    spacing_mm = np.array(spacing_mm)
    shape = tuple(np.ceil(2 * (RADIUS_MM + 8) / spacing_mm).astype(int))
    affine = nib.affines.from_matvec(np.diag(spacing_mm), -spacing_mm * (np.array(shape) - 1) / 2)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    radius = np.linalg.norm(nib.affines.apply_affine(affine, places), axis=-1)
    brain = radius < RADIUS_MM
    image = np.where(radius < fluid_mm, 0.2, 1.0) * brain
    image = image + noise * np.random.default_rng(0).standard_normal(shape) * brain
    to_mni = nib.affines.from_matvec(np.eye(3), MNI_SHIFT_MM)
    none = np.zeros(shape, bool)
    return Source(name, image[None].astype(np.float32), brain, none, none, affine, to_mni)


def ball_mask(source: Source, centre_mm, radius_mm: float) -> np.ndarray:
    """Return a ball around a point in MNI space, (D, H, W) bool."""
    voxels = np.stack(np.indices(source.brain.shape), axis=-1)
    places = nib.affines.apply_affine(source.to_mni @ source.affine, voxels)
    return np.linalg.norm(places - np.array(centre_mm), axis=-1) < radius_mm


def quiet(spacing_mm, **fields) -> Session:
    """Return a session that leaves the image unchanged, except for the given `fields`."""
    unchanged = Session(
        np.array(spacing_mm), np.eye(4), np.eye(4), distortion_mm=0.0, atrophy_mm=0.0, blur_mm=0.0,
        lesion_contrast=1.0, normal_contrast=1.0, rims=0.0, local_contrast=0.0, gamma=1.0,
        tones=(0.0,) * 6, gain=1.0, bias=0.0, noise=0.0, flow=0.0, cistern_flow=0.0,
        stripped_mm=None, seed=0,
    )  # fmt: skip
    return replace(unchanged, **fields)


def both(first: Session, second: Session, mask_margin_mm: float = 0.0) -> Sessions:
    """Return the settings of both visits."""
    return Sessions((first, second), mask_margin_mm, rim_seed=0)


def make_shape(side: int, centre_mm=(0.0, 0.0, 0.0), spacing_mm=(1.0, 1.0, 1.0)) -> Shape:
    """Make a cubic lesion shape with `side` voxels per side.

    Args:
      centre_mm: position in MNI space; None for a shape without a position.
    """
    mask = np.ones((side,) * 3, np.float32)
    middle = np.full(3, (side - 1) / 2)
    centre = None if centre_mm is None else np.array(centre_mm)
    return Shape(mask, np.diag(spacing_mm), middle, centre, side**3 * float(np.prod(spacing_mm)))


def make_bank() -> Bank:
    """Make a bank of cubes of three sizes, each at six positions around the centre of the brain."""
    places = [(28, 0, 0), (-28, 0, 0), (0, 28, 0), (0, -28, 0), (0, 0, 28), (0, 0, -28)]
    shapes = [
        make_shape(side, np.array(place) + MNI_SHIFT_MM) for side in (4, 6, 9) for place in places
    ]
    return Bank(tuple(shapes))


def make_lesion(
    shape: Shape, kind: Kind = Kind.NEW, contrasts=(0.0, 0.4), **fields
) -> PaintedLesion:
    """Make a lesion that has the size and position of the shape, and a sharp border.

    Args:
      fields: fields of PaintedLesion that differ from this.
    """
    return PaintedLesion(
        **{
            "kind": kind, "shape": shape, "centre_mm": shape.centre_mm, "matrix": np.eye(3),
            "border_mm": 0.05, "contrasts": contrasts, "sizes": (1.0, 1.0), "texture_seed": 0,
        } | fields
    )  # fmt: skip
