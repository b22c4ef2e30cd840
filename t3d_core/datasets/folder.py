"""A folder of videos, with or without an annotation CSV, becomes a VideoDataset with one fold, or several.

Three forms are read. No video is opened: a listed file that is absent, or a link that leads out of root, is found when
it is decoded:

    index.csv with columns path,label,group,split        your own annotations (label, group, split may be missing)
    root/label/video.mp4                                 class folders
    root/train/label/video.mp4                           class folders of given splits (train, val, test)

Validation is carved out of training by source, as official splits have none (paper 4.1 uses the official ones).
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from t3d_core.datasets.annotation_files import check_is_text, read_csv_rows
from t3d_core.datasets.class_folders import read_class_folders
from t3d_core.datasets.listed_paths import ListedPathParser, find_listed
from t3d_core.datasets.problems import Problems
from t3d_core.datasets.records import SPLITS, VideoDataset, VideoRecord
from t3d_core.datasets.split_names import SHOWN_SPLITS, split_named
from t3d_core.datasets.splits import (
    carve_by_source,
    carve_test_and_val,
    check_fractions,
    check_no_leak,
    cross_validation,
    validate_on,
)
from t3d_core.datasets.unicode_form import nfc, printable
from t3d_core.datasets.video_files import VIDEO_EXTENSIONS, FilesByPath, LookUp, describe_forms, is_video_name
from t3d_core.errors import UserError

INDEX_NAME = "index.csv"
_MAX_GROUPS = 20


def read_folder(
    file_names: Collection[str],
    *,
    name: str,
    annotations: Path | None = None,
    root: Path | str = "",
    look_up: LookUp | None = None,
    is_labelled: bool = True,
    is_group_within_label: bool = False,
    val_fraction: float = 0.0,
    test_fraction: float = 0.2,
    num_folds: int | None = None,
    val_groups: Collection[str] = (),
    seed: int = 0,
) -> VideoDataset:
    """Read a folder of videos.

    Args:
        file_names: POSIX paths below the root of all files there are. Where no CSV is given, those that are called like
            videos are the annotation. video_ids are these paths, in NFC.
        name: Name of the data set.
        annotations: CSV file. Other columns are ignored. A row whose file is not there is listed all the same.
        root: Folder or address that file_names are below. The CSV's paths are relative to it or to the CSV's own
            folder, or full (see `listed_paths`); rows outside the root are not read. Empty: they are relative to it.
        look_up: Looks for files that the CSV names and that file_names lacks.
        is_labelled: False gives no labels and puts every video into train: later stages hold out what they need.
        is_group_within_label: Groups are numbered within each class (UCF101's g01..g25): the source is label/group.
        val_fraction: Share of the videos carved out for validation. Where splits are given it is carved out of train,
            and only if they hold no val.
        test_fraction: Share carved out for testing where no splits are given.
        num_folds: Cross-validation by source instead of both: every video is tested in one of so many folds.
        val_groups: Sources that validate in every fold; the other shares are then those of the other sources.
        seed: Which sources are carved out.

    Raises:
        UserError: The CSV is missing, there is no video, or a row is invalid (the message has its line), splits are
            given for some videos only, one source stands on both sides of a split, or val_groups names a source that
            there is not.
    """
    _check_shares(is_labelled=is_labelled, num_folds=num_folds, test_fraction=test_fraction, val_fraction=val_fraction)
    val_groups = [nfc(group) for group in val_groups]
    _check_val_groups(val_groups, is_labelled=is_labelled, val_fraction=val_fraction)
    if annotations is None:
        entries = _read_folders(file_names, is_labelled=is_labelled)
    else:
        entries = _read_csv(annotations, root=str(root), files=FilesByPath(file_names, look_up=look_up))
    records = _to_records(entries, is_labelled=is_labelled, is_group_within_label=is_group_within_label)
    _check_groups_exist(val_groups, records)
    if is_labelled and num_folds is not None:
        records = cross_validation(
            records, num_folds=num_folds, val_fraction=val_fraction, seed=seed, val_sources=val_groups
        )
    elif val_groups:
        records = validate_on(records, val_groups)
        if not entries[0].row.split:
            records = carve_test_and_val(records, test_fraction=test_fraction, val_fraction=0, seed=seed)
    elif is_labelled and entries[0].row.split:
        records = _hold_out_val(records, val_fraction=val_fraction, seed=seed)
    elif is_labelled:
        records = carve_test_and_val(records, test_fraction=test_fraction, val_fraction=val_fraction, seed=seed)
    return _to_dataset(name, records)


def _check_shares(*, is_labelled: bool, num_folds: int | None, test_fraction: float, val_fraction: float) -> None:
    check_fractions(test_fraction=test_fraction, val_fraction=val_fraction)
    if num_folds is not None and not is_labelled:
        raise UserError(f"num_folds {num_folds} is for labelled videos, given is_labelled=False: leave one of them out")


def _check_val_groups(val_groups: Collection[str], *, is_labelled: bool, val_fraction: float) -> None:
    if val_groups and not is_labelled:
        raise UserError(
            f"val_groups {list(val_groups)} are for labelled videos, given is_labelled=False: leave one of them out"
        )
    if val_groups and val_fraction > 0:
        raise UserError(
            f"val_groups {list(val_groups)} and val_fraction {val_fraction} both say what validates: leave one of them "
            "out"
        )


def _check_groups_exist(val_groups: Collection[str], records: tuple[VideoRecord, ...]) -> None:
    there = {record.source for record in records}
    if missing := [group for group in val_groups if group not in there]:
        shown = sorted(there)[:_MAX_GROUPS]
        raise UserError(
            f"val_groups: no video has group {missing[0]!r}; the {len(there)} groups are: {', '.join(shown)}"
            f"{', ...' if len(there) > len(shown) else ''}"
        )


def _hold_out_val(records: tuple[VideoRecord, ...], *, val_fraction: float, seed: int) -> tuple[VideoRecord, ...]:
    """Carve validation out of given splits that hold none."""
    if val_fraction > 0 and ("val",) not in {record.splits for record in records}:
        return carve_by_source(records, fold=1, split_from="train", split_to="val", fraction=val_fraction, seed=seed)
    return records


def _to_dataset(name: str, records: tuple[VideoRecord, ...]) -> VideoDataset:
    class_names = tuple(sorted({record.label for record in records if record.label is not None}))
    dataset = VideoDataset(name=printable(nfc(name)), class_names=class_names, records=records)
    check_no_leak(dataset)
    return dataset


class _Row(NamedTuple):
    """What a row of a CSV, or the folders of a file, give besides the path; what is not given is empty."""

    where: str
    label: str = ""
    group: str = ""
    split: str = ""


class _Entry(NamedTuple):
    """One listed video: its path in NFC, and the name of its file on disk."""

    row: _Row
    path: str
    file_name: str


def _to_records(entries: list[_Entry], *, is_labelled: bool, is_group_within_label: bool) -> tuple[VideoRecord, ...]:
    if is_labelled:
        _check_labels_and_splits(entries)
    problems = Problems()
    records = []
    for entry in entries:
        with problems:
            records.append(_to_record(entry, is_labelled=is_labelled, is_group_within_label=is_group_within_label))
    problems.check()
    return tuple(records)


def _to_record(entry: _Entry, *, is_labelled: bool, is_group_within_label: bool) -> VideoRecord:
    row, video_id = entry.row, printable(entry.path)
    source = row.group or video_id
    if is_group_within_label and row.group:
        if not row.label:
            raise UserError(f"{row.where}: is_group_within_label needs a label for group {row.group!r}")
        source = f"{row.label}/{row.group}"
    return VideoRecord(
        video_id=video_id,
        path=entry.file_name,
        label=row.label if is_labelled else None,
        source=source,
        splits=(row.split or "train",) if is_labelled else ("train",),
    )


def _check_labels_and_splits(entries: list[_Entry]) -> None:
    has_splits = any(entry.row.split for entry in entries)
    problems = Problems()
    for row, *_ in entries:
        if not row.label:
            problems.add(f"{row.where}: no label; give every video one, or read with is_labelled=False")
        elif has_splits and not row.split:
            problems.add(f"{row.where}: no split while other videos have one; write one of {', '.join(SPLITS)}")
    problems.check()


def _read_csv(annotations: Path, *, root: str, files: FilesByPath) -> list[_Entry]:
    parser = ListedPathParser(root, files=files)
    rows, listed, problems = [], [], Problems()
    for where, cells in read_csv_rows(annotations, required=["path"]):
        with problems:
            listed.append(parser.parse(cells["path"], where=where))
            rows.append(_to_row(cells, where=where))
    problems.check()
    if not rows:
        raise UserError(f"no videos found: no row of {str(annotations)!r} names one")
    found = find_listed(listed, annotations=annotations, root=root, files=files)
    entries = [_Entry(row, *place) for row, place in zip(rows, found, strict=True) if place is not None]
    _check_listed_once(entries)
    return entries


def _to_row(cells: dict[str, str], *, where: str) -> _Row:
    texts = {name: cells.get(name, "") for name in ("label", "group", "split")}
    for name, text in texts.items():
        check_is_text(text, name=name, where=where)
    split = split_named(texts["split"]) or ""
    if texts["split"] and not split:
        raise UserError(f"{where}: split {texts['split']!r} is not one of {SHOWN_SPLITS}")
    return _Row(where, texts["label"], texts["group"], split)


def _check_listed_once(entries: list[_Entry]) -> None:
    first: dict[str, _Row] = {}
    problems = Problems()
    for row, path, _ in entries:
        if first.setdefault(path, row) is not row:
            problems.add(f"{row.where}: path {path!r} is already listed in {first[path].where}")
    problems.check()


def _read_folders(file_names: Collection[str], *, is_labelled: bool) -> list[_Entry]:
    names = sorted(filter(is_video_name, file_names))
    if not names:
        raise UserError(
            f"no videos found: looked for {INDEX_NAME} and for files that end in {', '.join(VIDEO_EXTENSIONS)}"
        )
    _check_forms(names)
    if not is_labelled:
        return [_Entry(_Row(name), nfc(name), name) for name in names]
    labels = read_class_folders(names)
    return [
        _Entry(_Row(name, label=label, split=split), nfc(name), name)
        for name, (label, split) in zip(names, labels, strict=True)
    ]


def _check_forms(names: list[str]) -> None:
    """Refuse files whose names look the same: copies of one video would stand on both sides of a split."""
    by_path: dict[str, list[str]] = {}
    for name in names:
        if not name.isascii():
            by_path.setdefault(nfc(name), []).append(name)
    problems = Problems()
    for path, forms in by_path.items():
        if len(forms) > 1:
            problems.add(describe_forms(path, forms))
    problems.check()
