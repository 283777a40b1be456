"""Turn probability maps into new lesions and, if the maps show them, other changes of lesions."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msseg_jax.configuration.options import Options
from msseg_jax.configuration.targets import (
    CHANGES,
    ENLARGING,
    LESIONS01,
    LESIONS02,
    NEW,
    VANISHED,
)
from msseg_jax.models.reliability import Reliability
from msseg_jax.system.words import count_of
from msseg_jax.volumes.lesions import (
    describe_lesions,
    number_lesions,
    peaks,
    touched_mm3,
    voxel_mm3,
)
from msseg_jax.volumes.volume import Volume

# The classes of lesions of the label map: the label of class k is k + 1.
CLASSES = (NEW, ENLARGING, VANISHED)


@dataclass(frozen=True)
class NewLesions:
    """The new lesions of a pair, with the maps they were found in, all on one grid.

    If the networks give further maps, there are also enlarging and vanished lesions, and all
    lesions of each visit.
    """

    like: Volume  # a volume on this grid; output files take affine, codes and units from it
    maps: np.ndarray  # (T, D, H, W) float32, probabilities; the first is that of the new lesions
    disagreement: np.ndarray  # (D, H, W) float32, deviation of the first map over the networks
    options: Options  # threshold, smallest lesion and smallest peak
    reliability: Reliability | None = None  # table that holds for the networks and the options

    @property
    def probability(self) -> np.ndarray:
        """Probability of new lesion, (D, H, W) float32."""
        return self.maps[NEW]

    @cached_property
    def mask(self) -> np.ndarray:
        """New lesions, (D, H, W) uint8, 0 and 1."""
        return self._mask_of(NEW)

    @cached_property
    def changes(self) -> np.ndarray | None:
        """Label map, (D, H, W) uint8; None if the networks do not give it.

        The labels are 1 new (as in `mask`), 2 enlarging, and 3 vanished or shrunk.
        """
        if len(self.maps) <= VANISHED:
            return None
        enlarging, vanished = self.maps[ENLARGING], self.maps[VANISHED]
        larger = vanished > enlarging
        free = self.mask == 0
        labels = self.mask.copy()
        for number, probability, wins in (
            (ENLARGING, enlarging, ~larger),
            (VANISHED, vanished, larger),
        ):
            found = (probability > self.options.threshold) & wins & free
            labels[kept_lesions(found, probability, self.options, self._voxel_mm3)] = number + 1
        return labels

    @property
    def lesions01(self) -> np.ndarray | None:
        """All lesions at the first visit, (D, H, W) uint8; None without such a map."""
        return self._mask_of(LESIONS01) if len(self.maps) > LESIONS01 else None

    @property
    def lesions02(self) -> np.ndarray | None:
        """All lesions at the second visit, in the same way."""
        return self._mask_of(LESIONS02) if len(self.maps) > LESIONS02 else None

    @cached_property
    def labels(self) -> np.ndarray:
        """Lesions of the mask, (D, H, W) int32, numbered from 1 in order of decreasing size."""
        return number_lesions(self.mask != 0)[0]

    @cached_property
    def labels_by_class(self) -> dict[str, np.ndarray]:
        """Numbered lesions of each class as in `labels`, by name: only 'new' without `changes`."""
        found = {CHANGES[NEW]: self.labels}
        if self.changes is not None:
            for number in CLASSES[1:]:
                found[CHANGES[number]] = number_lesions(self.changes == number + 1)[0]
        return found

    @cached_property
    def numbered(self) -> np.ndarray:
        """The lesions of all classes, (D, H, W) int32: each has the value `label` of its row."""
        numbered = np.zeros_like(self.labels)
        before = 0
        for labels in self.labels_by_class.values():
            here = labels > 0
            numbered[here] = before + labels[here]
            before += int(labels.max(initial=0))
        return numbered

    @cached_property
    def rows_by_class(self) -> dict[str, list[dict]]:
        """A row of measurements for each lesion, by the name of its class.

        Beside those of `describe_lesions`, a row contains

        class: 'new', 'enlarging' or 'vanished or shrunk';
        label: the value of the lesion in `numbered`. `lesion` numbers the lesions of each class;
        right, of: of so many marked lesions like this one, so many were right
          (`Reliability.like`). None for other classes, without a table, or if there were too few;
        volume01_mm3, volume02_mm3, change_mm3: volume of the lesions of the first and of the second
          visit that the lesion touches, and their difference. NaN if the networks do not show all
          lesions of the visit.
        """
        visits = [
            None if mask is None else number_lesions(mask != 0)[0]
            for mask in (self.lesions01, self.lesions02)
        ]
        rows: dict[str, list[dict]] = {}
        for (name, labels), probability in zip(
            self.labels_by_class.items(), self.maps, strict=False
        ):
            before = sum(map(len, rows.values()))
            measured = describe_lesions(labels, self.like.affine, self.like.spacing_mm, probability)
            first_mm3, second_mm3 = (self._touched_mm3(labels, visit) for visit in visits)
            rows[name] = [
                {"lesion": row["lesion"], "class": name, "label": before + row["lesion"]}
                | row
                | self._counts_of_similar(name, row)
                | {
                    "volume01_mm3": float(first),
                    "volume02_mm3": float(second),
                    "change_mm3": float(second - first),
                }
                for row, first, second in zip(measured, first_mm3, second_mm3, strict=True)
            ]
        return rows

    def _touched_mm3(self, labels: np.ndarray, visit: np.ndarray | None) -> np.ndarray:
        """Return the volume of the lesions of a visit that each lesion touches, (lesions,)."""
        if visit is None:
            return np.full(int(labels.max(initial=0)), np.nan)
        return touched_mm3(labels, visit, self.like.spacing_mm)

    def _counts_of_similar(self, name: str, row: dict) -> dict[str, int | None]:
        """Return how many marked lesions like this one were right, and how many there were."""
        like = None
        if self.reliability is not None and name == CHANGES[NEW]:
            like = self.reliability.like(row["volume_mm3"], row["mean_probability"])
        return dict(zip(("right", "of"), like or (None, None), strict=True))

    @property
    def rows(self) -> list[dict]:
        """All rows of `rows_by_class`: the new lesions come first."""
        return [row for rows in self.rows_by_class.values() for row in rows]

    @property
    def count(self) -> int:
        """The number of new lesions."""
        return int(self.labels.max(initial=0))

    @property
    def volume_mm3(self) -> float:
        """The volume of all new lesions."""
        return float(self.mask.sum() * self._voxel_mm3)

    def __str__(self) -> str:
        return f"{count_of(self.count, 'new lesion')}, {self.volume_mm3:.0f} mm3"

    def _mask_of(self, number: int) -> np.ndarray:
        """Return the mask of the lesions in one map."""
        return lesion_mask(self.maps[number], self.options, self._voxel_mm3)

    @property
    def _voxel_mm3(self) -> float:
        return voxel_mm3(self.like.spacing_mm)


def lesion_mask(probability: np.ndarray, options: Options, volume_mm3: float) -> np.ndarray:
    """Return the mask of voxels above the threshold, without lesions that do not count.

    Args:
      probability: (D, H, W).
      options: threshold, smallest lesion and smallest peak.
      volume_mm3: volume of a voxel.

    Returns:
      (D, H, W) uint8.
    """
    found = probability > options.threshold
    return kept_lesions(found, probability, options, volume_mm3).astype(np.uint8)


def kept_lesions(
    mask: np.ndarray, probability: np.ndarray, options: Options, volume_mm3: float
) -> np.ndarray:
    """Return a bool mask (D, H, W) without the lesions that are too small or not probable enough.

    A low threshold with a high peak marks whole lesions, and only those of which the network is
    sure somewhere. Canny's edge detector chooses its edges in the same way (IEEE Transactions on
    Pattern Analysis and Machine Intelligence, 1986).

    Args:
      mask: (D, H, W) bool, voxels above the threshold.
      probability: (D, H, W).
      options: smallest lesion and smallest peak.
      volume_mm3: volume of a voxel.
    """
    if options.min_lesion_mm3 <= 0 and options.min_peak <= options.threshold:
        return mask
    labels, _ = number_lesions(mask, math.ceil(options.min_lesion_mm3 / volume_mm3))
    counts = peaks(labels, probability) >= options.min_peak
    return np.append(False, counts)[labels]
