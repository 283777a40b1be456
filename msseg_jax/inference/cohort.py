"""Write what was found in all patients of a folder: two tables, and a page that links the reports.

lesions.csv    one row per lesion, with the columns of `lesion_table`
patients.csv   one row per patient
index.html     the same for reading
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from msseg_jax.configuration.targets import CHANGES, ENLARGING, VANISHED
from msseg_jax.inference import lesion_table
from msseg_jax.inference.outputs import Outputs
from msseg_jax.inference.record import PredictionRecord, earlier_record, record_file
from msseg_jax.report.page import PAGE_START, write_page
from msseg_jax.system.errors import InputError
from msseg_jax.system.tables import write_table

# The columns of other classes in patients.csv, by the name of the class.
OTHERS = {CHANGES[ENLARGING]: "enlarging", CHANGES[VANISHED]: "vanished"}
COLUMNS = (
    "patient", "status", "lesions", "volume_mm3",
    *(column for one in OTHERS.values() for column in (one, f"{one}_mm3")),
    "warnings", "reason", "seconds", "finished_at",
)  # fmt: skip
# How the files begin. They tell them from files of other programs and commands.
LESIONS_START = "patient,lesion,class,label,"
PATIENTS_START = "patient,status,lesions,"
SEPARATOR = " | "  # between the warnings of a patient
DONE, FAILED, NOT_REACHED = "done", "failed", "not reached"  # values of `status`
COUNTS = ("lesions", *OTHERS.values())  # columns with whole numbers, which may be missing


def cohort_files(folder: Path) -> tuple[Path, Path, Path]:
    """Return the paths of both tables and of the page in the folder of the masks."""
    return folder / "lesions.csv", folder / "patients.csv", folder / "index.html"


def check_cohort(names: Iterable[str], outputs: Outputs) -> None:
    """Check that no file would be written twice, and that no file of others would be replaced.

    Args:
      names: the patients.
      outputs: the folders of the results.

    Raises:
      InputError: a folder has the place of a table, two patients have an output with the same
        path, or a file of another program has the name of a table or of the page.
    """
    tables = cohort_files(outputs.mask)
    for folder in outputs.paths:
        place = folder.resolve()
        if any(table.resolve() in (place, *place.parents) for table in tables):
            raise InputError(
                f"{folder}: a table or the page of all patients has this place, so it cannot be a "
                "folder of results. Choose another folder."
            )
    owners: dict[Path, str] = dict.fromkeys(tables, "")
    for name in names:
        files = outputs.of(name)
        for path in (*files.paths, record_file(files.mask)):
            other = owners.setdefault(path, name)
            if other != name:
                whose = f"of the patient {other!r}" if other else "of all patients together"
                raise InputError(
                    f"{path}: would be a result of the patient {name!r} and one {whose}. Expected "
                    "different names. Rename a patient, or write --report to another folder."
                )
    for path, beginning in zip(tables, (LESIONS_START, PATIENTS_START, PAGE_START), strict=True):
        if path.exists() and not _begins_with(path, beginning):
            raise InputError(
                f"{path}: is a file of another program, or of another command. Expected no file, "
                "or one of an earlier prediction, which would be replaced. Choose another "
                "--output, or move the file."
            )


def _begins_with(path: Path, beginning: str) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(beginning)) == beginning.encode()
    except OSError:  # such as a folder
        return False


def write_cohort(
    outputs: Outputs, done: list[str], failures: dict[str, str], not_reached: Sequence[str] = ()
) -> Path | None:
    """Write the tables and the page. Return the path of the page.

    If no patient has results, nothing is written, and None is returned. So a command that fails
    completely, for example because its options are new, does not replace earlier tables.

    Args:
      outputs: the folders of the results.
      done: the patients with results, from this run or an earlier one.
      failures: {patient: why it has no results}. A patient whose table cannot be read is added.
      not_reached: patients that an interrupted run has not reached.
    """
    rows, tables, links = [], [], {}
    for name in done:
        files = outputs.of(name)
        assert files.table is not None  # `of` adds it
        try:
            record = earlier_record(record_file(files.mask))
            table = pd.read_csv(files.table, dtype={"patient": str})
            if list(table.columns) != ["patient", *lesion_table.COLUMNS]:
                raise ValueError("it has other columns")
        except (OSError, ValueError, InputError) as error:
            failures[name] = (
                f"{files.table}: cannot be read ({error}). Use --overwrite to predict the patient "
                "again."
            )
            continue
        assert record is not None  # each patient that is done has one
        rows.append(_row(name, record))
        report = record.outputs.get("report", "")
        links[name] = quote(report) if (outputs.mask / report).is_file() else ""
        # A patient may be called "nan", which pandas reads as a missing value.
        tables.append(table.assign(patient=name))
    if not tables:
        return None
    lesions_file, patients_file, page = cohort_files(outputs.mask)
    rows += [
        {"patient": name, "status": FAILED, "reason": reason} for name, reason in failures.items()
    ]
    rows += [{"patient": name, "status": NOT_REACHED} for name in not_reached]
    patients = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COUNTS, "Int64"))
    write_table(lesions_file, pd.concat(tables), float_format=lesion_table.NUMBERS)
    write_table(patients_file, patients, float_format=lesion_table.NUMBERS)
    shown = patients[patients["status"] == DONE].sort_values("volume_mm3", ascending=False)
    write_page(
        page, "index.html", patients=shown.to_dict("records"), links=links, failures=failures,
        not_reached=len(not_reached),
        with_others=bool(patients[list(OTHERS.values())].notna().any(axis=None)),
    )  # fmt: skip
    return page


def _row(name: str, record: PredictionRecord) -> dict:
    """Return the row of a patient that is done."""
    row = {
        "patient": name, "status": DONE, "lesions": record.lesions,
        "volume_mm3": record.volume_mm3, "warnings": SEPARATOR.join(record.warnings),
        "seconds": record.seconds, "finished_at": record.finished_at,
    }  # fmt: skip
    for kind, one in record.other_lesions.items():
        row |= {OTHERS[kind]: one.lesions, f"{OTHERS[kind]}_mm3": one.volume_mm3}
    return row
