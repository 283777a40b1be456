"""Note where the lesions of a pair are in the head, and make its label maps from that."""

import numpy as np
from scipy import ndimage

from msseg_jax.simulate.synthetic.paint import Placed
from msseg_jax.simulate.synthetic.plan import Kind
from msseg_jax.simulate.synthetic.visit import SimulatedVisit
from msseg_jax.volumes.layout import CHANGES

CONSENSUS, ENLARGING, VANISHED, LESIONS01, LESIONS02 = CHANGES  # names of the files
# A voxel is labelled if a lesion fills more than this share of it. First, the shares of each
# lesion are divided by their maximum.
LABELLED = 0.35
LEAST_LABELLED_MM3 = 6.0  # smaller labels are dropped, such as lesion edges in the next slice
SURE = 1.0  # rise of a lesion that an expert has outlined: it is always labelled


class Marks:
    """Shares of the voxels of a head that lesions fill, and the rises in intensity they cause."""

    def __init__(self, shape: tuple[int, ...]):
        self._zero = np.zeros(shape, np.float32)
        self._shares: dict[tuple[str, int], np.ndarray] = {}  # by (map, visit)
        self._rises: dict[int, np.ndarray] = {}  # by visit

    def add_painted(self, placed: Placed, rises: tuple[np.ndarray, np.ndarray]) -> None:
        """Add a painted lesion.

        Args:
          placed: the lesion.
          rises: for each visit, (d, h, w), what the lesion adds to the intensity in its box.
        """
        contrasts = placed.lesion.contrasts
        shares = [
            share / max(float(share.max()), 1e-6) if contrast else np.zeros_like(share)
            for share, contrast in zip(placed.shares, contrasts, strict=True)
        ]
        self._add(placed.lesion.kind, placed.box, shares, rises)

    def add_real(self, kind: Kind, mask: np.ndarray, rise: np.ndarray | float = SURE) -> None:
        """Add real lesions, or the parts of real lesions, that both visits or one of them show.

        Args:
          kind: PERSISTS: both visits show them. NEW, ENLARGES: the second visit. VANISHES, SHRINKS:
            the first visit.
          mask: (D, H, W) bool.
          rise: what they add to the intensity.
        """
        share = mask.astype(np.float32)
        appears, goes = kind in (Kind.NEW, Kind.ENLARGES), kind in (Kind.VANISHES, Kind.SHRINKS)
        shares = [float(not appears) * share, float(not goes) * share]
        self._add(kind, (), shares, [rise * share for share in shares])

    def _add(self, kind: Kind, box: tuple, shares: list, rises: list | tuple) -> None:
        for visit, (share, rise) in enumerate(zip(shares, rises, strict=True)):
            of_all = LESIONS02 if visit else LESIONS01
            changed = {
                Kind.NEW: CONSENSUS, Kind.ENLARGES: ENLARGING, Kind.SHRINKS: VANISHED,
                Kind.VANISHES: VANISHED,
            }.get(kind)  # fmt: skip
            for name in filter(None, (of_all, changed)):
                _keep_larger(self._shares.setdefault((name, visit), self._zero.copy())[box], share)
            _keep_larger(self._rises.setdefault(visit, self._zero.copy())[box], rise)

    def labels(
        self, visits: tuple[SimulatedVisit, SimulatedVisit], brain: np.ndarray,
        least_contrast: float, voxel_mm3: float,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Return the five label maps on the grid of the visits, {file name: (D, H, W) bool}.

        Args:
          visits: both visits.
          brain: (D, H, W) bool, on the grid of the visits.
          least_contrast: minimum rise of a lesion that is labelled; 0 labels all.
          voxel_mm3: volume of a voxel of the grid.
        """
        rises = [visit.see(self._rises.get(k, self._zero)) for k, visit in enumerate(visits)]
        labels = {}
        # What is new or has grown is outlined in the second visit, what has gone in the first.
        for name, k in (
            (CONSENSUS, 1), (ENLARGING, 1), (VANISHED, 0), (LESIONS01, 0), (LESIONS02, 1),
        ):  # fmt: skip
            label = self._seen(name, k, visits[k])
            if name in (ENLARGING, VANISHED):
                label &= ~self._seen(name, 1 - k, visits[k])  # only the part that has changed
            labels[name] = _without_weak_lesions(label & brain, rises[k], least_contrast, voxel_mm3)
        return labels

    def _seen(self, name: str, visit: int, through: SimulatedVisit) -> np.ndarray:
        """Return where a map of a visit is labelled, as seen in the scan `through`."""
        return through.see(self._shares.get((name, visit), self._zero)) > LABELLED


def _keep_larger(total: np.ndarray, added: np.ndarray) -> None:
    np.maximum(total, added, out=total)


def _without_weak_lesions(
    label: np.ndarray, rise: np.ndarray, least_contrast: float, voxel_mm3: float
) -> np.ndarray:
    """Return the label without the lesions that are too small or too faint."""
    labels, count = ndimage.label(label)  # 6-connectivity, which the evaluation uses too
    large = np.bincount(labels.ravel()) * voxel_mm3 >= LEAST_LABELLED_MM3
    brightest = ndimage.maximum(rise, labels, np.arange(count + 1))
    kept = large & (brightest >= least_contrast)
    kept[0] = False
    return kept[labels]
