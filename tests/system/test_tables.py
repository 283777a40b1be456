"""Tables for spreadsheets: text that they would run is guarded, and can be read back."""

import pandas as pd
import pytest

from msseg_jax.system.tables import without_guard, write_table

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "'=1", "''-x"]
PLAIN = ["anna", "", "a=b", "1-2", "'quoted' word", "x y"]


@pytest.mark.parametrize("text", [*FORMULAS, *PLAIN])
def test_text_comes_back_as_it_was_and_no_formula_stands_in_the_file(tmp_path, text):
    file = tmp_path / "table.csv"
    write_table(file, pd.DataFrame({"patient": [text, "b"], "mm3": [-2.5, 1.0]}))
    table = pd.read_csv(file, keep_default_na=False)
    written = table["patient"][0]
    assert not written.startswith(("=", "+", "-", "@", "\t"))
    assert without_guard(written) == text
    assert (written == text) == (text in PLAIN)
    assert table["mm3"].tolist() == [-2.5, 1.0], "numbers may begin with a minus"


def test_a_carriage_return_does_not_end_a_row(tmp_path):
    write_table(tmp_path / "table.csv", pd.DataFrame({"patient": ["a\rb"], "mm3": [1.0]}))
    assert (tmp_path / "table.csv").read_bytes() == b"patient,mm3\na\\rb,1.0\n"


def test_whole_numbers_that_may_be_missing_stay_whole(tmp_path):
    file = tmp_path / "table.csv"
    table = pd.DataFrame({"right": [3, None], "note": [None, "=1"]}).astype({"right": "Int64"})
    write_table(file, table)
    assert file.read_text().splitlines() == ["right,note", "3,", ",'=1"]
