"""Lists and CSV files are read as people and spreadsheets write them."""

import pytest

from t3d_core.datasets.annotation_files import read_csv_rows, read_interval, read_lines


def write(folder, data):
    path = folder / "list.txt"
    path.write_bytes(data)
    return path


def test_lines_lose_mark_line_ends_and_blanks_and_tell_their_number(tmp_path):
    path = write(tmp_path, b"\xef\xbb\xbffirst 1 \r\n\r\n  \n\xff second\n")
    assert list(read_lines(path)) == [(f"{path}, line 1", "first 1"), (f"{path}, line 4", "\udcff second")]


def test_rows_are_read_by_column_name_whatever_the_order_and_the_line_ends(tmp_path):
    path = write(tmp_path, b'\xef\xbb\xbfb, a\r\n1,"x, y"\r\n\r\n\xff,3\r\n')
    rows = [({"b": "1", "a": "x, y"}, 2), ({"b": "\udcff", "a": "3"}, 4)]
    assert list(read_csv_rows(path, required=["a"])) == [(f"{path}, line {number}", row) for row, number in rows]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1: no column 'a' among the columns"),
        (b"b\n1\n", r"line 1: no column 'a' among the columns \['b'\]"),
        (b"a,b\n1\n", "line 2: 1 values for 2 columns"),
        (b"a\n" + b"x" * 200_000, "line 2: field larger than"),
    ],
)
def test_a_csv_of_another_form_is_refused_with_its_line(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        list(read_csv_rows(write(tmp_path, data), required=["a"]))


@pytest.mark.parametrize("read", [read_lines, lambda path: read_csv_rows(path, required=())])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(ValueError, match=r"absent\.csv' is not a file"):
        list(read(tmp_path / "absent.csv"))


def interval(start, end):
    return read_interval({"from": start, "to": end}, where="line 7", start="from", end="to")


def test_intervals_may_have_parts_of_seconds_and_may_be_missing():
    assert interval(" 17", "27.5 ") == (17.0, 27.5)
    assert interval("", " ") is None
    assert read_interval({}, where="", start="from", end="to") is None


@pytest.mark.parametrize(
    "ends", [("1", ""), ("", "1"), ("a", "2"), ("2", "2"), ("-1", "2"), ("0", "inf"), ("nan", "2")]
)
def test_ends_that_make_no_interval_are_refused_with_their_line(ends):
    with pytest.raises(ValueError, match="line 7: from"):
        interval(*ends)
