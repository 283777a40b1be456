"""The head around the brain, and the FLAIR signal of each tissue.

Signals are relative to white matter = 1. In a FLAIR image, fluid is nulled (dark), grey matter is
brighter than white matter, bone and air are dark, and fat is bright unless it is suppressed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from msseg_jax.simulate.phantom.anatomy import (
    BRAIN_HIGH_MM,
    BRAIN_LOW_MM,
    Box,
    Brain,
    Points,
    build_brain,
    cone,
    ellipsoid,
    slabs,
    union,
)
from msseg_jax.simulate.phantom.fields import HeadGrid, ramp, smooth_field

DEFORMATION = ((60.0, 2.6), (22.0, 1.0))  # pairs of correlation length and standard deviation, mm


@dataclass
class Head:
    """A healthy head on a grid.

    Attributes:
        grid: grid of the arrays below.
        signal: FLAIR signal relative to white matter, without noise and bias; grid.shape, float32.
        inside: True in the head, False in the air around it.
        hull_mm: distance to the smooth surface of the brain, negative inside; 60 outside
            `brain_box`.
        brain_box: indices of the box that `brain` covers.
        brain: tissues in that box.
    """

    grid: HeadGrid
    signal: np.ndarray
    inside: np.ndarray
    hull_mm: np.ndarray
    brain_box: tuple[slice, ...]
    brain: Brain


def build_head(grid: HeadGrid, rng: np.random.Generator) -> Head:
    """Draw a head on `grid`."""
    points = deformed(grid, rng)
    box = grid.box(BRAIN_LOW_MM, BRAIN_HIGH_MM)
    brain = build_brain(grid, box, tuple(p[box] for p in points), rng)
    hull = np.full(grid.shape, 60, np.float32)
    hull[box] = brain.hull_mm
    signal, inside = surroundings(grid, points, hull, rng)
    signal[box] = inner_signal(grid, box, brain, signal[box], rng)
    return Head(grid, signal, inside, hull, box, brain)


def deformed(grid: HeadGrid, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Map the voxels to coordinates in the standard head by a random deformation.

    The deformation gives each head a different size and shape.
    """
    size = rng.normal(0.98, 0.03) * rng.normal(1.0, 0.02, 3)
    # The shear makes the head asymmetric, as real heads are.
    shear = rng.normal(0.0, 0.02, (3, 3))
    x, y, z = grid.coordinates()
    moved = []
    for r, (p, q) in enumerate(((x, y), (y, z), (z, x))):
        p = np.float32(1 / size[r]) * p + np.float32(shear[r, (r + 1) % 3]) * q
        for scale_mm, spread_mm in DEFORMATION:
            p += np.float32(spread_mm) * smooth_field(rng, grid.shape, grid.spacing_mm, scale_mm)
        moved.append(p)
    return tuple(moved)


@dataclass
class Covers:
    """Thickness in mm and signal of the layers that cover the brain."""

    fluid_mm: float
    skull_mm: float
    scalp_mm: float
    fat: float
    muscle: float
    skin: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Covers:
        """Draw the covers of one head."""
        return cls(
            fluid_mm=rng.uniform(0.5, 2.0),
            skull_mm=rng.uniform(4.5, 6.5),
            scalp_mm=rng.uniform(4.0, 7.0),
            # Fat is suppressed well, partly, or not at all.
            fat=float(rng.choice([0.3, 0.4, 0.8]) * rng.uniform(0.9, 1.1)),
            muscle=rng.uniform(0.3, 0.45),
            skin=rng.uniform(0.35, 0.6),
        )


class Texture(NamedTuple):
    """Random texture of the tissues on one slab of a grid.

    Attributes:
        patches: smooth noise with a correlation length of 8 mm, standard deviation 1.
        grain: smooth noise with a correlation length of 4 mm, standard deviation 1.
        per_mm: 1 / width of an edge; the width is one voxel, but at least 1 mm.
    """

    patches: np.ndarray
    grain: np.ndarray
    per_mm: np.float32


def surroundings(
    grid: HeadGrid, points: tuple, hull: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the signal of the head without the brain, and the mask of the head.

    The signal contains fluid, bone, scalp, face and neck.
    """
    covers = Covers.draw(rng)
    patches = smooth_field(rng, grid.shape, grid.spacing_mm, 8.0)
    grain = smooth_field(rng, grid.shape, grid.spacing_mm, 4.0)
    signal, inside = np.empty(grid.shape, np.float32), np.empty(grid.shape, bool)
    per_mm = np.float32(1 / max(1.0, float(grid.spacing_mm.mean())))
    for slab in slabs(grid.shape):
        x, y, z = here = tuple(p[slab] for p in points)
        # The skull follows the hull of the brain, but the vault fills its concave parts.
        low = np.where(z > 10, np.float32(1), np.float32(1.6))
        vault = ellipsoid((x, y, (z - 10) * low), (0, -17, 0), (66, 86, 66))
        cavity = union(vault, hull[slab] - covers.fluid_mm, 9.0)
        face = ellipsoid(here, (0, 26, -58), (54, 52, 66))
        neck = cone(here, (0, -32, -40, 56), (0, -42, -150, 52))
        skin = union(cavity - covers.skull_mm - covers.scalp_mm, union(face, neck, 24.0), 22.0)
        vault_share = ramp((z + 38 + 0.25 * y) / 14)  # 1 at the vault, 0 at face and neck
        texture = Texture(patches[slab], grain[slab], per_mm)
        values = below_skull(here, texture, covers)
        add_covers(values, cavity, skin, vault_share, texture, covers)
        signal[slab] = values * ramp(-skin * per_mm)
        inside[slab] = skin < 0
    return signal, inside


def below_skull(here: Points, texture: Texture, covers: Covers) -> np.ndarray:
    """Return the signal of face and neck: muscle, fat, bone, air spaces, eyes and spinal cord."""
    patches, grain, per_mm = texture
    x, y, z = here
    mirrored = (np.abs(x), y, z)
    fat_share = ramp((patches - 0.5) * 2)
    soft = (covers.muscle + fat_share * (covers.fat - covers.muscle)) * (1 + 0.15 * grain)
    dark = ramp((-0.75 - patches - 0.5 * grain) * 3)  # vessels, tendons, bone
    sinuses = union(
        ellipsoid(mirrored, (20, 50, -50), (14, 15, 17)),
        ellipsoid(here, (0, 40, -46), (11, 32, 20)),
        3.0,
    )
    throat = cone(here, (0, 6, -62, 8), (0, -8, -150, 8))
    dark = np.maximum(dark, ramp(-np.minimum(sinuses, throat) / 2))
    soft *= 1 - 0.9 * dark
    eyes = ellipsoid(mirrored, (31, 56, -26), (12.5, 12.5, 12.5))
    soft += ramp(-eyes * per_mm) * (np.where(eyes > -1.5, np.float32(0.4), 0.1) - soft)
    spine = cone(here, (0, -46, -75, 17), (0, -52, -150, 18))
    soft += ramp(-spine / 2) * (0.25 + 0.06 * grain - soft)
    canal = cone(here, (0, -42, -60, 9), (0, -48, -150, 8))
    soft += ramp(-canal * per_mm) * (np.float32(0.1) - soft)
    cord = cone(here, (0, -42, -60, 6), (0, -48, -150, 5))
    soft += ramp(-cord * per_mm) * (np.float32(0.85) - soft)
    return soft


def add_covers(
    signal: np.ndarray,
    cavity: np.ndarray,
    skin: np.ndarray,
    vault_share: np.ndarray,
    texture: Texture,
    covers: Covers,
) -> None:
    """Add scalp, bone, dura and fluid to `signal`, from the outside to the inside.

    Args:
        signal: signal of face and neck; it is changed in place.
        cavity, skin: levels of the inside of the skull and of the whole head, mm.
        vault_share: 1 where the vault covers the brain, 0 at face and neck.
        texture: on the same slab.
        covers: thickness and signal of the layers.
    """
    patches, grain, per_mm = texture
    fat = covers.fat * (1 + 0.15 * grain)
    scalp = np.where(skin > -1.5, np.float32(covers.skin), fat)
    thickness_mm = covers.scalp_mm * (1.2 - 0.4 * vault_share)
    signal += ramp((thickness_mm + skin) * per_mm) * (scalp - signal)
    in_skull = ramp((covers.skull_mm + 0.3 - cavity) * per_mm) * vault_share
    half = np.float32(covers.skull_mm / 2)
    marrow = np.clip(1 - np.abs(cavity - half) / half, 0, 1) ** 2
    bone = 0.04 + marrow * np.clip(0.12 + 0.07 * patches, 0.02, 0.5)
    signal += in_skull * (bone - signal)
    base = ramp((6 - cavity) * per_mm) * (1 - vault_share)  # skull base with bone, marrow and air
    signal += base * (np.clip(0.12 + 0.15 * patches + 0.08 * grain, 0.03, 0.5) - signal)
    signal += ramp(-cavity * per_mm) * (np.float32(0.1) - signal)
    dura = ramp((0.7 - np.abs(cavity + 0.2)) * per_mm) * np.clip(0.15 + 0.1 * patches, 0, 0.4)
    signal += dura * (np.float32(0.6) - signal)


def inner_signal(
    grid: HeadGrid, box: Box, brain: Brain, around: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the FLAIR signal in `box`: that of the brain, and `around` outside the brain."""
    shape, spacing_mm = brain.white.shape, grid.spacing_mm
    cortex_signal = rng.uniform(1.18, 1.28)
    fluid_signal = rng.uniform(0.10, 0.2)
    levels = {
        "caudate": rng.uniform(1.12, 1.2),
        "putamen": rng.uniform(1.1, 1.18),
        "pallidum": rng.uniform(0.88, 0.98),
        "thalamus": rng.uniform(1.04, 1.12),
    }
    lining, cap = rng.uniform(0.12, 0.28), rng.uniform(0.15, 0.4)
    wide, middle, fine = (
        smooth_field(rng, shape, spacing_mm, max(mm, 2 * float(spacing_mm.mean())))
        for mm in (26.0, 9.0, 3.0)
    )
    points = grid.coordinates(box)
    signal = np.empty(shape, np.float32)
    for slab in slabs(shape):
        x, y, z = (p[slab] for p in points)
        ventricle = brain.ventricle_mm[slab]
        # White matter has a dark corpus callosum, bright bands next to the trigones, and a thin
        # bright lining of the ventricles with caps at the horns, as in healthy adults.
        outside = np.maximum(ventricle, 0)
        horns = np.exp(-(((y - 34) / 9) ** 2)) + 0.8 * np.exp(-(((y + 55) / 14) ** 2))
        callosum = np.exp(-((x / 14) ** 2) - ((ventricle - 4) / 4) ** 2) * (z > 10)
        bands = ((np.abs(x) - 30) / 10) ** 2 + ((y + 42) / 22) ** 2 + ((z - 20) / 16) ** 2
        white = 1 + lining * np.exp(-outside / 1.3) + cap * np.exp(-outside / 3) * horns
        white += 0.07 * np.exp(-bands) - 0.1 * callosum - 0.05 * brain.infratentorial[slab]
        # Cortex is brighter near the midline (cingulum), and darker in the cerebellum.
        grey = cortex_signal - 0.04 * wide[slab] + 0.06 * np.exp(-((x / 16) ** 2))
        grey -= 0.1 * brain.infratentorial[slab]
        tissue = brain.white[slab] * white + brain.cortex[slab] * grey
        total = brain.white[slab] + brain.cortex[slab]
        for name, share in brain.nuclei.items():
            tissue += share[slab] * np.float32(levels[name])
            total = total + share[slab]
        texture = 1 + 0.022 * wide[slab] + 0.02 * middle[slab] + 0.018 * fine[slab]
        tissue *= texture / np.maximum(total, 1e-3)
        # The trigones contain strands of choroid plexus, and the signal of fluid varies slightly.
        plexus = np.clip(middle[slab] + 0.3, 0, 1) * np.exp(-(((y + 36) / 8) ** 2)) * 0.5
        fluid = fluid_signal * (1 + 0.25 * middle[slab]) + plexus * (ventricle < 0)
        inside = ramp(-brain.hull_mm[slab])
        fluid = inside * fluid + (1 - inside) * around[slab]
        solid = np.clip(1 - brain.fluid[slab], 0, 1)
        signal[slab] = solid * tissue + (1 - solid) * fluid
    return signal
