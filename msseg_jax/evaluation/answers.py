"""Count the answers of readers, who marked each lesion of a report as true, false or unsure.

The report of `msseg predict` saves the answers for one pair as CSV. A reader judges only the
lesions that were marked, so the answers say how many of these are right, and not how many were
missed.
"""

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd

from msseg_jax.configuration.targets import CHANGES, ENLARGING, NEW, VANISHED
from msseg_jax.evaluation.predicted import AGREEMENT
from msseg_jax.system.errors import InputError
from msseg_jax.system.tables import without_guard, write_table
from msseg_jax.system.text_table import text_table
from msseg_jax.volumes.layout import CONSENSUS
from msseg_jax.volumes.lesions import CENTRE, voxel_mm3
from msseg_jax.volumes.names import LESIONS
from msseg_jax.volumes.nifti import read_volume, write_volume
from msseg_jax.volumes.volume import Volume

ANSWERS = ("true", "false", "unsure")
SUFFIX = "_answers.csv"
ANSWERS_FILE, COUNTS_FILE = "answers.csv", "answer_counts.csv"  # in the folder of the results
COLUMNS = (
    "patient", "lesion", "class", "label", "volume_mm3", *CENTRE, "mean_probability", "answer",
    "note",
)  # fmt: skip
NUMBERS = ("lesion", "label", "volume_mm3", *CENTRE)  # columns that must hold numbers
EDGES_MM3 = (0.0, 30.0, 100.0, 300.0, 1000.0, float("inf"))
MOST = 10**6  # largest number of a lesion
_EXPECTED = f"expected a table that the report of `msseg predict` saved, NAME{SUFFIX}"


def read_answers(path: Path) -> pd.DataFrame:
    """Read the answers of one report, or of all reports in a folder.

    Returns:
      A row for each lesion, with COLUMNS. `answer` is '' for a lesion without an answer.

    Raises:
      InputError: there are no answers, a file cannot be read or is no such table, or two files
        hold the same patient.
    """
    # A browser that saves a second time calls the file "NAME_answers (1).csv".
    files = sorted(path.glob("*_answers*.csv")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"--answers={path}: no file in it; {_EXPECTED}. Check the path.")
    tables: dict[Path, pd.DataFrame] = {}
    problems = []
    for file in files:
        try:
            tables[file] = _read(file)
        except InputError as error:
            problems.append(str(error))
    owners: dict[str, Path] = {}
    for file, table in tables.items():
        for patient in table["patient"].unique():
            if (other := owners.setdefault(patient, file)) != file:
                problems.append(
                    f"{file} and {other}: hold answers for the same patient, {patient!r}. Expected "
                    "one file for each patient. If they belong to two patients, predict again with "
                    "different names of the masks. Otherwise move one of them to another folder."
                )
    if problems:
        raise InputError("\n".join(problems))
    return pd.concat(tables.values(), ignore_index=True)


def _read(path: Path) -> pd.DataFrame:
    try:
        # "nan" may be the name of a patient, and a note may be anything.
        text = path.read_text(encoding="utf-8-sig")
        table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {_EXPECTED}. Check the path.") from error
    except (OSError, ValueError) as error:  # the errors of pandas are ValueErrors
        raise InputError(f"{path}: cannot be read ({error}); {_EXPECTED}.") from error
    table = table[(table != "").any(axis=1)]  # a spreadsheet may append empty rows
    if missing := [name for name in COLUMNS if name not in table]:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; {_EXPECTED}.")
    raw = table.copy()  # messages quote what the file contains
    for name in ("patient", "note"):
        table[name] = table[name].map(without_guard)
    for name in NUMBERS:
        numbers = pd.to_numeric(table[name], errors="coerce")
        _refuse(path, name, raw[name], ~np.isfinite(numbers), "a number")
        table[name] = numbers
    for name in ("lesion", "label"):
        _refuse(path, name, raw[name], table[name] % 1 != 0, "a whole number")
        _refuse(path, name, raw[name], ~table[name].between(1, MOST), f"1 to {MOST}")
        table[name] = table[name].astype(int)
    _refuse(path, "volume_mm3", raw["volume_mm3"], table["volume_mm3"] <= 0, "more than 0")
    kinds = [CHANGES[number] for number in (NEW, ENLARGING, VANISHED)]
    _refuse(path, "class", raw["class"], ~table["class"].isin(kinds), ", ".join(kinds))
    # A name becomes the name of a file. It must not lead out of the folder.
    is_path = table["patient"].str.contains(r"[/\\]") | table["patient"].isin(["", ".", ".."])
    _refuse(path, "patient", raw["patient"], is_path, "a name without slashes")
    twice = table.duplicated(["patient", "label"])
    _refuse(path, "label", raw["label"], twice, "a row for each lesion, and it has several")
    table["mean_probability"] = pd.to_numeric(table["mean_probability"], errors="coerce")
    answer = table["answer"].str.strip().str.lower()  # a spreadsheet writes TRUE
    known = answer.isin([*ANSWERS, ""])
    _refuse(path, "answer", raw["answer"], ~known, f"{', '.join(ANSWERS)} or nothing")
    return table.assign(answer=answer)[list(COLUMNS)]


def _refuse(path: Path, name: str, values: pd.Series, is_wrong: pd.Series, expected: str) -> None:
    """Raise InputError if there is a wrong value in a column of a table."""
    if is_wrong.any():
        raise InputError(f"{path}: {name} is {values[is_wrong].iloc[0]!r}; expected {expected}.")


def count_answers(answers: pd.DataFrame) -> pd.DataFrame:
    """Count the answers by class, and for each class by volume, by patient, and in all.

    Returns:
      Rows with `class`, `group` ('all', a range of volumes in mm3, or a patient), `lesions`,
      `true`, `false`, `unsure`, `unanswered`, and `right`: the share of the true ones among the
      true and the false ones, NaN if there are none.
    """
    rows = []
    for kind, lesions in answers.groupby("class", sort=False):
        rows.append(_counts(kind, "all", lesions))
        ranges = pd.cut(lesions["volume_mm3"], EDGES_MM3, right=False)
        for interval, part in lesions.groupby(ranges, observed=True):
            rows.append(_counts(kind, _in_words(interval), part))
        for patient, part in lesions.groupby("patient"):
            rows.append(_counts(kind, f"patient {patient}", part))
    names = ["class", "group", "lesions", *ANSWERS, "unanswered", "right"]
    return pd.DataFrame(rows, columns=names)


def _counts(kind: object, group: str, lesions: pd.DataFrame) -> dict:
    counts = {answer: int((lesions["answer"] == answer).sum()) for answer in ANSWERS}
    judged = counts["true"] + counts["false"]
    return {
        "class": kind, "group": group, "lesions": len(lesions), **counts,
        "unanswered": int((lesions["answer"] == "").sum()),
        "right": counts["true"] / judged if judged else float("nan"),
    }  # fmt: skip


def _in_words(interval: pd.Interval) -> str:
    if interval.right == float("inf"):
        return f"{interval.left:g} mm3 or more"
    return f"{interval.left:g} to {interval.right:g} mm3"


def write_answers(answers: pd.DataFrame, counts: pd.DataFrame, output: Path) -> None:
    """Write answers.csv and answer_counts.csv into a folder. Make the folder if needed."""
    output.mkdir(parents=True, exist_ok=True)
    write_table(output / ANSWERS_FILE, answers)
    write_table(output / COUNTS_FILE, counts)


def write_reference(answers: pd.DataFrame, marked: Path, output: Path) -> list[str]:
    """Write the new lesions that a reader found true as reference maps, in the MSSEG-2 layout.

    Lesions that are false, unsure or unanswered are not in the map.

    Args:
      answers: from `read_answers`.
      marked: folder with the numbered masks of the lesions, <patient>_lesions.nii.gz, as `msseg
        predict` wrote them next to the masks.
      output: folder for the maps, OUTPUT/<patient>/ground_truth.nii.gz.

    Returns:
      The patients.

    Raises:
      InputError: the folder has content, or a numbered mask is missing, cannot be read, or has
        other lesions than the answers. No map is written.
    """
    if output.is_dir() and any(output.iterdir()):
        raise InputError(
            f"{output} exists and is not empty. Its maps may come from other answers. Choose "
            "another --output, or move this folder away."
        )
    maps: dict[str, tuple[np.ndarray, Volume]] = {}
    problems = []
    for patient, rows in answers.groupby("patient"):
        path = marked / f"{patient}{LESIONS}.nii.gz"
        try:
            volume = read_volume(path)
        except InputError as error:
            problems.append(str(error))
            continue
        numbers = np.rint(volume.array).astype(np.int64)
        if problem := _mismatch(rows, numbers, voxel_mm3(volume.spacing_mm)):
            problems.append(
                f"{path}: {problem}. Expected the numbered mask of the prediction that the reader "
                "has judged."
            )
            continue
        true = rows[(rows["answer"] == "true") & (rows["class"] == CHANGES[NEW])]["label"]
        maps[str(patient)] = np.isin(numbers, true).astype(np.uint8), volume
    if problems:
        raise InputError("\n".join(problems))
    for patient, (mask, like) in maps.items():
        folder = output / patient
        folder.mkdir(parents=True, exist_ok=True)
        write_volume(folder / CONSENSUS, mask, like)
    return list(maps)


def _mismatch(rows: pd.DataFrame, numbers: np.ndarray, volume_mm3: float) -> str | None:
    """Return why the lesions of a numbered mask are not those of the answers, or None.

    Args:
      rows: the answers for one patient.
      numbers: (D, H, W) int, the numbered mask.
      volume_mm3: volume of a voxel.
    """
    voxels = dict(zip(*np.unique(numbers, return_counts=True), strict=True))
    for row in rows.itertuples():
        if row.label not in voxels:
            return f"has no lesion with the value {row.label}, which the answers name"
        here_mm3 = voxels[row.label] * volume_mm3
        if not math.isclose(here_mm3, row.volume_mm3, rel_tol=AGREEMENT, abs_tol=0.01):
            return (
                f"the lesion with the value {row.label} has {here_mm3:.0f} mm3, and "
                f"{row.volume_mm3:.0f} mm3 in the answers"
            )
    return None


def format_counts(counts: pd.DataFrame) -> str:
    """Return the counts as text."""
    rows: list[tuple[str, ...]] = [
        ("class", "lesions of", "marked", "true", "false", "unsure", "unanswered", "right")
    ]
    for row in counts.to_dict("records"):
        share = row["right"]
        right = "-" if math.isnan(share) else f"{100 * share:.0f} %"
        numbers = (str(row[name]) for name in ("lesions", *ANSWERS, "unanswered"))
        rows.append((row["class"], row["group"], *numbers, right))
    return text_table(rows, "<<>>>>>>")
