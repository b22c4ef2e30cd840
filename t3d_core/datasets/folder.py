"""A folder of videos, with or without an annotation CSV, becomes a VideoDataset with one fold, or several.

Three forms are read. No video is opened: a listed file that is absent, or a link that leads out of root, is found when
it is decoded:

    index.csv with columns path,label,group,split        your own annotations (label, group, split may be missing)
    root/label/video.mp4                                 class folders
    root/train/label/video.mp4                           class folders of given splits (train, val, test)

Validation is carved out of training by source, as official splits have none (paper 4.1 uses the official ones).
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from t3d_core.datasets.annotation_files import read_csv_rows
from t3d_core.datasets.records import SPLITS, VideoDataset, VideoRecord
from t3d_core.datasets.splits import (
    carve_by_source,
    carve_test_and_val,
    check_fractions,
    check_no_leak,
    cross_validation,
)
from t3d_core.datasets.video_files import VIDEO_EXTENSIONS
from t3d_core.errors import UserError

INDEX_NAME = "index.csv"


def read_folder(
    file_names: Collection[str],
    *,
    name: str,
    annotations: Path | None = None,
    prefix: PurePosixPath | str = "",
    is_labelled: bool = True,
    is_group_within_label: bool = False,
    val_fraction: float = 0.0,
    test_fraction: float = 0.2,
    num_folds: int | None = None,
    seed: int = 0,
) -> VideoDataset:
    """Read a folder of videos.

    Args:
        file_names: POSIX paths below the root of all video files there are; they are the annotation where no CSV is
            given. video_ids are these paths.
        name: Name of the data set.
        annotations: CSV file. Columns other than path, label, group, split are ignored. A row whose file is not among
            file_names is listed all the same.
        prefix: Where the root lies below the folder that the CSV's paths are relative to (see `path_below`); rows
            outside it are not read. Empty: the paths are relative to the root.
        is_labelled: False gives no labels and puts every video into train: held-out videos of the correspondence task
            are chosen by the stage that needs them.
        is_group_within_label: Groups are numbered within each class (UCF101's g01..g25): the source is label/group.
            Without a group each video is its own source.
        val_fraction: Share of the videos carved out for validation. Where splits are given it is carved out of train,
            and only if they hold no val.
        test_fraction: Share carved out for testing where no splits are given.
        num_folds: Cross-validation by source instead of both: every video is tested in one of so many folds.
        seed: Which sources are carved out.

    Raises:
        UserError: The CSV is missing, there is no video, or a row is invalid (the message has its line), splits are
            given for some videos only, or one source stands on both sides of a split.
    """
    check_fractions(test_fraction=test_fraction, val_fraction=val_fraction)
    if num_folds is not None and not is_labelled:
        raise UserError(f"num_folds {num_folds} is for labelled videos, given is_labelled=False: leave one of them out")
    if annotations is None:
        entries = _read_folders(file_names, is_labelled=is_labelled)
    else:
        entries = _read_csv(annotations, prefix=PurePosixPath(prefix))
    if is_labelled:
        _check_labels_and_splits(entries)
    records = tuple(
        _to_record(entry, is_labelled=is_labelled, is_group_within_label=is_group_within_label) for entry in entries
    )
    if is_labelled:
        has_splits = bool(entries[0].split)
        if num_folds is not None:
            records = cross_validation(records, num_folds=num_folds, val_fraction=val_fraction, seed=seed)
        else:
            records = _hold_out(
                records, has_splits=has_splits, test_fraction=test_fraction, val_fraction=val_fraction, seed=seed
            )
    class_names = tuple(sorted({record.label for record in records if record.label is not None}))
    dataset = VideoDataset(name=_printable(name), class_names=class_names, records=records)
    check_no_leak(dataset)
    return dataset


def path_below(root: Path, *, folder: Path) -> PurePosixPath:
    """Where root lies below a folder; an empty path if it does not."""
    # Compared by name first: a root that is itself a link, data/weizmann -> /disk/weizmann, lies inside data.
    for resolve in (os.path.abspath, os.path.realpath):
        inner, outer = PurePosixPath(resolve(root)), PurePosixPath(resolve(folder))
        if inner.is_relative_to(outer):
            return inner.relative_to(outer)
    return PurePosixPath()


def _hold_out(
    records: tuple[VideoRecord, ...], *, has_splits: bool, test_fraction: float, val_fraction: float, seed: int
) -> tuple[VideoRecord, ...]:
    if not has_splits:
        return carve_test_and_val(records, test_fraction=test_fraction, val_fraction=val_fraction, seed=seed)
    if val_fraction > 0 and ("val",) not in {record.splits for record in records}:
        return carve_by_source(records, fold=1, split_from="train", split_to="val", fraction=val_fraction, seed=seed)
    return records


@dataclass(frozen=True, slots=True)
class _Entry:
    """One listed video; a label, group or split that is not given is empty."""

    where: str
    path: str
    label: str = ""
    group: str = ""
    split: str = ""


def _to_record(entry: _Entry, *, is_labelled: bool, is_group_within_label: bool) -> VideoRecord:
    video_id = _printable(entry.path)
    source = _printable(entry.group) or video_id
    if is_group_within_label and entry.group:
        if not entry.label:
            raise UserError(f"{entry.where}: is_group_within_label needs a label for group {entry.group!r}")
        source = _printable(f"{entry.label}/{entry.group}")
    return VideoRecord(
        video_id=video_id,
        path=entry.path,
        label=_printable(entry.label) if is_labelled else None,
        source=source,
        splits=(entry.split or "train",) if is_labelled else ("train",),
    )


def _check_labels_and_splits(entries: list[_Entry]) -> None:
    has_splits = any(entry.split for entry in entries)
    for entry in entries:
        if not entry.label:
            raise UserError(f"{entry.where}: no label; give every video one, or read with is_labelled=False")
        if has_splits and not entry.split:
            raise UserError(f"{entry.where}: no split while other videos have one; write one of {', '.join(SPLITS)}")


def _read_csv(annotations: Path, *, prefix: PurePosixPath) -> list[_Entry]:
    entries: dict[str, _Entry] = {}
    for where, row in read_csv_rows(annotations, required=["path"]):
        path = PurePosixPath(row["path"])
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise UserError(f"{where}: path {row['path']!r} must lead to a file below its folder (not absolute, no ..)")
        if not path.is_relative_to(prefix):
            continue
        entry = _to_entry(row, where=where, path=str(path.relative_to(prefix)))
        if entry.path in entries:
            raise UserError(f"{where}: path {row['path']!r} is already listed in {entries[entry.path].where}")
        entries[entry.path] = entry
    if not entries:
        raise UserError(f"no videos found: no row of {str(annotations)!r} lies below the root, {str(prefix)!r}")
    return list(entries.values())


def _to_entry(row: dict[str, str], *, where: str, path: str) -> _Entry:
    split = row.get("split", "").strip()
    if split and split not in SPLITS:
        raise UserError(f"{where}: split {split!r} is not one of {', '.join(SPLITS)}")
    return _Entry(
        where=where, path=path, label=row.get("label", "").strip(), group=row.get("group", "").strip(), split=split
    )


def _read_folders(file_names: Collection[str], *, is_labelled: bool) -> list[_Entry]:
    paths = sorted(file_names)
    if not paths:
        raise UserError(
            f"no videos found: looked for {INDEX_NAME} and for files that end in {', '.join(VIDEO_EXTENSIONS)}"
        )
    if not is_labelled:
        return [_Entry(where=path, path=path) for path in paths]
    has_split_folders = all(path.count("/") == 2 and path.partition("/")[0] in SPLITS for path in paths)
    labels: dict[str, str] = {}  # one string for all videos of a class
    entries = []
    for path in paths:
        *folders, _ = path.split("/")
        if len(folders) != 1 + has_split_folders:
            raise UserError(
                f"{path}: expected label/video or {{{','.join(SPLITS)}}}/label/video below the root (the same form for "
                f"all videos), or is_labelled=False"
            )
        label = labels.setdefault(folders[-1], folders[-1])
        entries.append(_Entry(where=path, path=path, label=label, split=folders[0] if has_split_folders else ""))
    return entries


def _printable(name: str) -> str:
    r"""Write bytes that are not UTF-8 as \xNN, so that a name can be stored and logged."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
