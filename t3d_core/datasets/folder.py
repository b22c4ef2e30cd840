"""A folder of videos, with or without an annotation CSV, becomes a VideoDataset with one fold.

Three forms are read; no video is opened: that a listed file is absent, or a link that leads out of root, is left to be
found when it is decoded:

    index.csv with columns path,label,group,split        one's own annotations (label, group, split may be missing)
    root/label/video.mp4                                 class folders
    root/train/label/video.mp4                           class folders of given splits (train, val, test)

Validation is carved out of training by source, as official splits have none (paper 4.1 uses the official ones).
"""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from t3d_core.datasets.records import SPLITS, VideoDataset, VideoRecord
from t3d_core.datasets.splits import carve_by_source, carve_test_and_val, check_fractions, check_no_leak

VIDEO_EXTENSIONS = tuple(
    ".3gp .asf .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogg .ogv .ts .webm .wmv".split()
)
INDEX_NAME = "index.csv"


def read_folder(
    root: Path,
    *,
    annotations: Path | None = None,
    is_labelled: bool = True,
    is_group_within_label: bool = False,
    val_fraction: float = 0.0,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> VideoDataset:
    """Read a folder of videos.

    Args:
        root: Folder of the videos. It gives the data set its name, and video_ids are paths below it.
        annotations: CSV file; by default `root/index.csv` if it exists, else the folders are the annotation. If root
            lies inside the CSV's folder (or is it), the CSV's paths are relative to that folder and rows outside root
            are not read; otherwise they are relative to root. Columns other than path, label, group, split are ignored.
        is_labelled: False gives no labels and puts every video into train: held-out videos of the correspondence task
            are chosen by the stage that needs them.
        is_group_within_label: Groups are numbered within each class (UCF101's g01..g25): the source is label/group.
            Without a group each video is its own source.
        val_fraction: Share of the videos carved out for validation. Where splits are given it is carved out of train,
            and only if they hold no val.
        test_fraction: Share carved out for testing where no splits are given.
        seed: Which sources are carved out.

    Raises:
        ValueError: Root or CSV is missing, holds no video or an invalid row (the message has its line), splits are
            given for some videos only, or one source stands on both sides of a split.
    """
    check_fractions(test_fraction=test_fraction, val_fraction=val_fraction)
    if not root.is_dir():
        raise ValueError(f"root {str(root)!r} is not a folder: give the folder of the videos")
    root = Path(os.path.abspath(root))
    if annotations is None and (root / INDEX_NAME).is_file():
        annotations = root / INDEX_NAME
    entries = _read_folders(root, is_labelled=is_labelled) if annotations is None else _read_csv(annotations, root=root)
    if is_labelled:
        _check_labels_and_splits(entries)
    records = tuple(
        _to_record(entry, root=root, is_labelled=is_labelled, is_group_within_label=is_group_within_label)
        for entry in entries
    )
    if is_labelled:
        has_splits = bool(entries[0].split)
        records = _hold_out(
            records, has_splits=has_splits, test_fraction=test_fraction, val_fraction=val_fraction, seed=seed
        )
    class_names = tuple(sorted({record.label for record in records if record.label is not None}))
    dataset = VideoDataset(name=_printable(root.name), class_names=class_names, records=records)
    check_no_leak(dataset)
    return dataset


def _hold_out(
    records: tuple[VideoRecord, ...], *, has_splits: bool, test_fraction: float, val_fraction: float, seed: int
) -> tuple[VideoRecord, ...]:
    if not has_splits:
        return carve_test_and_val(records, test_fraction=test_fraction, val_fraction=val_fraction, seed=seed)
    if val_fraction > 0 and ("val",) not in {record.splits for record in records}:
        return carve_by_source(records, fold=1, split_from="train", split_to="val", fraction=val_fraction, seed=seed)
    return records


@dataclass(frozen=True)
class _Entry:
    """One listed video; an empty label, group or split was not given."""

    where: str
    path: PurePosixPath
    label: str = ""
    group: str = ""
    split: str = ""


def _to_record(entry: _Entry, *, root: Path, is_labelled: bool, is_group_within_label: bool) -> VideoRecord:
    video_id = _printable(str(entry.path))
    source = _printable(entry.group) or video_id
    if is_group_within_label and entry.group:
        if not entry.label:
            raise ValueError(f"{entry.where}: is_group_within_label needs a label for group {entry.group!r}")
        source = _printable(f"{entry.label}/{entry.group}")
    return VideoRecord(
        video_id=video_id,
        path=str(root / entry.path),
        label=_printable(entry.label) if is_labelled else None,
        source=source,
        splits=(entry.split or "train",) if is_labelled else ("train",),
    )


def _check_labels_and_splits(entries: list[_Entry]) -> None:
    has_splits = any(entry.split for entry in entries)
    for entry in entries:
        if not entry.label:
            raise ValueError(f"{entry.where}: no label; give every video one, or read with is_labelled=False")
        if has_splits and not entry.split:
            raise ValueError(f"{entry.where}: no split while other videos have one; write one of {', '.join(SPLITS)}")


def _read_csv(annotations: Path, *, root: Path) -> list[_Entry]:
    if not annotations.is_file():
        raise ValueError(
            f"annotations {str(annotations)!r} is not a file: give a CSV with columns path,label,group,split"
        )
    prefix = _path_below(root, folder=annotations.parent)
    entries: dict[PurePosixPath, _Entry] = {}
    for where, row in _csv_rows(annotations):
        path = PurePosixPath(row["path"])
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise ValueError(
                f"{where}: path {row['path']!r} must lead to a file below its folder (not absolute, no ..)"
            )
        if not path.is_relative_to(prefix):
            continue
        entry = _to_entry(row, where=where, path=path.relative_to(prefix))
        if entry.path in entries:
            raise ValueError(f"{where}: path {row['path']!r} stands already in {entries[entry.path].where}")
        entries[entry.path] = entry
    if not entries:
        raise ValueError(f"no videos found: no row of {str(annotations)!r} lies below root {str(root)!r}")
    return list(entries.values())


def _csv_rows(annotations: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row with the place to name in messages."""
    # utf-8-sig takes a BOM away; surrogateescape reads file names as the operating system gives them.
    with annotations.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        try:
            columns = [name.strip() for name in next(reader, [])]
            if "path" not in columns:
                raise ValueError(f"{annotations}, line 1: no column 'path' among the columns {columns}")
            for values in reader:
                where = f"{annotations}, line {reader.line_num}"
                if values and len(values) != len(columns):
                    raise ValueError(
                        f"{where}: {len(values)} values for {len(columns)} columns (quote values that hold a comma)"
                    )
                if values:
                    yield where, dict(zip(columns, values, strict=True))
        except csv.Error as error:
            raise ValueError(f"{annotations}, line {reader.line_num}: {error}") from error


def _to_entry(row: dict[str, str], *, where: str, path: PurePosixPath) -> _Entry:
    split = row.get("split", "").strip()
    if split and split not in SPLITS:
        raise ValueError(f"{where}: split {split!r} is none of {', '.join(SPLITS)}")
    return _Entry(
        where=where, path=path, label=row.get("label", "").strip(), group=row.get("group", "").strip(), split=split
    )


def _path_below(root: Path, *, folder: Path) -> PurePosixPath:
    """Where root lies below a folder; an empty path if it does not."""
    # Compared by name first: a root that is itself a link, data/weizmann -> /disk/weizmann, lies inside data.
    for resolve in (os.path.abspath, os.path.realpath):
        inner, outer = PurePosixPath(resolve(root)), PurePosixPath(resolve(folder))
        if inner.is_relative_to(outer):
            return inner.relative_to(outer)
    return PurePosixPath()


def _read_folders(root: Path, *, is_labelled: bool) -> list[_Entry]:
    paths = sorted(_video_paths(root))
    if not paths:
        raise ValueError(
            f"no videos found in {str(root)!r}: looked for {INDEX_NAME} and for files that end in "
            f"{', '.join(VIDEO_EXTENSIONS)}"
        )
    has_split_folders = all(len(path.parts) == 3 and path.parts[0] in SPLITS for path in paths)
    entries = []
    for path in paths:
        entry = _Entry(where=str(root / path), path=path)
        if is_labelled:
            if len(path.parts) != 2 + has_split_folders:
                raise ValueError(
                    f"{entry.where}: expected label/video or {{{','.join(SPLITS)}}}/label/video below {str(root)!r} "
                    f"(the same form for all videos), or is_labelled=False"
                )
            split = path.parts[0] if has_split_folders else ""
            entry = _Entry(where=entry.where, path=path, label=path.parts[-2], split=split)
        entries.append(entry)
    return entries


def _video_paths(root: Path) -> Iterator[PurePosixPath]:
    for folder, folder_names, file_names in os.walk(root, onerror=_stop):
        for name in folder_names:
            if os.path.islink(os.path.join(folder, name)):
                raise ValueError(
                    f"{os.path.join(folder, name)!r} is a link to a folder, which is not followed: put the folder there"
                )
        for name in file_names:
            # Names with a leading dot are no videos: macOS leaves "._clip.mp4" beside "clip.mp4" on foreign disks.
            if name.lower().endswith(VIDEO_EXTENSIONS) and not name.startswith("."):
                yield PurePosixPath(os.path.relpath(os.path.join(folder, name), root))


def _stop(error: OSError) -> NoReturn:
    raise error


def _printable(name: str) -> str:
    r"""Write bytes that are not UTF-8 as \xNN, so that a name can be stored and logged."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
