"""The answers of readers: what is read, counted, and refused."""

import math

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from msseg_jax.cli.main import main
from msseg_jax.evaluation.answers import COLUMNS, count_answers, read_answers, write_answers
from msseg_jax.system.errors import InputError
from msseg_jax.volumes.layout import CONSENSUS

HEADING = ",".join(f'"{name}"' for name in COLUMNS)


def line(patient, label, mm3, answer, kind="new", note=""):
    cells = [patient, label, kind, label, mm3, 1.5, -2, 3, 0.7, answer, note]
    return ",".join('"{}"'.format(str(cell).replace('"', '""')) for cell in cells)


def save(path, *lines):
    path.write_text("\n".join([HEADING, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    save(
        tmp_path / "anna_answers.csv", line("anna", 1, 250, "true", note='not, "sure"'),
        line("anna", 2, 20, "false"), line("anna", 3, 15, "unsure"),
        line("anna", 4, 40, "true", kind="enlarging"),
    )  # fmt: skip
    save(tmp_path / "nan_answers.csv", line("nan", 1, 100, "true"), line("nan", 2, 12, ""))
    (tmp_path / "lesions.csv").write_text("other")
    return tmp_path


def test_answers_are_counted_by_class_volume_and_patient(folder):
    answers = read_answers(folder)
    assert answers["note"][0] == 'not, "sure"'
    counts = count_answers(answers).set_index(["class", "group"])
    new = counts.loc["new"]
    assert new.loc["all"].tolist() == [5, 2, 1, 1, 1, 2 / 3]
    assert new.loc["0 to 30 mm3", ["lesions", "true", "false", "unanswered"]].tolist() == [
        3,
        0,
        1,
        1,
    ]
    assert new.loc["100 to 300 mm3", "true"] == 2, "a volume of 100 belongs here"
    assert new.loc["patient nan", ["lesions", "true"]].tolist() == [2, 1]
    assert counts.loc[("enlarging", "all"), "right"] == 1


def test_guarded_text_is_read_as_it_was_and_written_guarded(tmp_path):
    save(tmp_path / "a_answers.csv", line("'=1+1", 1, 250, "true", note="'-- unclear"))
    answers = read_answers(tmp_path)
    assert answers["patient"].tolist() == ["=1+1"]
    assert answers["note"].tolist() == ["-- unclear"]
    write_answers(answers, count_answers(answers), tmp_path / "out")
    written = pd.read_csv(tmp_path / "out" / "answers.csv")
    assert written["patient"].tolist() == ["'=1+1"]
    assert written["note"].tolist() == ["'-- unclear"]


def test_an_output_that_cannot_be_written_is_named_first(folder, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    assert main(["evaluate", f"--answers={folder}", f"--output={file}"]) == 1
    error = capsys.readouterr().err
    assert f"{file}: nothing can be written into this folder" in error
    assert file.read_text() == "mine"


def test_a_second_save_of_the_browser_is_not_ignored(folder):
    save(folder / "anna_answers (1).csv", line("anna", 1, 250, "false"))
    with pytest.raises(InputError, match="same patient, 'anna'"):
        read_answers(folder)


def test_a_table_without_lesions_gives_columns_and_no_rows(tmp_path):
    counts = count_answers(read_answers(save(tmp_path / "a_answers.csv")))
    assert len(counts) == 0
    assert "right" in counts


def test_a_share_without_answers_is_not_a_number(tmp_path):
    file = save(tmp_path / "a_answers.csv", line("a", 1, 10, "unsure"))
    assert all(math.isnan(share) for share in count_answers(read_answers(file))["right"])


def test_the_command_writes_both_tables(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["evaluate", f"--answers={folder}", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "67 %" in printed
    assert f"tables: {out} (2 patients)" in printed
    assert len(pd.read_csv(out / "answers.csv")) == 6
    assert "unanswered" in pd.read_csv(out / "answer_counts.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{HEADING}\n{line('a', 1, 10, 'maybe')}\n", "answer is 'maybe'; expected true, false"),
        (f"{HEADING}\n{line('a', 1, 'big', 'true')}\n", "volume_mm3 is 'big'; expected a number"),
        (f"{HEADING}\n{line('a', 0, 10, 'true')}\n", "lesion is '0'; expected 1 to 1000000"),
        (f"{HEADING}\n{line('a', 1.7, 10, 'true')}\n", "lesion is '1.7'; expected a whole number"),
        (f"{HEADING}\n{line('a', 'inf', 10, 'true')}\n", "lesion is 'inf'; expected a number"),
        (f"{HEADING}\n{line('a', 1e30, 10, 'true')}\n", "expected 1 to 1000000"),
        (f"{HEADING}\n{line('a', 1, -5, 'true')}\n", "volume_mm3 is '-5'; expected more than 0"),
        (f"{HEADING}\n{line('a', 1, 10, 'true', kind='odd')}\n", "class is 'odd'; expected new"),
        (f"{HEADING}\n{line('../a', 1, 10, 'true')}\n", "patient is '../a'; expected a name"),
        (f"{HEADING}\n{line('..', 1, 10, 'true')}\n", "patient is '..'; expected a name"),
        (
            f"{HEADING}\n{line('a', 1, 10, 'true')}\n{line('a', 1, 10, 'false')}\n",
            "label is '1'; expected a row for each lesion, and it has several",
        ),
        ("patient,answer\na,true\n", "lacks the columns lesion, class"),
        ("", "cannot be read"),
        ('"', "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_of_answers_is_refused(tmp_path, content, message):
    file = tmp_path / "a_answers.csv"
    file.write_text(content)
    with pytest.raises(InputError, match="a_answers") as error:
        read_answers(tmp_path)
    assert message in str(error.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "a_answers.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_answers(tmp_path / "a_answers.csv")


def test_two_files_for_one_patient_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="no file in it"):
        read_answers(tmp_path)
    for name in ("a", "b"):
        save(tmp_path / f"{name}_answers.csv", line("anna", 1, 10, "true"))
    with pytest.raises(InputError, match="same patient, 'anna'"):
        read_answers(tmp_path)


def save_numbered(path, labels):
    numbers = np.zeros((8, 9, 10), np.uint16)
    for label in labels:
        numbers[label : label + 1, 2:5, 3:6] = label
    nib.save(nib.Nifti1Image(numbers, np.diag([1.0, 2.0, 1.5, 1.0])), path)


@pytest.fixture
def judged(folder):
    """Return a folder of answers whose lesions have the volume of those of `save_numbered`."""
    for name in ("anna", "nan"):
        file = folder / f"{name}_answers.csv"
        table = pd.read_csv(file, keep_default_na=False)
        table.assign(volume_mm3=27.01).to_csv(file, index=False)
    return folder


def test_a_table_that_a_spreadsheet_has_saved_is_read(tmp_path):
    row = line("a", 1, 10, "TRUE ")
    read = read_answers(save(tmp_path / "a_answers.csv", row, "," * (len(COLUMNS) - 1)))
    assert read["answer"].tolist() == ["true"]


def test_a_mask_of_another_prediction_and_a_used_folder_are_refused(judged, tmp_path, capsys):
    marked, out = tmp_path / "marked", tmp_path / "out"
    marked.mkdir()
    save_numbered(marked / "nan_lesions.nii.gz", (1, 2))
    save_numbered(marked / "anna_lesions.nii.gz", (1, 2, 3, 4))
    flags = [f"--answers={judged}", f"--marked={marked}", f"--output={out}"]
    table = pd.read_csv(judged / "anna_answers.csv")
    table.loc[1, "volume_mm3"] = 54
    table.to_csv(judged / "anna_answers.csv", index=False)
    assert main(["evaluate", *flags]) == 1
    assert "the lesion with the value 2 has 27 mm3, and 54 mm3 in" in capsys.readouterr().err
    assert not out.exists()
    (out / "reference" / "old").mkdir(parents=True)
    assert main(["evaluate", *flags]) == 1
    assert "reference exists and is not empty" in capsys.readouterr().err


def test_true_lesions_become_a_reference_that_scores_other_masks(judged, tmp_path):
    marked, out = tmp_path / "marked", tmp_path / "out"
    marked.mkdir()
    save_numbered(marked / "anna_lesions.nii.gz", (1, 2, 3, 4))
    save_numbered(marked / "nan_lesions.nii.gz", (1, 2))
    flags = [f"--answers={judged}", f"--marked={marked}", f"--output={out}"]
    assert main(["evaluate", *flags]) == 0
    reference = np.asarray(nib.load(out / "reference" / "anna" / CONSENSUS).dataobj)
    # Lesion 1 is true; 2 is false, 3 unsure, and 4 is true but enlarging.
    assert np.unique(np.argwhere(reference)[:, 0]).tolist() == [1]
    nib.save(nib.load(out / "reference" / "anna" / CONSENSUS), marked / "anna.nii.gz")
    nib.save(nib.load(out / "reference" / "nan" / CONSENSUS), marked / "nan.nii.gz")
    scores = ["--no_report", f"--output={tmp_path / 'scores'}"]
    where = [f"--reference={out / 'reference'}", f"--prediction={marked}"]
    assert main(["evaluate", *where, *scores]) == 0
    table = pd.read_csv(tmp_path / "scores" / "scores.csv", keep_default_na=False)
    assert table.patient.tolist() == ["anna", "nan"]
    assert table.Dice.astype(float).tolist() == [1, 1]


def test_a_numbered_mask_that_does_not_fit_the_answers_is_refused(judged, tmp_path, capsys):
    marked, out = tmp_path / "marked", tmp_path / "out"
    marked.mkdir()
    save_numbered(marked / "anna_lesions.nii.gz", (1, 2, 4))
    flags = [f"--answers={judged}", f"--marked={marked}", f"--output={out}"]
    assert main(["evaluate", *flags]) == 1
    error = capsys.readouterr().err
    assert "anna_lesions.nii.gz: has no lesion with the value 3" in error
    assert "nan_lesions.nii.gz" in error
    assert not out.exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--answers=a", "--reference=b"],
        ["--reference=a"],
        ["--answers=a", "--no_report"],
        ["--marked=a", "--reference=b", "--prediction=c"],
    ],
)
def test_flags_that_do_not_fit_together_are_refused(flags, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", *flags, f"--output={tmp_path / 'out'}"])
    assert "--answers" in capsys.readouterr().err
