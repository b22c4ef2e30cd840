"""A text list or CSV, as people and spreadsheets write them, becomes rows with their place for messages.

Windows line ends, a byte order mark, blank lines, spaces at line ends and bytes that are not UTF-8 (as surrogates, like
the operating system's file names) are all read.
"""

import csv
from collections.abc import Collection, Iterator
from pathlib import Path

from t3d_core.errors import UserError


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (where, line) for every line that is not blank, without surrounding blanks.

    Raises:
        UserError: There is no such file.
    """
    _check_file(path)
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if line := line.strip():
                yield f"{path}, line {number}", line


def read_csv_rows(path: Path, *, required: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (where, row by column name) for every row that is not blank.

    Args:
        path: CSV file whose first line names the columns, in any order.
        required: Columns that must be there; others are given as well.

    Raises:
        UserError: There is no such file, a column is missing, or a row has too many or too few values.
    """
    _check_file(path)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        try:
            columns = [name.strip() for name in next(reader, [])]
            for name in required:
                if name not in columns:
                    raise UserError(f"{path}, line 1: no column {name!r} among the columns {columns}")
            for values in reader:
                where = f"{path}, line {reader.line_num}"
                if values and len(values) != len(columns):
                    raise UserError(
                        f"{where}: {len(values)} values for {len(columns)} columns (quote values that hold a comma)"
                    )
                if values:
                    yield where, dict(zip(columns, values, strict=True))
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: {error}") from error


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


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"annotations {str(path)!r} is not a file")
