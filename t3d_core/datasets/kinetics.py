"""The official Kinetics-400, -600 and -700 CSV files become a VideoDataset with one fold (paper 4.1).

    label,youtube_id,time_start,time_end,split           columns in any order, others (is_cc) are ignored
    abseiling,0wR5jVB-WPk,417,427,val                    a test list may have no label column

Downloads lie in many forms. All these are found, in any folders, with any extension:

    label/0wR5jVB-WPk_000417_000427.mp4                  a trimmed clip
    val/label/0wR5jVB-WPk.mp4                            the clip, or the whole video, by `is_trimmed`

Kinetics-600 and -700 take several clips of one YouTube video. If they are in two of the official lists, this is
counted, not refused (see `check_no_leak`).
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from t3d_core.datasets.annotation_files import (
    check_is_text,
    check_same_times,
    notes_on_repeated_rows,
    read_csv_rows,
    read_interval,
)
from t3d_core.datasets.problems import Problems
from t3d_core.datasets.records import SPLITS, VideoDataset, VideoRecord
from t3d_core.datasets.split_names import SHOWN_SPLITS, split_named
from t3d_core.datasets.splits import carve_val, check_no_leak
from t3d_core.datasets.video_files import VideoFiles, interval_name
from t3d_core.errors import UserError


def read_kinetics(
    annotations: Sequence[Path],
    *,
    file_names: Collection[str],
    name: str = "kinetics",
    is_trimmed: bool | None = None,
    val_fraction: float = 0.0,
    seed: int = 0,
) -> VideoDataset:
    """Read one or several official CSV files of one Kinetics data set.

    Args:
        annotations: The CSV files. Without a `split` column the file's name must hold train, val or test.
        file_names: POSIX paths below the root of all video files there are. A missing video keeps its official path,
            label/id_start_end.mp4.
        name: Name of the data set.
        is_trimmed: What files called by the id alone are: the clips (True), or whole videos, of which the records then
            give the interval (False). None refuses such files. A clip called by the id of a video that has several
            intervals in the lists is not taken for any of them.
        val_fraction: Share of the training videos carved out for validation, by whole YouTube videos; only where the
            files hold no official validation.
        seed: Which sources are carved out.

    Returns:
        One record for every interval, in the files' order: the video_id is id_start_end, the source is the YouTube id,
        the label is None where a test list gives none. A row that stands twice is one record.

    Raises:
        UserError: A file is missing or has an invalid row (the message names it), one interval has two labels or
            splits, validation is asked for twice, or several files have the name of one video.
    """
    clips, notes = _read_clips(annotations)
    class_names = tuple(sorted({clip.label for clip in clips.values() if clip.label is not None}))
    _check_spelling(class_names)
    if val_fraction > 0 and any(clip.split == "val" for clip in clips.values()):
        raise UserError(f"val_fraction is {val_fraction}, but the files hold an official val: give 0, or leave it out")
    records = _to_records(clips, files=VideoFiles(file_names), is_trimmed=is_trimmed)
    dataset = VideoDataset(
        name=name,
        class_names=class_names,
        records=carve_val(records, fraction=val_fraction, seed=seed),
        official_splits=tuple(sorted({clip.split for clip in clips.values()})),
        notes=notes,
    )
    check_no_leak(dataset)
    return dataset


class _Clip(NamedTuple):
    where: str
    label: str | None
    youtube_id: str
    start_seconds: float
    end_seconds: float
    split: str

    def video_id(self) -> str:
        return interval_name(self.youtube_id, start_seconds=self.start_seconds, end_seconds=self.end_seconds)


def _read_clips(annotations: Sequence[Path]) -> tuple[dict[str, _Clip], tuple[str, ...]]:
    """Give the clips by video_id, and the note on rows that repeat one."""
    num_rows = 0
    clips: dict[str, _Clip] = {}
    problems = Problems()
    for path in annotations:
        required, times = ("youtube_id", "time_start", "time_end"), ("time_start", "time_end")
        for where, row in read_csv_rows(path, required=required, seconds=times):
            with problems:
                clip = _to_clip(row, where=where, path=path)
                num_rows += 1
                _check_same(clip, clips.setdefault(clip.video_id(), clip))
    problems.check()
    if not clips:
        raise UserError(f"no videos found in annotations {[str(path) for path in annotations]}: give the CSV files")
    return clips, notes_on_repeated_rows(num_rows - len(clips))


def _check_same(clip: _Clip, first: _Clip) -> None:
    times, first_times = (clip.start_seconds, clip.end_seconds), (first.start_seconds, first.end_seconds)
    check_same_times(clip.youtube_id, times, first_times, where=clip.where, first_where=first.where)
    if (first.label, first.split) != (clip.label, clip.split):
        raise UserError(
            f"{clip.where}: {clip.video_id()!r} has label {clip.label!r} and split {clip.split!r}, but {first.label!r} "
            f"and {first.split!r} in {first.where}: give files of one data set, or delete one of the two rows"
        )


def _to_clip(row: dict[str, str], *, where: str, path: Path) -> _Clip:
    youtube_id, label = row["youtube_id"], row.get("label") or None
    check_is_text(label or "", name="label", where=where)
    check_is_text(youtube_id, name="youtube_id", where=where)
    interval = read_interval(row, where=where, start="time_start", end="time_end")
    if not youtube_id or interval is None:
        raise UserError(f"{where}: no youtube_id or no time_start and time_end")
    split = _read_split(row, where=where, path=path)
    if label is None and split != "test":
        raise UserError(f"{where}: no label, which only test videos may lack")
    return _Clip(where, label, youtube_id, *interval, split)


def _read_split(row: dict[str, str], *, where: str, path: Path) -> str:
    if given := row.get("split", ""):
        if split := split_named(given):
            return split
        raise UserError(f"{where}: split {given!r} is not one of {SHOWN_SPLITS}")
    words = re.split(r"[^a-z]+", path.stem.lower())
    named = {split for word in words if (split := split_named(word)) and split != "unused"}
    if len(named) != 1:
        raise UserError(
            f"{where}: no split, and the file's name does not hold exactly one of train, val and test: add a column "
            f"split, or name the file as train.csv"
        )
    return named.pop()


def _check_spelling(class_names: tuple[str, ...]) -> None:
    """Refuse "air drumming" in one file and "air_drumming" in another: it would be two classes."""
    by_words: dict[str, str] = {}
    problems = Problems()
    for class_name in class_names:
        other = by_words.setdefault(class_name.replace("_", " "), class_name)
        if other != class_name:
            problems.add(f"labels {other!r} and {class_name!r} differ only in spaces: use one spelling in all files")
    problems.check()


def _to_records(clips: dict[str, _Clip], *, files: VideoFiles, is_trimmed: bool | None) -> list[VideoRecord]:
    ids = Counter(clip.youtube_id for clip in clips.values())
    records, problems = [], Problems()
    for video_id, clip in clips.items():
        is_only = ids[clip.youtube_id] == 1
        with problems:
            records.append(_to_record(clip, video_id=video_id, files=files, is_trimmed=is_trimmed, is_only=is_only))
    problems.check()
    return records


def _to_record(clip: _Clip, *, video_id: str, files: VideoFiles, is_trimmed: bool | None, is_only: bool) -> VideoRecord:
    folder = f"{clip.label}/" if clip.label else ""
    path = official_path = f"{folder}{video_id}.mp4"
    start_seconds = end_seconds = None
    if found := files.find(video_id, expected=official_path):
        path = found
    elif found := files.find(clip.youtube_id, expected=f"{folder}{clip.youtube_id}.mp4"):
        if is_trimmed is None:
            raise UserError(
                f"file {found!r} is named by its id alone: set whether such files are clips (is_trimmed=True) or "
                f"whole videos (is_trimmed=False)"
            )
        if not is_trimmed:
            path, start_seconds, end_seconds = found, clip.start_seconds, clip.end_seconds
        elif is_only:
            path = found
    return VideoRecord(
        video_id=video_id,
        path=path,
        label=clip.label,
        source=clip.youtube_id,
        splits=_SPLITS_OF_ONE_FOLD[clip.split],
        start_seconds=start_seconds,
        end_seconds=end_seconds,
    )


# One tuple for all records of a split.
_SPLITS_OF_ONE_FOLD = {split: (split,) for split in SPLITS}
