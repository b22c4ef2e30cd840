"""A list of YouTube-8M videos becomes an unlabelled VideoDataset, all of it for training (paper 3.2, 4.3).

Three forms are read:

    0wR5jVB-WPk                                          an id a line
    youtube_id,start_seconds,end_seconds                 a CSV; also id, yt8m_id; also time_start,time_end; times may
    0wR5jVB-WPk,120,125                                  be missing
    yt8m_id,youtube_id                                   a map for either: YouTube-8M's own records carry ids such
    nXSc,0sf943sWZls                                     as nXSc, which its authors' web site translates

Half a million rows take seconds and at most 0.5 GB. The map is read line by line, as it may hold all 6 million videos.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from t3d_core.datasets.annotation_files import (
    check_is_text,
    check_same_times,
    notes_on_repeated_rows,
    read_columns,
    read_csv_rows,
    read_interval,
    read_lines,
)
from t3d_core.datasets.problems import Problems
from t3d_core.datasets.records import VideoDataset, VideoRecord
from t3d_core.datasets.video_files import VideoFiles, interval_name
from t3d_core.errors import UserError

ID_COLUMNS = ("youtube_id", "yt8m_id", "video_id", "id")
TIME_COLUMNS = (("start_seconds", "end_seconds"), ("time_start", "time_end"))

_TRAIN = ("train",)
_LENGTHS = {11, 4}  # of an id of YouTube, and of YouTube-8M
_HEADER = re.compile(
    r"((youtube|yt8m|yt|video|vid|clip|file|name|url|link|key|id|identifier|source|segment|list)s?[\W_]*)+",
    re.IGNORECASE,
)


def read_youtube8m(annotations: Path, *, file_names: Collection[str], id_map: Path | None = None) -> VideoDataset:
    """Read a list of ids.

    Args:
        annotations: The list or CSV.
        file_names: POSIX paths below the root of all video files there are. A video is found by its YouTube id in any
            folder, with any extension: an id without times as a whole (id.mp4), an interval as a clip of its own
            (id_000120_000125.mp4) or cut out of the whole video. Which records there are never depends on the files.
        id_map: CSV with yt8m_id and youtube_id. It translates ids of a column yt8m_id or id, or of a list; ids of a
            column youtube_id are what they are.

    Returns:
        One record for every video or interval, in the list's order; duplicates are one record. The video_id is
        the YouTube id or id_start_end, the source the YouTube id. What is missing keeps the path id.mp4; an id that the
        map lacks counts as a missing video of that id.

    Raises:
        UserError: A file is missing or has an invalid row (the message names it), the map is needed and not given, or
            several files have the name of one video.
    """
    id_column, rows = _read_list(annotations)
    if id_column == "yt8m_id" and id_map is None:
        raise UserError(f"{annotations}: a column yt8m_id needs id_map, a CSV with yt8m_id,youtube_id")
    youtube_ids = {}
    if id_map is not None and id_column != "youtube_id":
        youtube_ids = _read_map(id_map, wanted={row.listed_id for row in rows})
    files = VideoFiles(file_names)
    first_rows: dict[str, _Row] = {}
    records, problems = [], Problems()
    for row in rows:
        with problems:
            record = _to_record(row, youtube_ids.get(row.listed_id, row.listed_id), files=files)
            first = first_rows.setdefault(record.video_id, row)
            if first is row:
                records.append(record)
            elif row.interval and first.interval:
                check_same_times(record.source, row.interval, first.interval, where=row.where, first_where=first.where)
    problems.check()
    notes = notes_on_repeated_rows(len(rows) - len(records))
    return VideoDataset(name="youtube8m", class_names=(), records=tuple(records), notes=notes)


class _Row(NamedTuple):
    where: str
    listed_id: str
    interval: tuple[float, float] | None


def _read_list(annotations: Path) -> tuple[str, list[_Row]]:
    """Give the name of the id column ("id" for a list without a header) and the rows."""
    columns = read_columns(annotations, wanted=ID_COLUMNS)
    id_column = next((name for name in ID_COLUMNS if name in columns), None)
    problems = Problems()
    if id_column is None:
        rows = list(_read_ids(annotations, problems=problems))
    else:
        rows = list(_read_rows(annotations, id_column=id_column, columns=columns, problems=problems))
    problems.check()
    if not rows:
        raise UserError(f"no videos found in annotations {str(annotations)!r}: give an id a line, or a CSV of ids")
    return id_column or "id", rows


def _read_ids(annotations: Path, *, problems: Problems) -> Iterator[_Row]:
    """Read an id a line; the first line must not be the name of a column in words that are not known here."""
    lines = [(where, line.strip('"')) for where, line in read_lines(annotations)]
    lengths = {len(listed_id) for _, listed_id in lines[1:]}
    for number, (where, listed_id) in enumerate(lines):
        with problems:
            if number == 0 and (_HEADER.fullmatch(listed_id) or _is_odd_length(listed_id, lengths=lengths)):
                raise UserError(
                    f"{where}: {listed_id!r} is no id, it seems to name the column: delete this line, or write "
                    f"{' or '.join(ID_COLUMNS)}"
                )
            yield _Row(where, _checked_id(listed_id, where=where), None)


def _is_odd_length(listed_id: str, *, lengths: set[int]) -> bool:
    """Whether all other ids have the length of YouTube's or of YouTube-8M's, and this one has neither."""
    return len(lengths) == 1 and lengths < _LENGTHS and len(listed_id) not in _LENGTHS


def _read_rows(annotations: Path, *, id_column: str, columns: Collection[str], problems: Problems) -> Iterator[_Row]:
    start, end = next((names for names in TIME_COLUMNS if set(names) & set(columns)), TIME_COLUMNS[0])
    for where, row in read_csv_rows(annotations, required=[id_column], seconds=(start, end)):
        with problems:
            listed_id = _checked_id(row[id_column], where=where)
            yield _Row(where, listed_id, read_interval(row, where=where, start=start, end=end))


def _checked_id(listed_id: str, *, where: str) -> str:
    check_is_text(listed_id, name="id", where=where)
    if not listed_id or re.search(r"[\s,;|/]", listed_id):
        raise UserError(
            f"{where}: expected an id, or a first line that names a column {' or '.join(ID_COLUMNS)}, got {listed_id!r}"
        )
    return listed_id


def _read_map(id_map: Path, *, wanted: set[str]) -> dict[str, str]:
    youtube_ids: dict[str, str] = {}
    problems = Problems()
    for where, row in read_csv_rows(id_map, required=("yt8m_id", "youtube_id")):
        if row["yt8m_id"] in wanted:
            with problems:
                youtube_id = _checked_id(row["youtube_id"], where=where)
                if (first := youtube_ids.setdefault(row["yt8m_id"], youtube_id)) != youtube_id:
                    raise UserError(
                        f"{where}: yt8m_id {row['yt8m_id']!r} has youtube_id {youtube_id!r}, but {first!r} in a row "
                        f"before it: delete one of the two rows"
                    )
    problems.check()
    return youtube_ids


def _to_record(row: _Row, youtube_id: str, *, files: VideoFiles) -> VideoRecord:
    whole_path = files.find(youtube_id, expected=f"{youtube_id}.mp4") or f"{youtube_id}.mp4"
    if row.interval is None:
        return VideoRecord(youtube_id, whole_path, None, youtube_id, _TRAIN)
    start_seconds, end_seconds = row.interval
    video_id = interval_name(youtube_id, start_seconds=start_seconds, end_seconds=end_seconds)
    if clip := files.find(video_id, expected=f"{video_id}.mp4"):
        # From its own start: what is listed with times is taken whole, in whichever way it lies here.
        return VideoRecord(video_id, clip, None, youtube_id, _TRAIN, start_seconds=0.0)
    return VideoRecord(video_id, whole_path, None, youtube_id, _TRAIN, start_seconds, end_seconds)
