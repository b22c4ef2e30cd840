from pipelines.runtime.text_table import format_table


def test_the_first_column_is_aligned_to_the_left_and_all_others_to_the_right():
    lines = format_table(["net", "top-1"], [["T3D", "0.5"], ["DenseNet3D", "0.25"]])
    assert lines == ["net         top-1", "T3D           0.5", "DenseNet3D   0.25"]


def test_a_table_without_rows_is_its_header():
    assert format_table(["net", "top-1"], []) == ["net  top-1"]
