"""Where the results of a prediction go, and which places they cannot have."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_outside
from msseg_jax.volumes.nifti import SUFFIXES, check_output

# What is added to the name of --output, for masks on the grid of prepared pairs.
IN_MIDDLE = "_on_middle_space"


@dataclass(frozen=True)
class Outputs:
    """Where results go: files for one pair, folders that exist for many."""

    mask: Path
    probability: Path | None = None
    report: Path | None = None
    uncertainty: Path | None = None  # how far an ensemble's probabilities disagree
    in_middle: Path | None = None  # the mask on the pair's own grid, where `mask` is on a scanner's

    @property
    def paths(self) -> list[Path]:
        """The places that are given."""
        paths = (self.mask, self.probability, self.report, self.uncertainty, self.in_middle)
        return [path for path in paths if path is not None]

    @property
    def are_there(self) -> bool:
        """Whether all of these files exist."""
        return all(path.is_file() for path in self.paths)

    def of(self, patient: str) -> "Outputs":
        """Return the files of one patient in these folders."""
        return Outputs(
            self.mask / f"{patient}.nii.gz",
            self.probability and self.probability / f"{patient}.nii.gz",
            self.report and self.report / f"{patient}.html",
            self.uncertainty and self.uncertainty / f"{patient}.nii.gz",
            self.in_middle and self.in_middle / f"{patient}.nii.gz",
        )


def check_places(outputs: Outputs, prepared: Path | None) -> None:
    """Raise InputError for outputs that share a place, or lie among prepared pairs.

    Args:
      prepared: the folder of --prepare, if there is one.
    """
    places: dict[Path, str] = {}
    for name, path in (
        ("--output", outputs.mask), ("--probability", outputs.probability),
        ("--uncertainty", outputs.uncertainty),
        (f"the mask on the prepared pair's grid (--output with {IN_MIDDLE})", outputs.in_middle),
    ):  # fmt: skip
        if path is not None and (other := places.setdefault(path.resolve(), name)) != name:
            raise InputError(f"{name} is {path}, as {other}; expected two places")
    for path in outputs.paths:
        if prepared is not None:
            problem = f"lies in {prepared}, the folder of --prepare, which holds only what it makes"
            check_outside(path, prepared, problem)


def check_files(outputs: Outputs, inputs: Iterable[Path], prepared: Path | None) -> None:
    """Raise InputError for files of one pair that cannot be written, or would replace an input.

    Args:
      prepared: the folder that is made for the pair, if it is prepared from scans.
    """
    places = [path.resolve() for path in inputs]
    for output in outputs.paths:
        check_output(output, (".html",) if output is outputs.report else SUFFIXES)
        if output.resolve() in places:
            raise InputError(f"{output}: is an input; choose another name for the output")
    for path in places:
        if prepared is not None:
            problem = f"is an input, and lies in {prepared}, the folder of --prepare, which is made"
            check_outside(path, prepared, problem)


def make_folders(outputs: Outputs, dataset: Path, prepared: Path | None) -> None:
    """Make the folders for the results of many patients.

    Args:
      dataset: the folder of the patients.
      prepared: the folder for the pairs that are prepared from scans, if there are any.

    Raises:
      InputError: a folder cannot be written, or would be taken for a patient.
    """
    problem = "lies among the patients of --dataset, and would be taken for one"
    folders = [folder for folder in (*outputs.paths, prepared) if folder is not None]
    for folder in folders:
        # Files named after patients may lie beside their folders, but not a folder for each.
        check_outside(folder, dataset, problem, may_be_it=folder is not prepared)
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: {error}; expected a folder to write in") from error
        check_output(folder / "patient.nii.gz")
