"""Make one labelled pair from one scan, or from a real pair of scans."""

import zlib
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from msseg_jax.simulate.synthetic.anatomy import Anatomy, scale_contrast
from msseg_jax.simulate.synthetic.bank import CONTRASTS, Bank
from msseg_jax.simulate.synthetic.erase import erase, make_alike
from msseg_jax.simulate.synthetic.marks import ENLARGING, LESIONS01, LESIONS02, VANISHED, Marks
from msseg_jax.simulate.synthetic.paint import FLUID, TISSUE, Placed, paint, place
from msseg_jax.simulate.synthetic.plan import (
    NEW_PROBABILITY,
    Kind,
    PaintedLesion,
    draw_lesion,
    draw_lesions,
)
from msseg_jax.simulate.synthetic.sessions import Session, Sessions, draw_sessions
from msseg_jax.simulate.synthetic.source import Source
from msseg_jax.simulate.synthetic.visit import SimulatedVisit, SourceGrid, widened
from msseg_jax.volumes.layout import BRAIN_MASK, CONSENSUS, TIME01, TIME02

TRIES = 40  # attempts to place a lesion; each attempt draws another lesion of the same kind
REAL_PROBABILITY = 0.25  # probability that a real lesion of the scan is changed
# What then happens to it, with these probabilities.
REAL_CHANGES = {Kind.NEW: 0.5, Kind.VANISHES: 0.2, Kind.ENLARGES: 0.2, Kind.SHRINKS: 0.1}
CHANGED_PART = (0.3, 0.7)  # share of a real lesion by which it grows or shrinks
LEAST_REAL_MM3 = 10.0  # smaller real lesions are never erased
LEAST_PARTED_MM3 = 60.0  # smaller real lesions neither grow nor shrink
# Minimum rise of a lesion that is labelled, relative to the brain's median. Few people would mark a
# fainter one. The rise is the increase in intensity at the brightest voxel of the lesion. It
# includes the averaging by the slices of the visit, but not the blur and the intensity changes of
# that visit. The value is the contrast of the faintest lesion of CONTRASTS, although those
# contrasts were measured differently.
FAINTEST = CONTRASTS[0]
WHITE = 300.0  # stored intensity of the brain's median, before the gain of the visit


@dataclass(frozen=True)
class SyntheticPair:
    """Contents of the files of one pair."""

    volumes: dict[str, np.ndarray]  # {file name: volume}; all have the same shape
    affine: np.ndarray  # (4, 4), voxel indices to scanner mm
    record: dict  # how the pair was made


def make_pair(
    source: Source, bank: Bank, seed: int, number: int, least_contrast: float = FAINTEST
) -> SyntheticPair:
    """Make one pair from a source. The result depends only on the arguments.

    Args:
      source: the scan, or the real pair.
      bank: the lesion shapes to choose from.
      seed: seed of the data set.
      number: number of the pair. Each pair of a source has different lesions and scanner settings.
      least_contrast: minimum rise of a lesion that is labelled, see FAINTEST; 0 labels all.
    """
    name = zlib.crc32(source.name.encode())  # gives each source different lesions
    lesions_rng, sessions_rng, erase_rng, new_rng = (
        np.random.default_rng([seed, name, number, stream]) for stream in range(4)
    )
    has_new = bool(new_rng.random() < NEW_PROBABILITY)
    sessions = draw_sessions(source.spacing_mm, source.is_pair, sessions_rng)
    anatomy = Anatomy(source)
    heads = _starting_heads(source, erase_rng)
    for head, session in zip(heads, sessions.visits, strict=True):
        change_appearance(head, source, anatomy, session, sessions.rim_seed)
    marks = Marks(source.brain.shape)
    contrasts = [session.lesion_contrast for session in sessions.visits]
    real = _change_real_lesions(source, has_new, contrasts, heads, marks, erase_rng)
    lesions = draw_lesions(bank, has_new, lesions_rng)
    painted = _paint_lesions(lesions, source, bank, heads, sessions.visits, marks, lesions_rng)
    volumes, affine = scan_both(source, anatomy, heads, marks, sessions, least_contrast)
    if not source.lesions_known:
        del volumes[LESIONS01], volumes[LESIONS02]
    record = _record(source, volumes, affine, painted, real, sessions)
    return SyntheticPair(volumes, affine, record)


def _starting_heads(source: Source, rng: np.random.Generator) -> list[np.ndarray]:
    """Return both visits without new lesions, (D, H, W) float32 each."""
    if not source.is_pair:
        return [source.images[0].copy(), source.images[0].copy()]
    # Where the visits differ, one is copied into the other. Both then show the lesion, or neither.
    alike = make_alike(
        source.images, source.lesions, source.brain, source.spacing_mm, int(rng.integers(2))
    )
    order = [0, 1] if rng.random() < 0.5 else [1, 0]
    return [alike[k].copy() for k in order]


def change_appearance(
    head: np.ndarray, source: Source, anatomy: Anatomy, session: Session, rim_seed: int
) -> None:
    """Change what a protocol changes, without changing any lesion's size; in place."""
    if not source.is_pair:
        for mask, factor in (
            (source.lesions, session.lesion_contrast), (source.normal, session.normal_contrast),
        ):  # fmt: skip
            head[...] = scale_contrast(head, mask, factor, source.spacing_mm)
    if session.rims:
        tissue = np.clip((head - FLUID) / (TISSUE - FLUID), 0, 1)
        head += np.float32(session.rims) * anatomy.rims(rim_seed) * tissue


def _change_real_lesions(
    source: Source, has_new: bool, contrasts: list[float], heads: list[np.ndarray], marks: Marks,
    rng: np.random.Generator,
) -> list[Kind]:  # fmt: skip
    """Erase some real lesions of a scan, or parts of them, from one visit; in place.

    Args:
      source: the scan.
      has_new: whether lesions may become new.
      contrasts: factor on the contrast of the lesions, by which each visit differs from the scan.
      heads: both visits.
      marks: notes the lesions.
      rng: chooses the lesions.

    Returns:
      The kinds of the lesions that were changed.
    """
    if source.is_pair or not source.lesions.any():
        return []
    labels, count = ndimage.label(source.lesions, np.ones((3, 3, 3)))
    volumes_mm3 = np.bincount(labels.ravel(), minlength=count + 1) * np.prod(source.spacing_mm)
    kinds, gone = [], {kind: np.zeros(labels.shape, bool) for kind in REAL_CHANGES}
    for number in range(1, count + 1):
        if volumes_mm3[number] < LEAST_REAL_MM3 or rng.random() >= REAL_PROBABILITY:
            continue
        kind = Kind(rng.choice(list(REAL_CHANGES), p=list(REAL_CHANGES.values())))
        if kind is Kind.NEW and not has_new:
            continue
        lesion = labels == number
        if kind in (Kind.ENLARGES, Kind.SHRINKS):
            if volumes_mm3[number] < LEAST_PARTED_MM3:
                continue
            lesion = _part_of(lesion, rng.uniform(*CHANGED_PART), source.spacing_mm, rng)
        gone[kind] |= lesion
        kinds.append(kind)
    missing = ((Kind.NEW, Kind.ENLARGES), (Kind.VANISHES, Kind.SHRINKS))
    for visit, missing_kinds in enumerate(missing):
        mask = np.any([gone[kind] for kind in missing_kinds], axis=0)
        if mask.any():
            whole = heads[visit].copy()
            heads[visit][...] = erase(whole, mask, source.lesions, source.spacing_mm, rng)
            # The other visit shows these lesions, with its own contrast.
            rise = (whole - heads[visit]) * np.float32(contrasts[1 - visit] / contrasts[visit])
            for kind in missing_kinds:
                marks.add_real(kind, gone[kind], rise)
    marks.add_real(Kind.PERSISTS, source.lesions & ~np.any(list(gone.values()), axis=0))
    return kinds


def _part_of(
    lesion: np.ndarray, share: float, spacing_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return the part of a lesion beyond a random plane. It has a `share` of the voxels."""
    voxels = np.argwhere(lesion)
    height_mm = voxels * spacing_mm @ rng.standard_normal(3)
    part = np.zeros_like(lesion)
    part[tuple(voxels[height_mm > np.quantile(height_mm, 1 - share)].T)] = True
    return part


def _paint_lesions(
    lesions: list[PaintedLesion], source: Source, bank: Bank, heads: list[np.ndarray],
    sessions: tuple[Session, Session], marks: Marks, rng: np.random.Generator,
) -> list[Placed]:  # fmt: skip
    """Paint lesions into both visits, in place. Return those for which there was a place."""
    painted = []
    taken = source.lesions | source.normal
    for lesion in lesions:
        placed = _find_place(lesion, bank, source, heads, taken, rng)
        if placed is None:
            continue
        painted.append(placed)
        taken[placed.box] |= np.maximum(*placed.shares) > 0.1
        rises = []
        for visit, (head, session) in enumerate(zip(heads, sessions, strict=True)):
            before = head[placed.box].copy()
            paint(head, placed, visit, session.lesion_contrast)
            rises.append(head[placed.box] - before)
        marks.add_painted(placed, (rises[0], rises[1]))
    return painted


def _find_place(
    lesion: PaintedLesion,
    bank: Bank,
    source: Source,
    heads: list,
    taken: np.ndarray,
    rng: np.random.Generator,
) -> Placed | None:
    """Place a lesion, or another of its kind. Return None if all TRIES attempts fail."""
    for _ in range(TRIES):
        visit = 1 if lesion.contrasts[1] >= lesion.contrasts[0] else 0
        placed = place(lesion, source, heads[visit], taken)
        if placed is not None:
            return placed
        lesion = draw_lesion(lesion.kind, bank, rng)
    return None


def scan_both(
    source: Source, anatomy: Anatomy, heads: list[np.ndarray], marks: Marks, sessions: Sessions,
    least_contrast: float,
) -> tuple[dict[str, np.ndarray], np.ndarray]:  # fmt: skip
    """Simulate the scans of both visits. Return the volumes of the pair and their affine."""
    spacing_mm = source.spacing_mm
    first, second = sessions.visits
    grid = SourceGrid.over(
        source.brain.shape, spacing_mm, np.minimum(first.spacing_mm, second.spacing_mm)
    )
    visits = (
        SimulatedVisit(source, anatomy, first, grid),
        SimulatedVisit(source, anatomy, second, grid),
    )
    matrix, shift = grid.to_source[:3, :3], grid.to_source[:3, 3]
    brain = ndimage.affine_transform(
        widened(source.brain, sessions.mask_margin_mm, spacing_mm).astype(np.uint8), matrix, shift,
        output_shape=grid.shape, order=0,
    )  # fmt: skip
    volumes = {
        name: np.rint(WHITE * visit.session.gain * visit.scan(head)).clip(0, 32767).astype(np.int16)
        for name, visit, head in zip((TIME01, TIME02), visits, heads, strict=True)
    }
    voxel_mm3 = float(np.prod(spacing_mm * np.diag(matrix)))
    labels = marks.labels(visits, brain > 0, least_contrast, voxel_mm3)
    volumes |= {BRAIN_MASK: brain}
    volumes |= {name: label.astype(np.uint8) for name, label in labels.items()}
    return volumes, source.affine @ grid.to_source


def _record(
    source: Source, volumes: dict[str, np.ndarray], affine: np.ndarray, painted: list[Placed],
    real: list[Kind], sessions: Sessions,
) -> dict:  # fmt: skip
    """Return a record of how the pair was made.

    The fields are information for people, except "source": `data.split` uses it to keep all pairs
    of a source together.
    """
    voxel_mm3 = float(np.prod(nib.affines.voxel_sizes(affine)))
    visits = sessions.visits
    new_mm3 = _volumes_mm3(volumes[CONSENSUS], voxel_mm3)
    return {
        "source": source.name,
        "painted": {kind.value: sum(p.lesion.kind is kind for p in painted) for kind in Kind},
        "of_the_scan": {kind.value: real.count(kind) for kind in Kind},
        "new_lesions": len(new_mm3),
        "new_lesions_mm3": new_mm3,
        "enlarging_mm3": _volumes_mm3(volumes[ENLARGING], voxel_mm3),
        "vanished_mm3": _volumes_mm3(volumes[VANISHED], voxel_mm3),
        "lesions_known": source.lesions_known,
        "spacing_mm": [[round(float(mm), 3) for mm in s.spacing_mm] for s in visits],
        "noise": [round(float(s.noise), 4) for s in visits],
        "atrophy_mm": [round(float(s.atrophy_mm), 3) for s in visits],
        "lesion_contrast": [round(s.lesion_contrast, 3) for s in visits],
        "rims": [round(float(s.rims), 3) for s in visits],
        "stripped": [s.stripped_mm is not None for s in visits],
        "mask_margin_mm": round(sessions.mask_margin_mm, 2),
    }


def _volumes_mm3(label: np.ndarray, voxel_mm3: float) -> list[float]:
    """Return the volume of each lesion of a label map, mm3."""
    labels, _ = ndimage.label(label)
    return [round(float(voxels) * voxel_mm3, 1) for voxels in np.bincount(labels.ravel())[1:]]
