"""The record of a predicted patient, next to its mask: what its results were made from.

A later run with `--dataset` reads it to decide whether the patient is done, and to list all
patients.
"""

import hashlib
import os
import platform
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
from pydantic import NonNegativeFloat, NonNegativeInt, model_validator

from msseg_jax import __version__
from msseg_jax.configuration.options import Options
from msseg_jax.configuration.section import Section, added_later, setting
from msseg_jax.configuration.targets import CHANGES, NEW
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.outputs import ENDINGS, Outputs
from msseg_jax.inference.prediction import Prediction
from msseg_jax.system.atomic import write_beside
from msseg_jax.system.errors import InputError
from msseg_jax.system.json_files import read_json
from msseg_jax.volumes.layout import Patient
from msseg_jax.volumes.names import SUFFIXES, stem

PROGRAM = "msseg_jax"
FORMAT = 1  # version of the record; increase it when the same input would give other results
WITHOUT_EFFECT = ("batch_size",)  # options that affect only speed and memory
ADDED_LATER = added_later(Options)  # options that older records lack, and the values they had


class NetworkRecord(Section):
    """Record of one network."""

    source: str
    checkpoint: str
    sha256: str


class FileRecord(Section):
    """Record of one image that was read."""

    path: str
    sha256: str | None  # None for an image that was not read from a file


class ClassRecord(Section):
    """Number and volume of the lesions of one class."""

    lesions: NonNegativeInt
    volume_mm3: NonNegativeFloat


class PredictionRecord(Section):
    """The content of <patient>.json."""

    format: int
    made_by: dict[str, str]  # versions of this program and of the main libraries
    patient: str
    finished: bool  # False while the results are written
    networks: tuple[NetworkRecord, ...]
    options: dict[str, int | float | None]
    inputs: dict[str, FileRecord]  # by their role, such as 'first visit'
    scans: dict[str, Any] | None  # what the pair was prepared from; None without --prepare
    outputs: dict[str, str]  # by their kind, relative to the folder of the record
    lesions: NonNegativeInt | None = None  # new ones
    volume_mm3: NonNegativeFloat | None = None
    other_lesions: dict[str, ClassRecord] = setting({}, "lesions of other classes", later=True)
    warnings: tuple[str, ...] = ()
    seconds: float | None = None  # duration of preparation, prediction and writing
    finished_at: str | None = setting(None, "date and time, with the time zone", later=True)

    @model_validator(mode="after")
    def _check_results(self) -> Self:
        if self.finished and (self.lesions is None or self.volume_mm3 is None):
            raise ValueError("finished is true, but lesions or volume_mm3 is missing")
        return self

    def changes(self, now: "PredictionRecord") -> list[str]:
        """Return how the inputs, networks and options of another record differ, as phrases."""
        found = []
        if self.format != now.format:
            found.append("another version of this program made it")
        if sorted(one.sha256 for one in self.networks) != sorted(
            one.sha256 for one in now.networks
        ):
            found.append("the networks are different")
        options, later = ADDED_LATER | self.options, ADDED_LATER | now.options
        for name in sorted(options.keys() | later.keys()):
            before, after = options.get(name), later.get(name)
            if before != after and name not in WITHOUT_EFFECT:
                found.append(f"{name} was {_said(before)} and is {_said(after)}")
        if self.scans != now.scans:
            found.append("the scans, or the flags for preparing them, are different")
        for role in sorted(self.inputs.keys() | now.inputs.keys()):
            before_file, after_file = self.inputs.get(role), now.inputs.get(role)
            if before_file is None or after_file is None:
                found.append(f"there {'is now a' if after_file else 'was a'} {role}")
            elif before_file.sha256 != after_file.sha256:
                found.append(f"the {role} has changed")
        return found


def record_file(mask: Path) -> Path:
    """Return the path of the record that belongs to a mask."""
    return mask.with_name(stem(mask) + ".json")


def new_record(
    ensemble: Ensemble,
    options: Options,
    patient: Patient,
    outputs: Outputs,
    scans: dict[str, Any] | None = None,
) -> PredictionRecord:
    """Return the record of a patient that is going to be predicted.

    Args:
      scans: what a prepared pair was prepared from; None for a pair that was given.
    """
    files = {
        "first visit": patient.time01,
        "second visit": patient.time02,
        "brain mask": patient.brain_mask,
    }
    folder = outputs.mask.parent
    return PredictionRecord(
        format=FORMAT,
        made_by={
            PROGRAM: __version__,
            "python": platform.python_version(),
            "jax": jax.__version__,
            "numpy": np.__version__,
        },
        patient=patient.name,
        finished=False,
        networks=tuple(
            NetworkRecord(
                source=_as_text(member.network.source),
                checkpoint=f"{member.network.kind}, step {member.network.step}",
                sha256=digest,
            )
            for member, digest in zip(ensemble.members, ensemble.digests, strict=True)
        ),
        options=dict(options),
        inputs={role: _file_record(path) for role, path in files.items() if path is not None},
        scans=scans,
        outputs={kind: _relative(path, folder) for kind, path in outputs.by_kind.items()},
    )


def finished_record(
    begun: PredictionRecord, prediction: Prediction, seconds: float
) -> PredictionRecord:
    """Return the record of a patient after its prediction."""
    delivered = prediction.delivered
    others = {
        name: ClassRecord(
            lesions=len(rows), volume_mm3=round(sum(row["volume_mm3"] for row in rows), 3)
        )
        for name, rows in delivered.rows_by_class.items()
        if name != CHANGES[NEW]
    }
    update = {
        "finished": True,
        "lesions": delivered.count,
        "volume_mm3": round(float(delivered.volume_mm3), 3),
        "other_lesions": others,
        "warnings": tuple(prediction.warnings),
        "seconds": round(seconds, 2),
        "finished_at": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    return begun.model_copy(update=update)


def earlier_record(path: Path, replace: bool = False) -> PredictionRecord | None:
    """Read the record of a patient; None if there is no file.

    Args:
      replace: whether the record is going to be replaced. Then None is returned instead of an
        error if another version of this program wrote it.

    Raises:
      InputError: the file is damaged, or this program did not write it.
    """
    if not path.exists():
        return None
    try:
        content = read_json(path)
    except InputError as error:
        raise InputError(
            f"{error} Or delete it, and add --overwrite to predict the patient again."
        ) from error
    made_by = content.get("made_by") if isinstance(content, dict) else None
    if not isinstance(made_by, dict) or PROGRAM not in made_by:
        raise InputError(
            f"{path}: is a file of another program. Expected no file, or the record of a "
            "prediction, which would be written there. Choose another --output."
        )
    try:
        return PredictionRecord.of(content, "record", complete=True)
    except InputError as error:
        if replace:
            return None
        raise InputError(
            f"{path}: is damaged, or was written by another version of this program ({error}). "
            "Use --overwrite to predict the patient again, or choose another --output."
        ) from error


def write_record(path: Path, record: PredictionRecord) -> None:
    """Write the record of a patient."""
    text = record.model_dump_json(indent=1) + "\n"
    write_beside(path, lambda file: file.write_text(text, encoding="utf-8"))


def check_record_place(outputs: Outputs) -> None:
    """Check the place of the record of a single pair.

    Raises:
      InputError: there is a file of another program, or the record of another mask: those of
        new.nii and new.nii.gz have the same place.
    """
    path = record_file(outputs.mask)
    earlier = earlier_record(path, replace=True)
    if earlier is None:
        return
    other = outputs.mask.parent / earlier.outputs.get("mask", outputs.mask.name)
    if other != outputs.mask and other.is_file():
        raise InputError(
            f"{path}: is the record of {other.name}. Expected no record, or that of "
            f"{outputs.mask.name}, because it and the table would be replaced. Choose another "
            f"name for the mask, or delete {other.name}."
        )


def delete_outdated(earlier: PredictionRecord, now: PredictionRecord, outputs: Outputs) -> None:
    """Delete results of an earlier prediction that a new one would leave behind.

    An old report next to a new mask would show other lesions than the mask. A file is deleted only
    if it has the name of a result of this patient, and was not changed after the earlier record.

    Args:
      earlier: the record of the earlier prediction.
      now: the record of the new one.
      outputs: the paths of the new one.
    """
    folder, patient = outputs.mask.parent, stem(outputs.mask)
    last_s = record_file(outputs.mask).stat().st_mtime
    for kind, place in earlier.outputs.items():
        path = folder / place
        if place in now.outputs.values() or not path.is_file():
            continue
        own = path.name == patient + ENDINGS.get(kind, SUFFIXES[0])
        # A newer file comes from another command, or was changed by hand.
        if own and path.stat().st_mtime <= last_s:
            path.unlink()


def is_done(now: PredictionRecord, earlier: PredictionRecord | None, outputs: Outputs) -> bool:
    """Return whether an earlier run has already made all results that are asked for.

    Args:
      now: the record that would be written.
      earlier: the record that is there.
      outputs: the files that are asked for.

    Raises:
      InputError: there are results from other inputs, networks or options, or from unknown ones.
    """
    there = [path for path in outputs.paths if path.exists()]
    if not there:
        return False
    advice = "Use --overwrite to predict the patient again, or choose another --output."
    if earlier is None:
        raise InputError(
            f"{there[0]}: exists, but there is no record of how it was made "
            f"({record_file(outputs.mask).name}). An earlier version may have written it. {advice}"
        )
    if not earlier.finished:
        return False  # its run was killed
    if changes := earlier.changes(now):
        raise InputError(f"{there[0]}: was made in another way: {'; '.join(changes)}. {advice}")
    are_known = now.outputs.items() <= earlier.outputs.items()
    return are_known and len(there) == len(outputs.paths)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
      InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}). Expected a NIfTI file. Check the "
            "path and the permissions."
        ) from error


def _file_record(path: Path) -> FileRecord:
    # An image that was given in Python as an array has a name that no file has.
    return FileRecord(path=_as_text(path), sha256=file_digest(path) if path.exists() else None)


def _relative(path: Path, folder: Path) -> str:
    try:
        place = Path(os.path.relpath(path, folder))
    except ValueError:  # Windows: another drive
        place = path.resolve()
    return _as_text(place.as_posix())


def _as_text(path: Path | str) -> str:
    """Return a path for a record. On Linux, a path may hold bytes that are no text."""
    return str(path).encode(errors="backslashreplace").decode()


def _said(value: float | None) -> str:
    return "not given" if value is None else f"{value:g}"
