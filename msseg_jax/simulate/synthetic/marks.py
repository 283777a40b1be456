"""Note where the lesions of a pair are in the head, and make its label maps from that."""

from collections.abc import Sequence

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
        self._rises: dict[tuple[str, int], np.ndarray] = {}  # by (map, visit)

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
        self._add(placed.lesion.kind, placed.box, shares, rises, rises)

    def add_real(self, kind: Kind, mask: np.ndarray, rise: np.ndarray | float = SURE) -> None:
        """Add real lesions, or the parts of real lesions, that both visits or one of them show.

        Args:
          kind: PERSISTS: both visits show them. NEW, ENLARGES: the second visit. VANISHES, SHRINKS:
            the first visit.
          mask: (D, H, W) bool.
          rise: what they add to the intensity. It decides whether a change is labelled. The lesions
            of a visit are labelled in any case, because an expert has outlined them.
        """
        share = mask.astype(np.float32)
        appears, goes = kind in (Kind.NEW, Kind.ENLARGES), kind in (Kind.VANISHES, Kind.SHRINKS)
        shares = [float(not appears) * share, float(not goes) * share]
        sure = [SURE * share for share in shares]
        self._add(kind, (), shares, sure, [rise * share for share in shares])

    def _add(
        self, kind: Kind, box: tuple, shares: Sequence[np.ndarray], rises: Sequence[np.ndarray],
        change_rises: Sequence[np.ndarray],
    ) -> None:  # fmt: skip
        """Add a lesion to the map of all lesions and to that of its change, at both visits."""
        changed = {
            Kind.NEW: CONSENSUS, Kind.ENLARGES: ENLARGING, Kind.SHRINKS: VANISHED,
            Kind.VANISHES: VANISHED,
        }.get(kind)  # fmt: skip
        for visit, of_all in enumerate((LESIONS01, LESIONS02)):
            self._mark(of_all, visit, box, shares[visit], rises[visit])
            if changed:
                self._mark(changed, visit, box, shares[visit], change_rises[visit])

    def _mark(self, name: str, visit: int, box: tuple, share: np.ndarray, rise: np.ndarray) -> None:
        for maps, added in ((self._shares, share), (self._rises, rise)):
            total = maps.setdefault((name, visit), self._zero.copy())[box]
            np.maximum(total, added, out=total)

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
        labels = {}
        # What is new or has grown is outlined in the second visit, what has gone in the first.
        for name, k in (
            (CONSENSUS, 1), (ENLARGING, 1), (VANISHED, 0), (LESIONS01, 0), (LESIONS02, 1),
        ):  # fmt: skip
            label = self._seen(name, k, visits[k])
            if name in (ENLARGING, VANISHED):
                label &= ~self._seen(name, 1 - k, visits[k])  # only the part that has changed
            rise = visits[k].see(self._rises.get((name, k), self._zero))
            labels[name] = _without_weak_lesions(label & brain, rise, least_contrast, voxel_mm3)
        return labels

    def _seen(self, name: str, visit: int, through: SimulatedVisit) -> np.ndarray:
        """Return where a map of a visit is labelled, as seen in the scan `through`."""
        return through.see(self._shares.get((name, visit), self._zero)) > LABELLED


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
