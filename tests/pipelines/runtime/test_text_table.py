"""Tables for a terminal: alignment, with a header and without."""

from pipelines.runtime.text_table import format_table


def test_the_first_column_is_to_the_left_and_numbers_are_to_the_right():
    assert format_table(["case", "n"], [["a", "10"], ["longer", "2"]]) == ["case     n", "a       10", "longer   2"]


def test_columns_are_aligned_as_asked_without_spaces_at_the_end():
    assert format_table(None, [["a", "1", "yes"], ["bb", "20", ""]], align="<><") == ["a    1  yes", "bb  20"]


def test_a_table_without_rows_is_its_header():
    assert format_table(["case", "n"], []) == ["case  n"]
