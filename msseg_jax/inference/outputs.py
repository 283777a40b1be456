"""Paths of the results of a prediction, and checks of these paths."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from msseg_jax.system.errors import InputError
from msseg_jax.system.paths import check_output, check_outside, has_suffix
from msseg_jax.volumes.names import LESIONS, SUFFIXES, stem

# Suffix added to the name of --output for the mask on the grid of a prepared pair.
IN_MIDDLE = "_on_middle_space"
ENDINGS = {"report": ".html", "table": ".csv"}  # of files that are no images


@dataclass(frozen=True)
class Outputs:
    """Paths of the results: files for one pair, existing folders for many."""

    mask: Path
    probability: Path | None = None
    report: Path | None = None
    uncertainty: Path | None = None  # spread of the probabilities of an ensemble
    in_middle: Path | None = None  # mask on the pair's grid, if `mask` is on a scanner's
    changes: Path | None = None  # label map of new, enlarging, and vanished or shrunk lesions
    lesions01: Path | None = None  # mask of all lesions at the first visit
    lesions02: Path | None = None  # mask of all lesions at the second visit
    table: Path | None = None  # table of the lesions
    numbered: Path | None = None  # mask in which lesion n has the value n

    @property
    def by_kind(self) -> dict[str, Path]:
        """The paths that are not None, by the name of their field."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: path for name, path in found.items() if path is not None}

    @property
    def paths(self) -> list[Path]:
        """The paths that are not None."""
        return list(self.by_kind.values())

    @property
    def to_open(self) -> tuple[str, Path]:
        """The kind and path of the file to open first: the report if there is one, or the mask."""
        return ("mask", self.mask) if self.report is None else ("report", self.report)

    def with_tables(self) -> "Outputs":
        """Return these paths of one patient, and next to the mask a table and a numbered mask."""
        name = stem(self.mask) + LESIONS
        table, numbered = (
            self.mask.with_name(name + ending) for ending in (ENDINGS["table"], SUFFIXES[0])
        )
        return replace(self, table=table, numbered=numbered)

    def of(self, patient: str) -> "Outputs":
        """Return the paths of the files of one patient in these folders."""
        files = {
            kind: folder / (patient + ENDINGS.get(kind, SUFFIXES[0]))
            for kind, folder in self.by_kind.items()
        }
        return Outputs(**files).with_tables()


def check_places(outputs: Outputs, prepared: Path | None) -> None:
    """Raise InputError if two outputs have the same path, or one lies in the folder of --prepare.

    Args:
      prepared: the folder of --prepare, or None.
    """
    places: dict[Path, str] = {}
    for name, path in (
        ("--output", outputs.mask), ("--probability", outputs.probability),
        ("--uncertainty", outputs.uncertainty),
        (f"the mask on the prepared pair's grid (--output with {IN_MIDDLE})", outputs.in_middle),
        ("--changes", outputs.changes), ("--lesions01", outputs.lesions01),
        ("--lesions02", outputs.lesions02),
        (f"the table of the lesions (--output with {LESIONS})", outputs.table),
        (f"the numbered mask (--output with {LESIONS})", outputs.numbered),
    ):  # fmt: skip
        if path is not None and (other := places.setdefault(path.resolve(), name)) != name:
            raise InputError(f"{name} is {path}, the same as {other}; expected different paths")
    for path in outputs.paths:
        if prepared is not None:
            problem = (
                f"lies in {prepared}, the folder of the prepared pair, in which nothing else may be"
            )
            check_outside(path, prepared, problem)


def check_files(outputs: Outputs, inputs: Iterable[Path], prepared: Path | None) -> None:
    """Raise InputError if an output of one pair cannot be written, or would replace an input.

    Args:
      outputs: the files to write.
      inputs: the files and folders to read.
      prepared: the folder to create for the pair if it is prepared from scans, or None.
    """
    places = [path.resolve() for path in inputs]
    check_writable(outputs)
    for output in outputs.paths:
        if output.resolve() in places:
            raise InputError(
                f"{output}: is an input, so it cannot be an output. Choose another output."
            )
    for path in places:
        if prepared is not None:
            problem = f"is an input, but lies in {prepared}, the folder that --prepare creates"
            check_outside(path, prepared, problem)


def check_writable(outputs: Outputs) -> None:
    """Raise InputError if a file cannot be written, for example because its name is too long."""
    for kind, path in outputs.by_kind.items():
        check_output(path, (ENDINGS[kind],) if kind in ENDINGS else SUFFIXES)


def make_folders(outputs: Outputs, dataset: Path, prepared: Path | None) -> None:
    """Create the folders for the results of many patients.

    Args:
      outputs: the folders.
      dataset: the folder of the patients.
      prepared: the folder for pairs that are prepared from scans, or None.

    Raises:
      InputError: a folder is not writable, or would be read as a patient of `dataset`.
    """
    problem = "lies among the patients of --dataset, and would be read as a patient"
    folders = [folder for folder in (*outputs.paths, prepared) if folder is not None]
    for folder in folders:
        if has_suffix(folder, (*SUFFIXES, *ENDINGS.values())) and not folder.is_dir():
            raise InputError(
                f"{folder}: has the name of a file, but with --dataset a folder is expected. Name "
                "a folder."
            )
        # Output files may lie next to the folders of the patients. Prepared pairs are folders, and
        # would look like patients there.
        check_outside(folder, dataset, problem, may_be_it=folder is not prepared)
    for folder in folders:
        check_output(folder / "patient.nii.gz", SUFFIXES)
