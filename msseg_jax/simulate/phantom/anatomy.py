"""Model of a brain with white matter, grey matter and fluid, built from level functions.

A level function is negative inside a structure and grows outward by about 1 per mm. The share of a
voxel inside the structure (partial volume) is therefore a linear ramp of the level, one voxel wide.
Coordinates are in mm, with x to the right, y to the front and z to the top. The origin lies between
the hemispheres at the height of the deep nuclei, similar to MNI space. All sizes come from textbook
measurements and visual adjustment. No image and no atlas was used.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from msseg_jax.simulate.phantom.fields import HeadGrid, ramp, smooth_field, stretch, striped_field

Points = Sequence[np.ndarray]  # x, y and z
Box = tuple[slice, ...]
Ball = tuple[float, float, float, float]  # x, y, z, radius

# Bounding box of the brain. Outside it there is only head, neck or air.
BRAIN_LOW_MM, BRAIN_HIGH_MM = (-78.0, -115.0, -84.0), (78.0, 81.0, 91.0)
# Bounding box of the deep nuclei and the ventricles.
NUCLEI_LOW_MM, NUCLEI_HIGH_MM = (-48.0, -78.0, -48.0), (48.0, 52.0, 44.0)
CEREBRUM_CENTRE_MM = (0.0, -17.0, 10.0)
CEREBRUM_SEMI_MM = (66.0, 85.0, 66.0)

# Balls (x, y, z, radius in mm) along the lateral ventricle of one side, from front to back, and
# along its temporal horn.
LATERAL_VENTRICLE = (
    (14, 34, 5, 1.0), (9, 24, 10, 2.4), (5, 8, 16, 2.8), (6, -10, 20, 2.6),
    (11, -26, 20, 3.0), (20, -38, 12, 4.4), (23, -52, 9, 2.6), (21, -66, 8, 1.0),
)  # fmt: skip
TEMPORAL_HORN = ((20, -38, 12, 4.2), (30, -28, -6, 1.8), (31, -12, -14, 1.2))


@dataclass
class Traits:
    """Individual features of a brain, drawn once per patient."""

    ventricle: float  # factor on the radius of the ventricles
    sulcus_mm: float  # half width of the fluid in a sulcus
    cortex_mm: float  # thickness of the grey matter
    fold_mm: float  # wavelength of the folding, the width of two gyri
    fissure_mm: float  # half width of the fissure between the hemispheres
    temporal_mm: np.ndarray  # shift of the temporal lobes, (side, xyz)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Traits:
        """Draw the traits of one head."""
        return cls(
            ventricle=float(np.clip(rng.lognormal(0.0, 0.25), 0.7, 1.6)),
            sulcus_mm=rng.uniform(0.2, 0.7),
            cortex_mm=rng.uniform(2.7, 3.2),
            fold_mm=rng.uniform(17.0, 20.0),
            fissure_mm=rng.uniform(0.7, 1.4),
            temporal_mm=rng.normal(0.0, 1.5, (2, 3)),
        )


@dataclass
class Brain:
    """Tissue shares (0 to 1) and distances (mm) in each voxel of the box around the brain."""

    white: np.ndarray  # cerebral and cerebellar white matter, brain stem
    cortex: np.ndarray
    fluid: np.ndarray
    nuclei: dict[str, np.ndarray]  # deep grey matter
    hull_mm: np.ndarray  # level of the brain without folds
    pial_mm: np.ndarray  # depth below the nearest outer surface or sulcus
    ventricle_mm: np.ndarray  # level of the ventricles
    infratentorial: np.ndarray  # bool: cerebellum and brain stem


def ellipsoid(points: Points, centre: tuple, semi: tuple) -> np.ndarray:
    """Return the level of an ellipsoid: the distance to its surface in mm, to first order."""
    u, v, w = ((p - c) / s for p, c, s in zip(points, centre, semi, strict=True))
    radius = np.sqrt(u * u + v * v + w * w)
    slope = np.sqrt((u / semi[0]) ** 2 + (v / semi[1]) ** 2 + (w / semi[2]) ** 2)
    return radius * (radius - 1) / np.maximum(slope, 1e-6)


def cone(points: Points, start: tuple, end: tuple, flatten: float = 1.0) -> np.ndarray:
    """Return the level of a rod between two balls (x, y, z, radius).

    The rod is `flatten` times as high (along z) as it is wide.
    """
    axis = np.subtract(end[:3], start[:3]).astype(np.float32)
    x, y, z = (p - np.float32(s) for p, s in zip(points, start[:3], strict=True))
    along = np.clip((x * axis[0] + y * axis[1] + z * axis[2]) / (axis @ axis), 0, 1)
    x, y, z = x - along * axis[0], y - along * axis[1], (z - along * axis[2]) / flatten
    radius = start[3] + along * np.float32(end[3] - start[3])
    return np.sqrt(x * x + y * y + z * z) - radius


def union(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Return the level of the union of two structures, with a transition of `blend_mm`."""
    h = np.maximum(blend_mm - np.abs(a - b), 0) / blend_mm
    return np.minimum(a, b) - h * h * np.float32(blend_mm / 4)


def both_sides(points: Points, centre: tuple, semi: tuple) -> np.ndarray:
    """Return the level of the union of an ellipsoid and its mirror image (left and right)."""
    x, y, z = points
    return ellipsoid((np.abs(x), y, z), centre, semi)


def cerebrum(points: Points, traits: Traits) -> np.ndarray:
    """Return the level of the two hemispheres without folds.

    They consist of a dome with a flat base, and of the temporal lobes.
    """
    x, y, z = points
    _, cy, cz = CEREBRUM_CENTRE_MM
    # The front is narrower than the back, and the base is flatter than the vault.
    narrowing = 1 + 0.16 * np.clip((y - cy) / 85, -0.3, 1) ** 2 + 0.05 * (y - cy) / 85
    height = np.where(z > cz, np.float32(1), np.float32(1.75))
    dome = ellipsoid((x * narrowing, y - cy, (z - cz) * height), (0, 0, 0), CEREBRUM_SEMI_MM)
    level = dome
    for side, shift in zip((-1, 1), traits.temporal_mm, strict=True):
        centre = map(float, np.array([side * 44.0, -8.0, -20.0]) + shift)
        lobe = ellipsoid(points, tuple(centre), (21, 38, 23))
        # In front, a cleft separates lobe and dome (the Sylvian fissure). Behind, they merge.
        level = union(level, lobe, 4.0)
    return level


def hindbrain(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return the levels of cerebellum and brain stem."""
    halves = both_sides(points, (23, -64, -36), (29, 29, 21))
    vermis = ellipsoid(points, (0, -64, -30), (14, 24, 20))
    cerebellum = union(halves, vermis, 6.0)
    pons = ellipsoid(points, (0, -24, -30), (16, 13, 16))
    stem = union(pons, cone(points, (0, -20, -6, 15), (0, -28, -34, 11)), 6.0)
    stem = union(stem, cone(points, (0, -30, -36, 10), (0, -42, -95, 6)), 6.0)
    peduncles = cone((np.abs(points[0]), *points[1:]), (6, -30, -30, 8), (20, -52, -34, 8))
    return cerebellum, union(stem, peduncles, 4.0)


@dataclass
class Labyrinth:
    """A smooth function that is 0 at the sulci."""

    value: np.ndarray
    slope: np.ndarray  # magnitude of the gradient, per mm
    wavelength_mm: float

    def distance_mm(self, slab: slice) -> np.ndarray:
        """Return the distance to the nearest sulcus, to first order."""
        # The slope is 0 at saddle points. A minimum slope prevents holes there.
        floor = np.float32(0.6 * 2 * np.pi / self.wavelength_mm)
        return np.abs(self.value[slab]) / np.maximum(self.slope[slab], floor)


def fold(
    points: Points, rng: np.random.Generator, wavelength_mm: float, step_mm: np.ndarray
) -> Labyrinth:
    """Draw a labyrinth with sulci that are perpendicular to the surface of the cerebrum.

    Each point is projected along its radius, part of the way to the surface. Therefore the
    labyrinth hardly changes from the surface inward. With a full projection (power -1), the folds
    near the midline would be too fine.

    Args:
        points: coordinates of the voxels.
        rng: draws the labyrinth.
        wavelength_mm: wavelength of the folding.
        step_mm: (3,), voxel spacing.
    """
    shape = points[0].shape
    half = [max(2, n // 2) for n in shape]  # half the resolution is enough for these wavelengths
    points = tuple(stretch(p, half) for p in points)
    u, v, w = (
        (p - c) / s for p, c, s in zip(points, CEREBRUM_CENTRE_MM, CEREBRUM_SEMI_MM, strict=True)
    )
    scale = np.maximum(np.sqrt(u * u + v * v + w * w), 0.55) ** -0.6
    # The samples are 2 mm apart, so the field repeats only every 256 mm.
    labyrinth = striped_field(rng, 128, wavelength_mm / 2)
    index = np.stack(
        [(p - c) * scale / 2 + 64 for p, c in zip(points, CEREBRUM_CENTRE_MM, strict=True)]
    )
    value = ndimage.map_coordinates(labyrinth, index, order=1, mode="grid-wrap", output=np.float32)
    steps = [mm * n / m for mm, n, m in zip(step_mm, shape, half, strict=True)]
    slope = np.sqrt(sum(g * g for g in np.gradient(value, *steps))).astype(np.float32)
    return Labyrinth(stretch(value, shape), stretch(slope, shape), wavelength_mm)


def smooth_depth(points: Points, level: np.ndarray, traits: Traits) -> np.ndarray:
    """Return the depth in mm in a cerebrum that has no folds except the large fissures."""
    x, y, z = points
    # The fissure between the hemispheres ends at the corpus callosum, an arch over the ventricles.
    arch = np.sqrt(((y + 8) / 42) ** 2 + ((z - 8) / 25) ** 2)
    bridge = np.maximum(25 * (1 - arch), 0)
    # Below the nuclei, the hemispheres are connected to the brain stem.
    joined = np.maximum(-8 - z, 0) * np.maximum(1 - np.abs(y + 15) / 30, 0)
    wobble = 1.5 * np.sin(y / 11 + z / 17) * np.cos(z / 13)
    fissure = np.sqrt((x + wobble) ** 2 + np.maximum(bridge, joined) ** 2) - traits.fissure_mm
    # The insula is a sheet folded inward that bulges to the side. A cleft connects it to the
    # surface.
    side = np.abs(x) + 2.2 * np.sin(y / 5 + x / 30) * np.cos(z / 6)
    bulge = side - 40 + 0.012 * (y - 3) ** 2 + 0.018 * (z - 3) ** 2
    above = np.maximum(np.abs(z - 3) - 12, 0)
    behind = np.maximum(np.abs(y - 3 + 0.25 * z) - 16, 0)
    wall = np.sqrt(bulge**2 + above**2 + behind**2)
    tilt = z + 5 - 0.3 * (y - 4) + 2.0 * np.sin(side / 6 + y / 9)
    behind = np.maximum(np.abs(y + 8) - 32, 0)
    cleft = np.sqrt(tilt**2 + np.maximum(38 - side, 0) ** 2 + behind**2)
    return np.minimum(np.minimum(-level, fissure), np.minimum(wall, cleft) - 0.6)


def folded_depth(
    smooth: np.ndarray, x: np.ndarray, labyrinths: list[Labyrinth], reach: np.ndarray, slab: slice
) -> np.ndarray:
    """Return the depth in mm below the nearest surface or sulcus.

    The first labyrinth provides the deep sulci, the second one the shallow ones in between.
    """
    depth = smooth
    medial = np.clip(np.abs(x) / 22, 0.3, 1)  # sulci near the midline are shallower
    for labyrinth, reach_mm, spread_mm in zip(labyrinths, (17.0, 5.0), (4.0, 2.5), strict=True):
        sheet = labyrinth.distance_mm(slab)
        below = np.maximum(smooth - medial * (reach_mm + spread_mm * reach), 0)
        depth = np.minimum(depth, np.sqrt(sheet * sheet + below * below))
    return depth


def ventricles(points: Points, size: float) -> np.ndarray:
    """Return the level of the lateral, third and fourth ventricles."""
    x, y, z = points
    mirrored = (np.abs(x), y, z)
    level = np.full(x.shape, 60, np.float32)
    for chain, flatten in ((LATERAL_VENTRICLE, 1.9), (TEMPORAL_HORN, 1.3)):
        balls = [(*p[:3], p[3] * size) for p in chain]
        for start, end in itertools.pairwise(balls):
            level = union(level, cone(mirrored, start, end, flatten), 2.0)
    septum = 0.8 - np.abs(x)
    level = np.maximum(level, septum)
    third = ellipsoid(points, (0, -14, -2), (1.3 + 1.1 * (size - 0.7), 14, 11))
    fourth = ellipsoid(points, (0, -46, -33), (7 * size**0.5, 4.5 * size**0.5, 9))
    aqueduct = cone(points, (0, -27, -8, 1.0), (0, -44, -26, 1.0))
    return np.minimum(np.minimum(level, aqueduct), np.minimum(third, fourth))


def nuclei(points: Points) -> dict[str, np.ndarray]:
    """Return the levels of the deep grey nuclei, by name."""
    x, y, z = points
    mirrored = (np.abs(x), y, z)
    tail = cone(mirrored, (15, 18, 12, 4.5), (17, -14, 22, 2.0))
    return {
        "caudate": union(ellipsoid(mirrored, (14.5, 17, 6), (5.0, 10, 9)), tail, 3.0),
        "putamen": ellipsoid(mirrored, (27 + 0.004 * (y - 2) ** 2, 3, 2), (5.0, 16, 10)),
        "pallidum": ellipsoid(mirrored, (20, -3, 0), (4.0, 9, 6)),
        "thalamus": ellipsoid(mirrored, (11, -17, 7), (9, 14, 9)),
    }


def cerebellar_depth(points: Points, level: np.ndarray) -> np.ndarray:
    """Return the depth in mm below the surface or a fissure of the cerebellum.

    The folia are arranged like a fan.
    """
    x, y, z = points
    dy, dz = -(y + 44), z + 34
    radius = np.sqrt(dy * dy + dz * dz + 0.3 * x * x)
    angle = np.arctan2(dz, dy + 4) + 0.05 * np.sin(x / 9)
    folia = 17.0  # fissures per half turn
    sheet = np.abs(np.sin(angle * folia)) * np.maximum(radius, 6) / folia
    below = np.maximum(-level - 9.0, 0)
    return np.minimum(-level, np.sqrt(sheet * sheet + below * below))


def build_brain(grid: HeadGrid, box: Box, points: Points, rng: np.random.Generator) -> Brain:
    """Build a brain with random features.

    Args:
        grid: grid of the head.
        box: the part of `grid` that contains the brain.
        points: deformed coordinates of the voxels of `box`.
        rng: draws the features of the brain.
    """
    traits = Traits.draw(rng)
    step_mm = grid.spacing_mm
    shape = points[0].shape
    labyrinths = [
        fold(points, rng, wavelength_mm, step_mm)
        for wavelength_mm in (traits.fold_mm, 0.75 * traits.fold_mm)
    ]
    reach = smooth_field(rng, shape, step_mm, 25.0)
    per_mm = np.float32(1 / max(1.0, float(step_mm.mean())))  # 1 / ramp width (1 voxel, >= 1 mm)

    deep = inside_box(grid, box, NUCLEI_LOW_MM, NUCLEI_HIGH_MM)
    deep_points = tuple(p[deep] for p in points)
    ventricle = np.full(shape, 60, np.float32)
    ventricle[deep] = ventricles(deep_points, traits.ventricle)
    shares, room = {}, ramp(ventricle[deep] * per_mm)
    for name, level in nuclei(deep_points).items():
        # Nuclei blend into the white matter over 2 mm. Where they overlap, the first one wins.
        shares[name] = np.zeros(shape, np.float32)
        shares[name][deep] = ramp(-level / 2) * room
        room = room - shares[name][deep]

    brain = Brain(
        white=np.empty(shape, np.float32),
        cortex=np.empty(shape, np.float32),
        fluid=np.empty(shape, np.float32),
        nuclei=shares,
        hull_mm=np.empty(shape, np.float32),
        pial_mm=np.empty(shape, np.float32),
        ventricle_mm=ventricle,
        infratentorial=np.empty(shape, bool),
    )
    for slab in slabs(shape):
        here = tuple(p[slab] for p in points)
        big = cerebrum(here, traits)
        little, stem = hindbrain(here)
        brain.hull_mm[slab] = union(union(big, little, 6.0), stem, 4.0)
        big = np.maximum(big, 2.5 - little)  # the tentorium
        smooth = smooth_depth(here, big, traits)
        depth = folded_depth(smooth, here[0], labyrinths, reach[slab], slab)
        gap_mm = traits.sulcus_mm * (1.4 * np.exp(np.minimum(big, 0) / 6))  # sulci open outward
        little_depth = cerebellar_depth(here, little)

        # Where structures overlap, the brain stem comes first, then the cerebrum, then the
        # cerebellum.
        in_stem, in_big, in_little = (ramp(-level * per_mm) for level in (stem, big, little))
        in_big = in_big * (1 - in_stem)
        in_little = in_little * (1 - in_stem) * (1 - in_big)
        # A sulcus is thinner than a voxel. A ramp of two voxels keeps it connected.
        big_fluid = ramp((gap_mm - depth) * per_mm * np.float32(0.55))
        big_grey = ramp((gap_mm + traits.cortex_mm - depth) * per_mm) - big_fluid
        little_fluid = 0.5 * ramp((0.1 - little_depth) * per_mm)
        little_grey = np.maximum(ramp((1.8 - little_depth) * per_mm) - little_fluid, 0)
        nucleus = sum(share[slab] for share in shares.values())
        in_ventricle = ramp(-ventricle[slab] * per_mm)
        outside = 1 - in_stem - in_big - in_little
        fluid = in_big * big_fluid + in_little * little_fluid + outside
        fluid = np.maximum(fluid * (1 - nucleus), in_ventricle)
        cortex = (in_big * big_grey + in_little * little_grey) * (1 - in_ventricle - nucleus)
        brain.fluid[slab], brain.cortex[slab] = fluid, cortex
        brain.white[slab] = np.clip(1 - fluid - cortex - nucleus, 0, 1)
        brain.pial_mm[slab] = np.where(
            stem < 0, -stem, np.where(little < 0, little_depth, depth - gap_mm)
        )
        brain.infratentorial[slab] = (little < 0) | (stem < 0)
    return brain


def slabs(shape: tuple[int, ...], planes: int = 2) -> list[slice]:
    """Cut a shape into slabs along the first axis.

    The slabs fit into the CPU cache, which saves time and memory.
    """
    return [slice(i, min(i + planes, shape[0])) for i in range(0, shape[0], planes)]


def inside_box(grid: HeadGrid, box: Box, low_mm: tuple, high_mm: tuple) -> tuple[slice, ...]:
    """Convert a box in mm to indices relative to `box`, which contains it."""
    return tuple(
        slice(max(w.start - b.start, 0), w.stop - b.start)
        for w, b in zip(grid.box(low_mm, high_mm), box, strict=True)
    )
