"""Simulated lesions: their position, their shape, and their change between the visits.

A lesion is defined by a level function, a volume and a contrast. On a grid, it consists of the
voxels with the lowest level, as many as its volume needs. Its edge is soft: at the border of the
mask, the lesion has half of its contrast. The level rises steeply outside white matter. Therefore a
lesion follows the wall of a ventricle or fills a gyrus, as real lesions do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from msseg_jax.simulate.phantom.fields import HeadGrid, Waves
from msseg_jax.simulate.phantom.head import Head
from msseg_jax.simulate.phantom.plan import PatientPlan

KINDS = ("new", "doubtful", "persistent", "enlarged", "faded", "vanished")
# Typical locations of multiple sclerosis lesions, with their approximate frequencies.
PLACES = {"periventricular": 0.42, "deep": 0.26, "juxtacortical": 0.2, "infratentorial": 0.12}
Visits = tuple[float, float]  # values at time01 and time02
CLAIM_VOXELS = 3  # width of the rim that keeps other lesions away, so that labels do not merge


@dataclass(frozen=True)
class PhantomLesion:
    """One lesion in the head, at both visits.

    Attributes:
        kind: one of KINDS. Only "new" lesions belong in the ground truth. "doubtful" ones are faint
            spots in the second visit that one or two experts mark as new.
        centre_mm: head coordinates.
        lobes: one or more pairs of an offset in mm and a 3 x 3 matrix. The matrix maps the lobe to
            a unit ball.
        radius_mm: radius of a ball with the same volume.
        waves: shape of the surface irregularity.
        roughness: amplitude of the surface irregularity, relative to the radius.
        edge_mm: width of the soft edge.
        volume_mm3: volume at time01 and at time02.
        contrast: signal above that of white matter, which is 1, at time01 and at time02.
    """

    kind: str
    centre_mm: np.ndarray
    lobes: tuple[tuple[np.ndarray, np.ndarray], ...]
    radius_mm: float
    waves: Waves
    roughness: float
    edge_mm: float
    volume_mm3: tuple[float, float]
    contrast: tuple[float, float]

    def level(self, points: list[np.ndarray]) -> np.ndarray:
        """Return the level at points. It grows from the centre outward, by about 1 per mm."""
        balls = []
        for offset, matrix in self.lobes:
            x, y, z = (
                p - np.float32(c) for p, c in zip(points, self.centre_mm + offset, strict=True)
            )
            squares = sum(
                (np.float32(a) * x + np.float32(b) * y + np.float32(c) * z) ** 2
                for a, b, c in matrix
            )
            balls.append((np.sqrt(squares) - 1) * np.float32(self.radius_mm))
        level = reduce(np.minimum, balls)
        return level + np.float32(self.roughness * self.radius_mm) * self.waves(*points)


@dataclass(frozen=True)
class Drawn:
    """A lesion on a grid. It consists of the voxels of `box` where `level` < `cut`."""

    box: tuple[slice, ...]
    level: np.ndarray
    cut: float
    mask: np.ndarray
    compact: bool  # True if the lesion is in one piece and close to its centre

    def opacity(self, edge_mm: float) -> np.ndarray:
        """Return the share of the lesion's signal in each voxel: 0.5 at the border of the mask."""
        steps = np.clip((self.level - self.cut) / edge_mm, -30, 30)
        return 1 / (1 + np.exp(steps))


class Painter:
    """Painter of the lesions of one head on the grid of a visit.

    Args:
        grid: grid of the image.
        head: the head, with its tissues.
        motion: 4 x 4 matrix from head coordinates at this visit to those of `head`, mm.
    """

    def __init__(self, grid: HeadGrid, head: Head, motion: np.ndarray):
        self.grid = HeadGrid(grid.shape, motion @ grid.to_head_mm)
        brain = head.brain
        nuclei = sum(brain.nuclei.values())
        # Grey matter has a small weight, because lesions may extend into cortex and nuclei.
        self.tissue = brain.white + 0.4 * nuclei + 0.25 * brain.cortex
        start = [s.start for s in head.brain_box]
        to_index = np.linalg.inv(head.grid.to_head_mm)
        to_index[:3, 3] -= start
        self.to_index = to_index.astype(np.float32)

    def draw(self, lesion: PhantomLesion, visit: int, blocked: np.ndarray) -> Drawn:
        """Draw `lesion` on the grid, as it is at `visit` (0 or 1).

        Args:
            lesion: the lesion to draw.
            visit: 0 or 1.
            blocked: shape of the grid; other than 0 where the lesion may not be.
        """
        reach = 1.9 * lesion.radius_mm + 4.0
        box = self.grid.box(lesion.centre_mm - reach, lesion.centre_mm + reach)
        points = self.grid.coordinates(box)
        m = self.to_index
        index = np.stack(
            [a * points[0] + b * points[1] + c * points[2] + d for a, b, c, d in m[:3]]
        )
        tissue = ndimage.map_coordinates(self.tissue, index, order=1, output=np.float32)
        level = lesion.level(points) + (1 - tissue) * np.float32(2 * lesion.radius_mm + 4)
        level[blocked[box] > 0] = np.inf

        voxels = max(1, round(lesion.volume_mm3[visit] / self.grid.voxel_mm3))
        voxels = min(voxels, level.size - 2)
        lowest = np.partition(level, (voxels - 1, voxels), axis=None)[voxels - 1 : voxels + 1]
        cut = float(lowest.mean()) if np.isfinite(lowest).all() else float(lowest[0])
        pieces, _ = ndimage.label(level < cut)
        sizes = np.bincount(pieces.ravel())[1:]
        mask = pieces == sizes.argmax() + 1 if sizes.size else level <= cut
        compact = mask.sum() >= 0.8 * voxels and cut < 0.9 * lesion.radius_mm + 0.5
        level[(level < cut) & ~mask] = np.inf  # removes the other pieces, which are not labelled
        return Drawn(box, level, cut, mask, bool(compact))

    def blend(self, signal: np.ndarray, lesion: PhantomLesion, visit: int, drawn: Drawn) -> None:
        """Blend a drawn lesion into `signal`, in place."""
        points = self.grid.coordinates(drawn.box)
        inner = 1 + lesion.contrast[visit] * (1 + 0.08 * lesion.waves(*points))
        here = signal[drawn.box]
        here += drawn.opacity(lesion.edge_mm) * (inner - here)


@dataclass(frozen=True)
class Sites:
    """Possible centres of lesions for each location of PLACES, as head coordinates (n, 3) in mm."""

    by_place: dict[str, np.ndarray]

    @classmethod
    def of(cls, head: Head) -> Sites:
        """Find the possible centres in a head."""
        every = (slice(None, None, 2),) * 3
        brain = head.brain
        white, pial = brain.white[every] > 0.9, brain.pial_mm[every]
        ventricle, below = brain.ventricle_mm[every], brain.infratentorial[every]
        white &= brain.hull_mm[every] < -4
        x, y, z = (p[every] for p in head.grid.coordinates(head.brain_box))
        # The white matter near the midline is excluded: it is too thin there for lesions.
        above = white & ~below & (z > -25) & (np.abs(x) > 11)
        chosen = {
            "periventricular": above & (ventricle > 1.5) & (ventricle < 6) & (z > -5),
            "deep": above & (ventricle > 8) & (pial > 6),
            "juxtacortical": above & (pial > 3.2) & (pial < 5.5) & (ventricle > 12),
            "infratentorial": white & below & (pial > 4) & (z > -58),
        }
        return cls({place: np.stack([x[m], y[m], z[m]], axis=-1) for place, m in chosen.items()})


def draw_lesion(
    rng: np.random.Generator, sites: Sites, kind: str, volumes: Visits, contrast: Visits
) -> PhantomLesion:
    """Draw a lesion with a random location and shape.

    Args:
        rng: draws the lesion.
        sites: possible centres.
        kind: one of KINDS.
        volumes: at time01 and time02, mm3.
        contrast: at time01 and time02, signal above white matter.
    """
    volume = max(volumes)
    radius = (3 * volume / (4 * np.pi)) ** (1 / 3)
    chances = {p: c for p, c in PLACES.items() if len(sites.by_place[p])}
    if radius > 4:  # large lesions do not fit at the cortex, and rarely fit in the brain stem
        chances.pop("juxtacortical", None)
        chances["infratentorial"] = chances.get("infratentorial", 0) * (radius < 5)
    places, weights = list(chances), np.array(list(chances.values()))
    place = places[rng.choice(len(places), p=weights / weights.sum())]
    options = sites.by_place[place]
    centre = options[rng.integers(len(options))].astype(float)

    count = 1 + min(int(rng.poisson(0.15 + radius / 5)), 3)
    lobes = []
    for lobe in range(count):
        semi = 1.15 * radius * count ** (-1 / 3) * rng.lognormal(0, 0.22, 3)
        turn = Rotation.random(rng=rng)
        if place == "periventricular":  # "Dawson's fingers" are perpendicular to the ventricle
            semi = np.sort(semi) * [0.85, 0.95, 1.5]
            semi = semi[[2, 0, 1]]  # the longest axis along x, away from the ventricle
            turn = Rotation.from_rotvec(rng.normal(0, 0.35, 3))
        offset = np.zeros(3) if lobe == 0 else 0.85 * radius * _direction(rng)
        lobes.append((offset, turn.as_matrix() / semi[:, None]))
    return PhantomLesion(
        kind=kind,
        centre_mm=centre,
        lobes=tuple(lobes),
        radius_mm=float(radius),
        waves=Waves.draw(rng, max(3.0, 1.6 * radius)),
        roughness=float(rng.uniform(0.05, 0.16)),
        edge_mm=float(min(rng.uniform(0.3, 0.8), 0.25 * radius)),
        volume_mm3=(float(volumes[0]), float(volumes[1])),
        contrast=(float(contrast[0]), float(contrast[1])),
    )


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


@dataclass(frozen=True)
class LesionLoad:
    """All lesions of a patient.

    Attributes:
        recent: the new and the doubtful lesions, each as it is drawn at time02.
        old: all other lesions.
        claims: i + 1 in recent lesion i and its rim, 0 elsewhere; uint8, shape of the grid.
    """

    recent: list[tuple[PhantomLesion, Drawn]]
    old: list[PhantomLesion]
    claims: np.ndarray


def draw_load(plan: PatientPlan, sites: Sites, painter: Painter) -> LesionLoad:
    """Draw the lesions of a patient: the planned new ones, doubtful ones and old ones.

    A new or doubtful lesion that is not compact is drawn again, with another centre.

    Args:
        plan: defines the volumes of the new lesions.
        sites: possible centres.
        painter: painter of the second visit, because the experts draw on that image.
    """
    rng = plan.rng("lesions")
    claims = np.zeros(painter.grid.shape, np.uint8)
    recent: list[tuple[PhantomLesion, Drawn]] = []
    planned = [("new", volume) for volume in plan.new_lesions_mm3]
    planned += [("doubtful", rng.uniform(15, 60)) for _ in range(min(rng.poisson(0.8), 3))]
    for kind, volume in planned:
        if kind == "new":
            # A small lesion gets more contrast, because experts would miss a small and faint one.
            contrast = rng.uniform(0.36 if volume < 60 else 0.28, 0.72)
        else:
            contrast = rng.uniform(0.08, 0.18)
        tries: list[tuple[PhantomLesion, Drawn]] = []
        while len(tries) < 60 and not (tries and tries[-1][1].compact):
            lesion = draw_lesion(rng, sites, kind, (0.0, volume), (0.0, contrast))
            tries.append((lesion, painter.draw(lesion, 1, claims)))
        # Very rarely no lesion is compact after all tries. Then the largest one is used.
        fits = tries[-1][1].compact
        recent.append(tries[-1] if fits else max(tries, key=lambda pair: pair[1].mask.sum()))
        _claim(claims, recent[-1][1], len(recent))
    return LesionLoad(recent, _old_lesions(rng, sites, recent), claims)


def _claim(claims: np.ndarray, drawn: Drawn, owner: int) -> None:
    box = tuple(
        slice(max(s.start - CLAIM_VOXELS, 0), min(s.stop + CLAIM_VOXELS, n))
        for s, n in zip(drawn.box, claims.shape, strict=True)
    )
    mask = np.zeros([s.stop - s.start for s in box], bool)
    mask[
        tuple(
            slice(d.start - b.start, d.stop - b.start) for d, b in zip(drawn.box, box, strict=True)
        )
    ] = drawn.mask
    cube = np.ones((3, 3, 3), bool)
    rim = ndimage.binary_dilation(mask, cube, iterations=CLAIM_VOXELS)
    here = claims[box]
    here[rim & (here == 0)] = owner


def _old_lesions(
    rng: np.random.Generator, sites: Sites, recent: list[tuple[PhantomLesion, Drawn]]
) -> list[PhantomLesion]:
    """Draw the lesions of the first visit: 4 to 60, with a median of 16, mostly unchanged ones."""
    count = int(np.clip(round(rng.lognormal(np.log(16), 0.7)), 4, 60))
    kinds = list(KINDS[2:])  # at least one lesion of each kind
    kinds += list(rng.choice(KINDS[2:], count - 4, p=(0.72, 0.1, 0.1, 0.08)))
    old = []
    for kind in kinds:
        volume = float(np.clip(rng.lognormal(np.log(55), 1.1), 12, 3500))
        contrast = rng.uniform(0.22, 0.7)
        volumes, contrasts = (volume, volume), (contrast, contrast * rng.uniform(0.93, 1.05))
        if kind == "enlarged":
            volumes = volume, volume * rng.uniform(1.4, 2.4)
        elif kind == "faded":
            volumes = volume, 0.8 * volume
            contrasts = contrast, contrast * rng.uniform(0.25, 0.55)
        elif kind == "vanished":
            volumes, contrasts = (volume, 0.0), (contrast, 0.0)
        for _ in range(30):
            lesion = draw_lesion(rng, sites, kind, volumes, contrasts)
            gaps = [
                np.linalg.norm(lesion.centre_mm - other.centre_mm)
                - 1.5 * (lesion.radius_mm + other.radius_mm)
                for other, _ in recent
            ]
            if min(gaps, default=1.0) > 0:
                old.append(lesion)
                break
    return old
