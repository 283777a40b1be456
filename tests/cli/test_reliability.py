"""The reliability table in a model file, in the table of lesions, and in the report."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import msseg_jax
from msseg_jax.cli.main import main
from msseg_jax.configuration.targets import CHANGES
from msseg_jax.inference.ensemble import Ensemble
from msseg_jax.inference.lesion_table import COLUMNS
from msseg_jax.models.model_file import read_model_file
from tests.support.runs import models, save_run

TABLE = {
    "above_mm3": [3.0, 5.0, 20.0], "above_probability": [0.5, 0.8],
    "right": [[0, 1], [2, 1], [3, 0]], "marked": [[0, 3], [8, 4], [10, 0]],
    "threshold": 0.5, "min_lesion_mm3": 0.0, "min_peak": 0.0, "flips": 1,
    "pairs": "9 pairs of <two> hospitals.",
}  # fmt: skip
HEADING = "<th>similar ones<br>right</th>"
NOT_STATED = "reliability of the lesions"


def export(*flags):
    return main(["export", *map(str, flags)])


def predict(*flags):
    return main(["predict", *map(str, flags)])


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(TABLE), encoding="utf-8")
    return path


@pytest.fixture
def file(runs, table, tmp_path):
    """Write a model file of one network with the table, and return its path."""
    path = tmp_path / "with_table.safetensors"
    assert export(*models(runs[:1]), "-o", path, "--threshold=0.5", f"--reliability={table}") == 0
    return path


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """Replace the maps of all predictions by known lesions; voxels have 0.8 mm3."""
    segment = Ensemble.segment

    def segmented(ensemble, patient, pair, *others):
        found = segment(ensemble, patient, pair, *others)
        maps = np.zeros_like(found.maps)
        maps[0, 5:8, 5:10, 5:7] = 0.7  # 24 mm3
        maps[0, 5:7, 5:7, 10:12] = 0.9  # 6.4 mm3
        maps[0, 10, 5:10, 10] = 0.95  # 4 mm3
        if len(maps) > 2:
            maps[1, 3:5, 9:11, 13:16] = 0.9  # enlarging, 9.6 mm3
        return replace(found, maps=maps)

    monkeypatch.setattr(Ensemble, "segment", segmented)


def rows_of(html) -> list[list[str]]:
    """Return the cells of the lesion table of a report as text."""
    table = html.partition('<div class="scroll"><table>')[2].partition("</table>")[0]
    rows = re.findall(r"<tr id=.*?</tr>", table, re.DOTALL)
    return [
        [re.sub(r"<.*?>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
        for row in rows
    ]


def report_of(flags, tmp_path, *more) -> str:
    page = tmp_path / "page.html"
    assert predict(*flags, f"--report={page}", *more) == 0
    return page.read_text(encoding="utf-8")


def pair_of(flags):
    return flags[1], flags[3], flags[4].removeprefix("--mask=")


# -------------------------------------------------------------------------------- the model file


def test_a_table_is_stored_and_shown(file, capsys):
    assert read_model_file(file).reliability.model_dump(mode="json") == TABLE
    capsys.readouterr()
    assert export("--show", file) == 0
    text = capsys.readouterr().out
    assert re.search(r"^reliability +7 of 25 marked lesions were right, by", text, re.MULTILINE)
    assert re.search(r"^ +5 to 20 +2 of 8 +1 of 4 +3 of 12$", text, re.MULTILINE)
    assert re.search(r"^ +counted on: 9 pairs of <two> hospitals.$", text, re.MULTILINE)


def test_a_single_file_keeps_its_table_and_several_lose_it(file, runs, tmp_path, caplog):
    again = tmp_path / "again.safetensors"
    assert export(f"--model={file}", "-o", again, "--name=Other") == 0
    assert read_model_file(again).reliability == read_model_file(file).reliability
    assert "left out" not in caplog.text
    assert "does not hold" not in caplog.text
    assert export(f"--model={file}", "-o", again, "--threshold=0.6", "--overwrite") == 0
    assert read_model_file(again).reliability == read_model_file(file).reliability
    assert "options of the new file: threshold is 0.6, and was 0.5 when the lesions" in caplog.text
    both = tmp_path / "both.safetensors"
    flags = [*models([file, runs[1]]), "-o", both, "--threshold=0.5"]
    assert export(*flags) == 0
    assert read_model_file(both).reliability is None
    assert f"reliability table of with_table ({file}) is left out" in caplog.text
    # A table of all networks together is stored.
    table = tmp_path / "table.json"
    assert export(*flags, "--overwrite", f"--reliability={table}") == 0
    assert read_model_file(both).reliability.right == ((0, 1), (2, 1), (3, 0))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threshold": 0.6}, "threshold is 0.5, and was 0.6 when the lesions were counted"),
        ({"min_lesion_mm3": 4}, "min_lesion_mm3 is 0, and was 4 when the lesions were counted"),
        ({"min_peak": 0.8}, "min_peak is 0, and was 0.8 when the lesions were counted"),
        ({"flips": 8}, "flips is 1, and was 8 when the lesions were counted"),
        ({"right": [[0, 4], [2, 1], [3, 0]]}, "reliability.right[0][1] is 4; expected at most 3"),
    ],
)
def test_a_table_that_does_not_hold_or_is_invalid_is_not_stored(
    runs, table, tmp_path, capsys, changed, message
):
    table.write_text(json.dumps(TABLE | changed), encoding="utf-8")
    path = tmp_path / "a.safetensors"
    flags = ["-o", path, "--threshold=0.5", f"--reliability={table}"]
    assert export(*models(runs[:1]), *flags) == 1
    error = capsys.readouterr().err
    assert message in error
    assert str(table) in error
    assert not path.exists()


# --------------------------------------------------------------------------- the table of lesions


def test_each_lesion_has_the_counts_of_lesions_like_it(file, flags):
    found = msseg_jax.find_new_lesions(*pair_of(flags), model=file)
    table = found.lesions
    assert table.volume_mm3.round(1).tolist() == [24.0, 6.4, 4.0]
    # In the bins of the first; all of the size of the second; too few like the third.
    assert table.right.tolist() == [3, 3, pd.NA]
    assert table.of.tolist() == [10, 12, pd.NA]
    assert table.right.dtype == table.of.dtype == "Int64"


def test_without_a_table_or_with_other_options_there_are_no_counts(runs, file, flags):
    pair = pair_of(flags)
    for model, options in (
        (runs[0], {"threshold": 0.5}),
        (file, {"threshold": 0.6}),
        (file, {"min_lesion_mm3": 5.0}),
        (file, {"flips": 2}),
        (msseg_jax.load_model(file, runs[1]), {"threshold": 0.5}),
    ):
        table = msseg_jax.find_new_lesions(*pair, model=model, **options).lesions
        assert table.of.tolist() == [pd.NA] * len(table)
    # These options do not decide which lesions are marked.
    more = {"threshold": 0.5, "batch_size": 1, "overlap": 1}
    assert msseg_jax.find_new_lesions(*pair, model=file, **more).lesions.of[0] == 10


def test_a_table_without_lesions_has_all_columns(file, flags, monkeypatch):
    segment = Ensemble.segment

    def nothing(*given):
        found = segment(*given)
        return replace(found, maps=np.zeros_like(found.maps))

    monkeypatch.setattr(Ensemble, "segment", nothing)
    table = msseg_jax.find_new_lesions(*pair_of(flags), model=file).lesions
    assert len(table) == 0
    assert list(table) == list(COLUMNS)


def test_only_new_lesions_have_counts(small_config, table, flags, tmp_path):
    small_config.model.target_set, small_config.model.targets = "changes", 5
    run = save_run(tmp_path / "changes", small_config)
    file = tmp_path / "changes.safetensors"
    assert export(f"--model={run}", "-o", file, "--threshold=0.5", f"--reliability={table}") == 0
    found = msseg_jax.find_new_lesions(*pair_of(flags), model=file).lesions
    assert found["class"].tolist() == [CHANGES[0]] * 3 + ["enlarging"]
    assert found.of.tolist() == [10, 12, pd.NA, pd.NA]
    html = report_of(flags, tmp_path, f"--model={file}")
    column = 7  # lesion, class, volume, side, slice, centre, probability
    assert [row[column] for row in rows_of(html)] == ["3 of 10", "3 of 12", "-", ""]
    assert "known only for new lesions." in html


# -------------------------------------------------------------------------------------- the report


def test_the_report_states_the_counts_and_what_they_are(file, flags, tmp_path):
    html = report_of(flags, tmp_path, f"--model={file}")
    assert html.count(HEADING) == 1
    assert [row[6] for row in rows_of(html)] == ["3 of 10", "3 of 12", "-"]
    words = " ".join(html.split())
    assert (
        "of 10 marked lesions of this size and probability, 3 were right in scans never used for "
        "training."
    ) in words
    assert "If fewer than 5 were marked, the numbers are those of all marked lesions of" in words
    assert "Counted on: 9 pairs of &lt;two&gt; hospitals." in words
    assert "known only for new lesions" not in words
    assert NOT_STATED not in html


def test_the_report_says_why_there_are_no_counts(runs, file, flags, tmp_path):
    def reason(*more):
        html = report_of(flags, tmp_path, *more)
        assert HEADING not in html
        assert "never used" not in html
        assert len(rows_of(html)) == 3
        found = re.search(rf"{NOT_STATED}</td><td class=\"text\">(.*?)</td>", html)
        return found and found[1]

    assert reason(f"--model={runs[0]}", "--threshold=0.5") is None
    assert reason(f"--model={file}", "--threshold=0.6") == (
        "not stated: threshold is 0.6, and was 0.5 when the lesions were counted"
    )
    assert reason(f"--model={file}", "--flips=2") == (
        "not stated: flips is 2, and was 1 when the lesions were counted"
    )
    assert reason(*models([file, runs[1]]), "--threshold=0.5") == (
        "not stated: the table of a model file does not hold for its mean with another model"
    )
