"""One labelled pair, out of a scan or of two."""

import zlib
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from msseg_jax.simulate.synthetic.bank import CONTRASTS, Bank
from msseg_jax.simulate.synthetic.erase import erase, make_alike
from msseg_jax.simulate.synthetic.paint import Placed, paint, place
from msseg_jax.simulate.synthetic.plan import (
    Kind,
    PaintedLesion,
    Session,
    draw_lesion,
    draw_lesions,
    draw_sessions,
)
from msseg_jax.simulate.synthetic.source import Source
from msseg_jax.simulate.synthetic.visit import SourceGrid, scan, seen_where
from msseg_jax.volumes.layout import BRAIN_MASK, CONSENSUS, TIME01, TIME02

TRIES = 40  # for a lesion to find a place, each time another lesion of its kind
REAL_PROBABILITY = 0.3  # of a lesion that a scan has, to be taken out of one of its visits
REAL_VANISHES = 0.25  # of these, out of the second
LEAST_REAL_MM3 = 10.0
LABELLED = 0.35  # share of a voxel, of the lesion's largest, from which it is labelled
LEAST_LABELLED_MM3 = 6.0  # what is less is left unlabelled: the edge of a lesion in another slice
# How much brighter a new lesion makes the head, of the brain's median, where it is brightest as the
# slices of the second visit see it, before that visit's tones and blur: fainter ones are not
# labelled, as few people would mark them. The number is that of the faintest lesion of CONTRASTS,
# which were measured otherwise.
FAINTEST = CONTRASTS[0]
WHITE = 300.0  # number stored for the brain's median, before a visit's gain


@dataclass(frozen=True)
class SyntheticPair:
    """A pair as it is written."""

    volumes: dict[str, np.ndarray]  # by file name; one shape
    affine: np.ndarray  # (4, 4), voxel indices to scanner mm
    record: dict  # what was done


def make_pair(
    source: Source, bank: Bank, seed: int, number: int, least_contrast: float = FAINTEST
) -> SyntheticPair:
    """One of a source's pairs: a function of the arguments alone.

    Args:
      seed, number: of the pair; each has lesions and visits of its own.
      least_contrast: of a new lesion that is labelled, as FAINTEST; 0 labels all.
    """
    name = zlib.crc32(source.name.encode())  # so that no two sources have the same lesions
    lesions_rng, sessions_rng, erase_rng = (
        np.random.default_rng([seed, name, number, stream]) for stream in range(3)
    )
    heads, taken = _starting_heads(source, erase_rng)
    real = _erase_some(source, heads, erase_rng)
    # What the second visit has and the first has not: its share of a voxel, what it adds to it.
    new = np.zeros((2, *source.brain.shape), np.float32)
    gone = [mask for kind, mask in real if kind is Kind.NEW]
    if gone:
        mask = np.any(gone, axis=0)
        _add(new, mask, mask * (heads[1] - heads[0]))
    painted = []
    for lesion in draw_lesions(bank, lesions_rng):
        placed = _find_place(lesion, bank, source, heads, taken, lesions_rng)
        if placed is None:
            continue
        painted.append(placed)
        taken[placed.box] |= np.maximum(*placed.shares) > 0.1
        before = heads[1][placed.box].copy()
        for visit, head in enumerate(heads):
            paint(head, placed, visit)
        if placed.lesion.kind is Kind.NEW:
            share = placed.shares[1]
            rise = heads[1][placed.box] - before
            _add(new[:, *placed.box], share / share.max(), rise)
    sessions = draw_sessions(source.spacing_mm, source.is_pair, sessions_rng)
    volumes, affine = _scan_both(source, heads, new, sessions, least_contrast)
    record = _record(source, volumes[CONSENSUS], affine, painted, real, sessions)
    return SyntheticPair(volumes, affine, record)


def _add(new: np.ndarray, share: np.ndarray, rise: np.ndarray) -> None:
    """One lesion more: `share` and `rise` (d, h, w) into `new` (2, d, h, w), in place."""
    for what, of_this in zip(new, (share, rise), strict=True):
        np.maximum(what, of_this, out=what)


def _starting_heads(source: Source, rng: np.random.Generator) -> tuple[list, np.ndarray]:
    """Both visits before anything is new in them, and where there are lesions already."""
    taken = source.lesions.copy()
    if not source.is_pair:
        return [source.images[0].copy(), source.images[0].copy()], taken
    # What one visit shows where they differ, both show: a lesion that was there, or was not yet.
    alike = make_alike(
        source.images, source.lesions, source.brain, source.spacing_mm, int(rng.integers(2))
    )
    order = [0, 1] if rng.random() < 0.5 else [1, 0]
    return [alike[k].copy() for k in order], taken


def _erase_some(
    source: Source, heads: list[np.ndarray], rng: np.random.Generator
) -> list[tuple[Kind, np.ndarray]]:
    """Take some of a scan's own lesions out of one visit: what became of each, and its mask."""
    if source.is_pair or not source.lesions.any():
        return []
    labels, count = ndimage.label(source.lesions, np.ones((3, 3, 3)))
    volumes_mm3 = np.bincount(labels.ravel())[1:] * np.prod(source.spacing_mm)
    chosen = [
        k + 1
        for k in range(count)
        if volumes_mm3[k] >= LEAST_REAL_MM3 and rng.random() < REAL_PROBABILITY
    ]
    real = []
    for number in chosen:
        kind = Kind.VANISHES if rng.random() < REAL_VANISHES else Kind.NEW
        real.append((kind, labels == number))
    for visit, kind in enumerate((Kind.NEW, Kind.VANISHES)):
        masks = [mask for what, mask in real if what is kind]
        if masks:
            gone = np.any(masks, axis=0)
            heads[visit][...] = erase(heads[visit], gone, source.lesions, source.spacing_mm, rng)
    return real


def _find_place(
    lesion: PaintedLesion,
    bank: Bank,
    source: Source,
    heads: list,
    taken: np.ndarray,
    rng: np.random.Generator,
) -> Placed | None:
    """A place for a lesion, or for another of its kind; None where none was found."""
    for _ in range(TRIES):
        visit = 1 if lesion.contrasts[1] >= lesion.contrasts[0] else 0
        placed = place(lesion, source, heads[visit], taken)
        if placed is not None:
            return placed
        lesion = draw_lesion(lesion.kind, bank, rng)
    return None


def _scan_both(
    source: Source,
    heads: list[np.ndarray],
    new: np.ndarray,
    sessions: tuple[Session, Session],
    least_contrast: float,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The volumes of a pair, and their affine."""
    spacing_mm = source.spacing_mm
    grid = SourceGrid.over(
        source.brain.shape, spacing_mm, np.minimum(*(s.spacing_mm for s in sessions))
    )
    images = [
        scan(head, source.brain, spacing_mm, session, grid)
        for head, session in zip(heads, sessions, strict=True)
    ]
    matrix, shift = grid.to_source[:3, :3], grid.to_source[:3, 3]
    brain = ndimage.affine_transform(
        source.brain.astype(np.uint8), matrix, shift, output_shape=grid.shape, order=0
    )
    share, rise = seen_where(new, spacing_mm, sessions[1], grid)
    label = (share > LABELLED) & (brain > 0)
    label = _worth_a_label(label, rise, least_contrast, spacing_mm * np.diag(matrix))
    volumes = {
        name: np.rint(WHITE * session.gain * image).clip(0, 32767).astype(np.int16)
        for name, session, image in zip((TIME01, TIME02), sessions, images, strict=True)
    }
    volumes |= {BRAIN_MASK: brain, CONSENSUS: label.astype(np.uint8)}
    return volumes, source.affine @ grid.to_source


def _worth_a_label(
    label: np.ndarray, rise: np.ndarray, least_contrast: float, spacing_mm: np.ndarray
) -> np.ndarray:
    """Without the lesions that are too small or too faint."""
    labels, count = ndimage.label(label)  # by faces, as lesions are counted when they are scored
    large = np.bincount(labels.ravel()) * np.prod(spacing_mm) >= LEAST_LABELLED_MM3
    brightest = ndimage.maximum(rise, labels, np.arange(count + 1))
    kept = large & (brightest >= least_contrast)
    kept[0] = False
    return kept[labels]


def _record(
    source: Source,
    label: np.ndarray,
    affine: np.ndarray,
    painted: list[Placed],
    real: list[tuple[Kind, np.ndarray]],
    sessions: tuple[Session, Session],
) -> dict:
    """What was done to a source, for people; `data.split` goes by which it was."""
    voxel_mm3 = float(np.prod(nib.affines.voxel_sizes(affine)))
    counts = {kind.value: sum(p.lesion.kind is kind for p in painted) for kind in Kind}
    labels, count = ndimage.label(label)
    return {
        "source": source.name,
        "painted": counts,
        "of_the_scan": {kind.value: sum(what is kind for what, _ in real) for kind in Kind},
        "new_lesions": count,
        "new_lesions_mm3": [
            round(float(v) * voxel_mm3, 1) for v in np.bincount(labels.ravel())[1:]
        ],
        "spacing_mm": [[round(float(mm), 3) for mm in s.spacing_mm] for s in sessions],
        "noise": [round(float(s.noise), 4) for s in sessions],
    }
