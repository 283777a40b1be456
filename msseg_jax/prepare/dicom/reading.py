"""Read one series of a folder of DICOM files as an image."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from msseg_jax.prepare.dicom.acquisitions import choose_acquisition
from msseg_jax.prepare.dicom.header import DicomSlice
from msseg_jax.prepare.dicom.pixels import read_pixels
from msseg_jax.prepare.dicom.series import choose_series, list_series
from msseg_jax.prepare.visit_facts import VisitFacts


@dataclass(frozen=True)
class DicomImage:
    """The image of a series."""

    image: sitk.Image  # float32
    said: str  # the series in words
    facts: VisitFacts
    slice_numbers: tuple[int, ...]  # of the slices in the series; empty if they are not known


def read_series(
    folder: Path,
    series: str | None = None,
    acquisition: str | None = None,
    *,
    series_for_both: bool = False,
    acquisition_for_both: bool = False,
) -> DicomImage:
    """Read the image of a series as float32.

    Args:
      series: number, UID or part of the description. It is needed if there are several series.
      acquisition: which stack of slices. It is needed if the series contains several.
      series_for_both, acquisition_for_both: whether the choice is that of both visits. It is then
        ignored if there is nothing to choose in this folder.

    Raises:
      InputError: There is no series, or there are several. Slices are missing or occur twice, the
        gantry is tilted, or files are damaged.
    """
    chosen = choose_series(folder, list_series(folder, series), series, series_for_both)
    ordered, which = choose_acquisition(
        f"{folder}, {chosen}", chosen.slices, acquisition, acquisition_for_both
    )
    said = f"{chosen}, {which}" if which else str(chosen)
    image = read_pixels(f"{folder}, {said}", ordered)
    return DicomImage(image, said, _facts_of(ordered), _numbers_of(ordered))


def _numbers_of(slices: list[DicomSlice]) -> tuple[int, ...]:
    """Return the numbers of the slices of a stack; empty if they are missing or not unique."""
    numbers = [slice_.labels.instance for slice_ in slices]
    known = tuple(number for number in numbers if number is not None)
    return known if len(set(known)) == len(slices) else ()


def _facts_of(slices: list[DicomSlice]) -> VisitFacts:
    """Return what most headers of a stack say. A few may be damaged."""
    patient = {
        keyword: Counter(slice_.labels.patient[keyword] for slice_ in slices).most_common(1)[0][0]
        for keyword in slices[0].labels.patient
    }
    moments = [slice_.labels.acquired for slice_ in slices if slice_.labels.acquired is not None]
    if not moments:
        return VisitFacts(patient=patient)
    day, _ = Counter(day for day, _ in moments).most_common(1)[0]
    clocks = [clock for other, clock in moments if other == day and clock is not None]
    return VisitFacts(day, min(clocks, default=None), patient)
