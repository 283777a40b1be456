"""Prepare two scans and find new lesions in them. This needs the libraries of [prepare]."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from msseg_jax.api.findings import Choices, Findings, Model, as_model, choose_options
from msseg_jax.api.images import path_of
from msseg_jax.prepare.libraries import check_libraries
from msseg_jax.prepare.request import Request
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import BRAIN_MASK, TIME01, TIME02

if TYPE_CHECKING:
    from msseg_jax.inference.scans import ScanPair

# The modules that import the libraries of [prepare] are imported in the functions that need them.
# `import msseg_jax` must work without these libraries.


@dataclass(frozen=True, eq=False, repr=False)
class PreparedScans:
    """Two scans that were registered and prepared. Look at `picture` before you trust them."""

    scans: "ScanPair"

    @property
    def folder(self) -> Path:
        """Folder of the prepared pair, in the MSSEG-2 layout."""
        return self.scans.folder

    @property
    def time01(self) -> Path:
        """File of the first visit, prepared."""
        return self.folder / TIME01

    @property
    def time02(self) -> Path:
        """File of the second visit, prepared, on the same grid."""
        return self.folder / TIME02

    @property
    def brain_mask(self) -> Path:
        """File of the brain mask of both visits."""
        return self.folder / BRAIN_MASK

    @property
    def picture(self) -> Path:
        """Picture that shows the alignment and the outline of the brain."""
        return self.folder / "prepare.png"

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt the preparation."""
        return list(self.scans.record.warnings)

    def find_new_lesions(self, model: Model = None, **options: Unpack[Choices]) -> Findings:
        """Find the new lesions. The result lies on the grid of the second scan.

        Args:
          model: as for `msseg_jax.find_new_lesions`.
          **options: as for `msseg_jax.find_new_lesions`.

        Raises:
          InputError: the model or the prepared pair cannot be used.
        """
        from msseg_jax.inference.scans import predict_scan_pair

        if not self.time02.is_file():
            raise InputError(f"{self.folder}: the prepared pair is gone. Prepare the scans again.")
        began_s = time.perf_counter()
        ensemble = as_model(model)
        prediction = predict_scan_pair(ensemble, self.scans, choose_options(ensemble, options))
        request = self.scans.request
        masks = [mask for mask in request.brain_masks if mask is not None]
        inputs = request.time01, request.time02, *masks
        return Findings(prediction, inputs, self.folder, time.perf_counter() - began_s)

    def __repr__(self) -> str:
        return f"<PreparedScans: {self.folder}>"


def prepare_scans(
    time01: str | PathLike[str],
    time02: str | PathLike[str],
    folder: str | PathLike[str],
    *,
    series: str | tuple[str | None, str | None] | None = None,
    brain_masks: tuple[str | PathLike[str] | None, str | PathLike[str] | None] = (None, None),
    brain_mask_command: str | None = None,
    acquisition: str | tuple[str | None, str | None] | None = None,
    allow_reversed: bool = False,
    overwrite: bool = False,
    progress: Callable[[str], object] | None = None,
) -> PreparedScans:
    """Prepare two scans: register them, find the brain, and correct the bias field.

    Args:
      time01: the first visit as the scanner wrote it, a NIfTI file or a folder of DICOM files.
      time02: the second visit, in the same way.
      folder: folder to make for the pair. If it holds this pair already, nothing is done.
      series: the DICOM series to use, if a folder holds several: one for both visits, or a pair. A
        place such as '#2' for both is ignored for a visit with only one series.
      brain_masks: brain masks of both visits, in the scanner coordinates of their scans. One of
        them may be None.
      brain_mask_command: a program that makes a brain mask, such as
        "mri_synthstrip -i {input} -m {output}".
      acquisition: the stack of slices to use, if a DICOM series holds several: one for both visits,
        which is ignored for a visit with only one stack, or a pair.
      allow_reversed: accept DICOM scans whose dates say that the first visit is the later one.
      overwrite: prepare again, even if `folder` holds a pair.
      progress: called with the name of each step.

    Returns:
      The prepared pair.

    Raises:
      InputError: the scans cannot be used, or `folder` holds something else. Nothing is written.
    """
    check_libraries()
    from msseg_jax.inference.scans import ScanPair
    from msseg_jax.prepare.patient import prepare_patient

    if isinstance(brain_masks, str | PathLike) or len(brain_masks) != 2:
        raise InputError(f"brain_masks is {brain_masks!r}. Expected a pair: one for each visit.")
    first, second = (None if mask is None else path_of(mask) for mask in brain_masks)
    if brain_mask_command is not None and (first or second):
        raise InputError(
            "brain_masks and brain_mask_command are both given. Expected at most one of them."
        )
    request = Request(
        path_of(time01), path_of(time02), _pair("series", series), (first, second),
        brain_mask_command, _pair("acquisition", acquisition), allow_reversed,
    )  # fmt: skip
    say = progress or (lambda step: None)
    prepared = prepare_patient(request, path_of(folder), overwrite, say)
    return PreparedScans(ScanPair(request, prepared.folder, prepared.record))


def _pair(name: str, value: object) -> tuple[str | None, str | None]:
    """Return a choice for each visit; a single one holds for both."""
    both = (value, value) if value is None or isinstance(value, str) else value
    match both:
        case ((None | str()) as first, (None | str()) as second):
            return first, second
    raise InputError(f"{name} is {value!r}. Expected a text for both visits, or a pair.")
