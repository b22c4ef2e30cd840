"""A text list or CSV, as people and spreadsheets write them, becomes rows with their place for messages.

All these are read: UTF-8, UTF-16 with its byte order mark, line ends of any system, blank lines, rows of empty cells,
blanks around cells, commas, semicolons, tabs or bars between cells, Excel's first line `sep=;`, and bytes that are not
UTF-8 (as surrogates, like the operating system's file names). Text comes in NFC.
"""

import codecs
import csv
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from t3d_core.datasets.problems import Problems
from t3d_core.datasets.unicode_form import is_utf8, nfc, printable
from t3d_core.errors import UserError

_SEPARATORS = ",;\t|"
_BLANKS = "\ufeff\u200b \t\r\n\f\v\xa0"
_MARKS = {  # the longer marks first: that of UTF-16 begins that of UTF-32
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_READ_COLUMNS = frozenset(
    "path label group split youtube_id yt8m_id video_id id time_start time_end start_seconds end_seconds".split()
)
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (where, line) for every line that is not blank, without surrounding blanks and trailing separators.

    Raises:
        UserError: There is no such file, or it is no text.
    """
    with _text_of(path) as file:
        for number, line in enumerate(file, start=1):
            if line := line.strip(_BLANKS).rstrip(f"{_BLANKS},;"):
                yield f"{path}, line {number}", nfc(line)


def read_columns(path: Path, *, wanted: Collection[str]) -> tuple[str, ...]:
    """Give the names in the first line, in lower case, by the separator that shows most of the wanted ones.

    Raises:
        UserError: There is no such file, or it is no text.
    """
    with _text_of(path, newline="") as file:
        return _read_header(file, wanted=wanted).columns


def read_csv_rows(
    path: Path, *, required: Collection[str], seconds: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (where, row by column name) for every row that is not blank; cells have no surrounding blanks.

    Args:
        path: CSV file whose first line names the columns, in any order and letter case.
        required: Columns that must be there, in lower case; others are given as well.
        seconds: Columns of numbers, in which a comma is a decimal point where it does not separate cells.

    Raises:
        UserError: There is no such file, it is no text, a column is missing or there twice, or rows have too many or
            too few values, or a line break in one: a quote that is left open takes the next rows into its cell. Rows
            are counted, so it is raised after the last one.
    """
    problems = Problems()
    with _text_of(path, newline="") as file:
        header = _read_header(file, wanted=required)
        _check_columns(header, required=required, where=f"{path}, line {header.num_lines}")
        reader = csv.reader(file, delimiter=header.separator, skipinitialspace=True)
        where = f"{path}, line {header.num_lines + 1}"
        try:
            for values in reader:
                here, where = where, f"{path}, line {header.num_lines + reader.line_num + 1}"
                cells = [nfc(value.strip(_BLANKS)) for value in values]
                if not any(cells) or _is_header(cells, header):
                    continue
                with problems:
                    _check_no_line_break(values, header=header, where=here)
                    row = _to_row(cells, columns=header.columns, where=here)
                    if seconds and header.separator != ",":
                        row |= {name: _with_point(row[name]) for name in seconds if name in row}
                    yield here, row
        except csv.Error as error:
            problems.add(f"{where}: {error}: close its quote if it has one, or shorten the cell")
    problems.check()


def check_is_text(text: str, *, name: str, where: str) -> None:
    """Refuse a cell that is not UTF-8: only a path may be, as it names a file by its bytes.

    Raises:
        UserError: Names the cell and the cure.
    """
    if not is_utf8(text):
        raise UserError(f"{where}: {name} '{printable(text)}' is not UTF-8: save the file as UTF-8 (Excel: CSV UTF-8)")


def read_interval(row: dict[str, str], *, where: str, start: str, end: str) -> tuple[float, float] | None:
    """Read the two ends of an interval, in seconds.

    Args:
        row: One row of a CSV.
        where: The place to name in messages.
        start: Name of the column with the start.
        end: Name of the column with the end, not included.

    Returns:
        Start and end, or None where both columns are missing or empty.

    Raises:
        UserError: One is missing, a value is no number, or not 0 <= start < end.
    """
    texts = row.get(start, "").strip(), row.get(end, "").strip()
    if texts == ("", ""):
        return None
    try:
        start_seconds, end_seconds = map(float, texts)
    except ValueError:
        raise UserError(f"{where}: {start} and {end} must both be seconds, got {texts[0]!r} and {texts[1]!r}") from None
    if not 0 <= start_seconds < end_seconds < float("inf"):
        raise UserError(f"{where}: {start} must be at least 0 and less than {end}, got {texts[0]} and {texts[1]}")
    return start_seconds, end_seconds


def check_same_times(
    video: str, times: tuple[float, float], first_times: tuple[float, float], *, where: str, first_where: str
) -> None:
    """Refuse two intervals of one name, which counts milliseconds, unless they are one interval listed twice.

    Raises:
        UserError: Names the video, both intervals and the cure.
    """
    if times != first_times:
        raise UserError(
            f"{where}: {times[0]} to {times[1]} s of {video!r} differs by less than a millisecond from "
            f"{first_times[0]} to {first_times[1]} s in {first_where}: delete one of the two rows"
        )


def notes_on_repeated_rows(num_repeated: int) -> tuple[str, ...]:
    """The note, if there is any, on rows that say what another says."""
    return (f"rows that repeat another one, and count once: {num_repeated:,}",) if num_repeated else ()


class _Header(NamedTuple):
    """The columns' names in lower case, what separates cells, and how many lines of the file these took."""

    columns: tuple[str, ...]
    separator: str
    num_lines: int


def _read_header(file: TextIO, *, wanted: Collection[str]) -> _Header:
    """Read up to the first line that is not blank; `sep=;`, which Excel writes and reads, may come before it."""
    separators = _SEPARATORS
    num_lines, line = 0, ""
    for line in file:
        num_lines += 1
        if match := re.fullmatch(r'"?sep=(.)"?', line.strip("\ufeff\r\n")):
            separators = match[1]
        elif line.strip(_BLANKS + separators):
            break
    choices = [_Header(_split_header(line, separator), separator, max(num_lines, 1)) for separator in separators]
    return max(choices, key=lambda header: (len({*wanted} & {*header.columns}), len(header.columns)))


def _split_header(line: str, separator: str) -> tuple[str, ...]:
    names = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    return tuple(nfc(name.strip(_BLANKS)).lower() for name in names)


def _check_columns(header: _Header, *, required: Iterable[str], where: str) -> None:
    names = [name for name in header.columns if name]
    for name in required:
        if name not in names:
            raise UserError(
                f"{where}: no column {name!r} among the columns {names}: the first line must name the columns"
            )
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{where}: there are two columns {twice!r}: delete or rename one of them")


def _is_header(cells: list[str], header: _Header) -> bool:
    """Whether a row names the columns again, as in files that were put together of several."""
    return len(cells) > 1 and cells[0].lower() == header.columns[0] and [c.lower() for c in cells] == [*header.columns]


def _check_no_line_break(values: list[str], *, header: _Header, where: str) -> None:
    """Refuse a cell of several lines, unless it is a description: of a column that no list reads, and no rows in it.

    A break behind the last line of a cell, as spreadsheets leave it, is only a blank.
    """
    for place, value in enumerate(values):
        if not ("\n" in value or "\r" in value):
            continue
        column = header.columns[place] if place < len(header.columns) else str(place + 1)
        more = re.split(r"\r\n?|\n", value.rstrip(_BLANKS))[1:]
        has_rows = any(line.count(header.separator) == len(header.columns) - 1 > 0 for line in more)
        if more and (has_rows or column in _READ_COLUMNS):
            raise UserError(
                f"{where}: the cell of column {column!r} holds a line break, after which comes {more[0]!r}: "
                f"close its quote, or write it in one line"
            )


def _to_row(cells: list[str], *, columns: tuple[str, ...], where: str) -> dict[str, str]:
    """Refuse values without a column and columns without a value; spreadsheets write cells that are neither."""
    cure = ""
    if any(cells[len(columns) :]):
        cure = "quote values that hold a comma or semicolon"
    elif any(columns[len(cells) :]):
        cure = "fill the empty columns, or leave a separator for each"
    if cure:
        raise UserError(f"{where}: {_counted(len(cells), 'value')} for {_counted(len(columns), 'column')}: {cure}")
    return {name: cell for name, cell in zip(columns, cells, strict=False) if name}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else f'{noun}s'}"


def _with_point(number: str) -> str:
    return number.replace(",", ".") if re.fullmatch(r"\d+,\d+", number) else number


@contextmanager
def _text_of(path: Path, *, newline: str | None = None) -> Iterator[TextIO]:
    if not path.is_file():
        raise UserError(f"annotations {str(path)!r} is not a file")
    with path.open("rb") as binary:
        encoding = _encoding_of(binary.read(4096), path=path)
    try:
        with path.open(encoding=encoding, errors="surrogateescape", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {error.reason} in {encoding}: save the file as UTF-8") from error


def _encoding_of(start: bytes, *, path: Path) -> str:
    if start.startswith(_SPREADSHEETS):
        raise UserError(f"{path} is a spreadsheet or an archive, not text: export the table as CSV (UTF-8)")
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    if b"\0" in start:
        raise UserError(f"{path} holds zero bytes, so it is UTF-16 without its mark or no text: save it as UTF-8")
    return "utf-8-sig"
