"""Lists and CSV files are read as people and spreadsheets write them."""

import pytest

from t3d_core.datasets.annotation_files import (
    check_is_text,
    check_same_times,
    read_columns,
    read_csv_rows,
    read_interval,
    read_lines,
)


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
        (b"a,b\n1\n", "line 2: 1 value for 2 columns: fill the empty columns, or leave a separator for each"),
        (b"a\n1,2\n", "line 2: 2 values for 1 column: quote values that hold a comma"),
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


def rows_of(path, **settings):
    return [row for _, row in read_csv_rows(path, **{"required": ["path"], **settings})]


TABLE = "path,label\nv/a.mp4,run\nv/b.mp4,\u00e9t\u00e9\n"
ROWS = [{"path": "v/a.mp4", "label": "run"}, {"path": "v/b.mp4", "label": "\u00e9t\u00e9"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_spreadsheets_of_all_countries_and_systems_are_read(tmp_path, encoding, separator, line_end):
    text = TABLE.replace(",", separator).replace("\n", line_end)
    assert rows_of(write(tmp_path, text.encode(encoding))) == ROWS


@pytest.mark.parametrize(
    "text",
    [
        "path,label\r\nv/a.mp4,run\r\n,\r\n , \r\nv/b.mp4,\u00e9t\u00e9\r\n,,,\r\n",  # rows of empty cells
        "\r\n,,\r\npath,label,,\r\nv/a.mp4,run,,\r\nv/b.mp4,\u00e9t\u00e9\r\n",  # empty columns, and rows without them
        " path , label \n v/a.mp4 ,\trun\nv/b.mp4\u00a0,\u00e9t\u00e9  \n",  # blanks around cells
        'path, label\n"v/a.mp4", "run"\n"v/b.mp4", "\u00e9t\u00e9"\n',  # quotes after blanks
        "sep=;\nPath;LABEL\nv/a.mp4;run\nv/b.mp4;\u00e9t\u00e9\n",  # Excel's first line
        '"sep=;"\npath;label\nv/a.mp4;run\nv/b.mp4;e\u0301te\u0301\n',  # and accents as a Mac writes them
        "path,label\nv/a.mp4,run\n\ufeffpath,label\nv/b.mp4,\u00e9t\u00e9\n",  # two files put together
    ],
)
def test_tables_are_read_as_spreadsheets_write_them(tmp_path, text):
    assert rows_of(write(tmp_path, text.encode())) == ROWS


def test_a_label_may_hold_other_separators(tmp_path):
    assert rows_of(write(tmp_path, b"path;label\na.mp4;run, fast\n")) == [{"path": "a.mp4", "label": "run, fast"}]
    assert rows_of(write(tmp_path, b"path,label\na.mp4,a;b\n")) == [{"path": "a.mp4", "label": "a;b"}]


def test_a_comma_is_a_decimal_point_where_it_does_not_separate_cells(tmp_path):
    path = write(tmp_path, b"path;start\na;1,5\n")
    assert rows_of(path, seconds=["start"]) == [{"path": "a", "start": "1.5"}]
    assert rows_of(path) == [{"path": "a", "start": "1,5"}]
    path = write(tmp_path, b'path,start\na,"1,5"\n')
    assert rows_of(path, seconds=["start"]) == [{"path": "a", "start": "1,5"}]


def test_all_bad_rows_are_reported_at_once_with_their_lines(tmp_path):
    path = write(tmp_path, b"sep=,\npath,label\na\nb,x\nc,d,e\n")
    with pytest.raises(ValueError, match=r"^2 errors: .*line 3: 1 value for 2 columns.*line 5: 3 values"):
        rows_of(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04rest", "is a spreadsheet or an archive, not text: export the table as CSV"),
        ("path\n".encode("utf-16-le"), "holds zero bytes.*save it as UTF-8"),
        ("path\na\n".encode("utf-16")[:-1], "truncated data.*save the file as UTF-8"),
        (b"path,label,Path\n", "two columns 'path'"),
        (b'path,label\n"a,x\nb,y\n', "line 2: the cell of column 'path' holds a line break, after which comes 'b,y'"),
        (b'path,label\na,x\nb,"y\nc,z\n', "line 3: the cell of column 'label' holds a line break.*: close its quote"),
        (b'path,label\r\na,"x\r\nb,"y\r\nc,z\r\n', "line 2: the cell of column 'label' .* comes 'b,y"),
        (b'path,label\na,"\nx"\n', "line 2: the cell of column 'label' holds a line break"),
    ],
)
def test_what_is_no_table_is_refused_with_the_cure(tmp_path, data, message):
    path = write(tmp_path, data)
    with pytest.raises(ValueError, match=message):
        rows_of(path)


def test_lists_are_read_in_utf16_and_without_the_separators_of_a_spreadsheet(tmp_path):
    path = write(tmp_path, "first,,\r\n,,\r\ncafe\u0301;\r\n".encode("utf-16"))
    assert [line for _, line in read_lines(path)] == ["first", "caf\u00e9"]


def test_a_cell_that_is_not_utf8_is_refused_with_its_row_and_the_cure():
    check_is_text("caf\u00e9", name="label", where="line 2")
    with pytest.raises(ValueError, match=r"line 2: label 'caf\\xe9' is not UTF-8: save the file as UTF-8"):
        check_is_text("caf\udce9", name="label", where="line 2")


def test_the_columns_are_those_of_the_separator_that_shows_the_wanted_ones(tmp_path):
    assert read_columns(write(tmp_path, b"x,y;ID;z\n1,2;3;4\n"), wanted=["id"]) == ("x,y", "id", "z")


def test_a_line_break_behind_the_last_line_of_a_cell_is_a_blank_and_later_rows_keep_their_lines(tmp_path):
    path = write(tmp_path, b'path,label\na,"x\n"\nb,y\n')
    rows = [("a", "x", 2), ("b", "y", 4)]
    assert list(read_csv_rows(path, required=[])) == [
        (f"{path}, line {number}", {"path": name, "label": label}) for name, label, number in rows
    ]


def test_two_intervals_of_one_name_are_refused_with_both():
    check_same_times("abc", (1.0, 3.0), (1.0, 3.0), where="line 3", first_where="line 2")
    with pytest.raises(
        ValueError, match=r"line 3: 1\.0002 to 3\.0 s of 'abc' differs .* 1\.0001 to 3\.0 s in line 2: del"
    ):
        check_same_times("abc", (1.0002, 3.0), (1.0001, 3.0), where="line 3", first_where="line 2")


def test_a_description_of_several_lines_is_read_over_and_an_open_quote_in_one_is_not(tmp_path):
    file = tmp_path / "list.csv"
    file.write_bytes(b'path,label,text\na,x,"two\nlines, and a comma"\nb,y,"\n"\n')
    assert [row["path"] for _, row in read_csv_rows(file, required=["path"])] == ["a", "b"]
    file.write_bytes(b'path,label,text\na,x,"open\nb,y,more\n')
    with pytest.raises(ValueError, match="line 2: the cell of column 'text' holds a line break, after which comes"):
        list(read_csv_rows(file, required=["path"]))
