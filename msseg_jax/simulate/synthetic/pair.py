"""Make one labelled pair from one scan, or from a real pair of scans."""

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

TRIES = 40  # attempts to place a lesion; each attempt draws another lesion of the same kind
REAL_PROBABILITY = 0.3  # probability that a real lesion of the scan is erased from one visit
REAL_VANISHES = 0.25  # probability that it is then erased from the second visit, not the first
LEAST_REAL_MM3 = 10.0  # smaller real lesions are never erased
# A voxel is labelled if a new lesion fills more than this share of it. First, the shares of each
# lesion are divided by their maximum.
LABELLED = 0.35
LEAST_LABELLED_MM3 = 6.0  # smaller labels are dropped, such as lesion edges in the next slice
# Minimum rise of a new lesion that is labelled, relative to the brain's median. Few people would
# mark a fainter one. The rise is the increase in intensity at the brightest voxel of the lesion. It
# includes the averaging by the slices of the second visit, but not the blur and the intensity
# changes of that visit. The value is the contrast of the faintest lesion of CONTRASTS, although
# those contrasts were measured differently.
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
      least_contrast: minimum rise of a new lesion that is labelled, see FAINTEST; 0 labels all.
    """
    name = zlib.crc32(source.name.encode())  # gives each source different lesions
    lesions_rng, sessions_rng, erase_rng = (
        np.random.default_rng([seed, name, number, stream]) for stream in range(3)
    )
    heads, taken = _starting_heads(source, erase_rng)
    real = _erase_some(source, heads, erase_rng)
    # New lesions: the share of each voxel that they fill, and the rise in intensity they cause.
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
    """Add a lesion with `share` and `rise` (d, h, w) to `new` (2, d, h, w), in place."""
    for total, added in zip(new, (share, rise), strict=True):
        np.maximum(total, added, out=total)


def _starting_heads(source: Source, rng: np.random.Generator) -> tuple[list, np.ndarray]:
    """Return both visits without new lesions, and the mask of the lesions that they have."""
    taken = source.lesions.copy()
    if not source.is_pair:
        return [source.images[0].copy(), source.images[0].copy()], taken
    # Where the visits differ, one is copied into the other. Both then show the lesion, or neither.
    alike = make_alike(
        source.images, source.lesions, source.brain, source.spacing_mm, int(rng.integers(2))
    )
    order = [0, 1] if rng.random() < 0.5 else [1, 0]
    return [alike[k].copy() for k in order], taken


def _erase_some(
    source: Source, heads: list[np.ndarray], rng: np.random.Generator
) -> list[tuple[Kind, np.ndarray]]:
    """Erase some real lesions of a scan from one visit, in place.

    Returns:
      For each erased lesion, its kind (NEW or VANISHES) and its mask.
    """
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
        masks = [mask for change, mask in real if change is kind]
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
    """Place a lesion, or another of its kind. Return None if all TRIES attempts fail."""
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
    """Simulate the scans of both visits. Return the volumes of the pair and their affine."""
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
    label = _drop_weak_lesions(label, rise, least_contrast, spacing_mm * np.diag(matrix))
    volumes = {
        name: np.rint(WHITE * session.gain * image).clip(0, 32767).astype(np.int16)
        for name, session, image in zip((TIME01, TIME02), sessions, images, strict=True)
    }
    volumes |= {BRAIN_MASK: brain, CONSENSUS: label.astype(np.uint8)}
    return volumes, source.affine @ grid.to_source


def _drop_weak_lesions(
    label: np.ndarray, rise: np.ndarray, least_contrast: float, spacing_mm: np.ndarray
) -> np.ndarray:
    """Return the label without the lesions that are too small or too faint."""
    labels, count = ndimage.label(label)  # 6-connectivity, which the evaluation uses too
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
    """Return a record of how the pair was made.

    The fields are information for people, except "source": `data.split` uses it to keep all pairs
    of a source together.
    """
    voxel_mm3 = float(np.prod(nib.affines.voxel_sizes(affine)))
    counts = {kind.value: sum(p.lesion.kind is kind for p in painted) for kind in Kind}
    labels, count = ndimage.label(label)
    return {
        "source": source.name,
        "painted": counts,
        "of_the_scan": {kind.value: sum(change is kind for change, _ in real) for kind in Kind},
        "new_lesions": count,
        "new_lesions_mm3": [
            round(float(v) * voxel_mm3, 1) for v in np.bincount(labels.ravel())[1:]
        ],
        "spacing_mm": [[round(float(mm), 3) for mm in s.spacing_mm] for s in sessions],
        "noise": [round(float(s.noise), 4) for s in sessions],
    }
