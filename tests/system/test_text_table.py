from msseg_jax.system.text_table import text_table


def test_columns_are_as_wide_as_their_longest_cell_and_lines_end_without_spaces():
    rows = [("name", "mm3", "note"), ("anna", "5", ""), ("b", "12345", "x")]
    assert text_table(rows, "<><") == "name    mm3  note\nanna      5\nb     12345  x"


def test_columns_have_at_least_the_minimum_widths():
    assert text_table([("a", "1", "z")], "<><", (3, 2)) == "a     1  z"
