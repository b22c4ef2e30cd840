"""The official UCF101 lists become a VideoDataset with three folds (paper 4.1, Table 7).

The folder `ucfTrainTestlist` as its authors publish it: classInd.txt ("1 ApplyEyeMakeup"), trainlist01.txt ..
trainlist03.txt ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1") and testlist01.txt .. testlist03.txt (paths only).
Clips of one class and group (g01 .. g25) were cut from one video: that is their source. The lists never split a group.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from t3d_core.datasets.annotation_files import check_is_text, read_lines
from t3d_core.datasets.problems import Problems
from t3d_core.datasets.records import VideoDataset, VideoRecord
from t3d_core.datasets.splits import carve_val, check_no_leak
from t3d_core.datasets.video_files import VideoFiles, stem_of
from t3d_core.errors import UserError

NUM_FOLDS = 3

_NAME = re.compile(r"v_(?P<label>.+)_(?P<group>g\d+)_c\d+\.\w+", re.IGNORECASE)


def read_ucf101(
    annotations: Path, *, file_names: Collection[str], val_fraction: float = 0.0, seed: int = 0
) -> VideoDataset:
    """Read the official lists.

    Args:
        annotations: Folder of the lists.
        file_names: POSIX paths below the root of all video files there are. A listed video is found by its name in any
            folder, with any extension, in upper or lower case; a missing one keeps its official path.
        val_fraction: Share of the training videos of each fold carved out for validation, by whole sources.
        seed: Which sources are carved out.

    Returns:
        The listed videos in order of their names. A video that no list of a fold names is 'unused' in it. The video_id
        is the name without extension (v_Archery_g01_c01), the source label/group (Archery/g01).

    Raises:
        UserError: A list is missing or has an invalid line (the message names it), a source stands on both sides of a
            split, or several files have the name of one video.
    """
    numbers = _read_classes(annotations / "classInd.txt")
    videos = _read_lists(annotations, numbers=numbers)
    files = VideoFiles(file_names, is_case_sensitive=False)
    records, problems = [], Problems()
    for video in sorted(videos, key=lambda video: video.path):
        with problems:
            records.append(_to_record(video, files=files))
    problems.check()
    dataset = VideoDataset(
        name="ucf101",
        class_names=tuple(sorted(numbers)),
        records=carve_val(records, fraction=val_fraction, seed=seed),
    )
    check_no_leak(dataset)
    return dataset


class UCF101Name(NamedTuple):
    """The parts of the name of a UCF101 video: the class, in upper or lower case, and the group."""

    label: str
    group: str


def parse_ucf101_name(path: str) -> UCF101Name | None:
    """Take `Archery/v_Archery_g01_c01.avi` apart: ("Archery", "g01"); None for names of another form."""
    match = _NAME.fullmatch(path.rpartition("/")[2])
    return UCF101Name(match["label"], match["group"].lower()) if match else None


class _Video(NamedTuple):
    path: str
    label: str
    group: str
    splits: list[str]


def _read_classes(path: Path) -> dict[str, int]:
    numbers: dict[str, int] = {}
    problems = Problems()
    for where, line in read_lines(path):
        with problems:
            number, _, name = line.replace("\t", " ").partition(" ")
            if not (number.isdecimal() and name.strip()):
                raise UserError(f"{where}: expected a number and a class name, got {line!r}")
            check_is_text(name, name="class name", where=where)
            numbers[name.strip()] = int(number)
    problems.check()
    return numbers


def _read_lists(annotations: Path, *, numbers: dict[str, int]) -> list[_Video]:
    labels = {label.lower(): label for label in numbers}
    videos: dict[str, _Video] = {}
    problems = Problems()
    for fold in range(1, NUM_FOLDS + 1):
        for split in ("train", "test"):
            for where, line in read_lines(annotations / f"{split}list{fold:02d}.txt"):
                with problems:
                    video = _read_video(line, labels=labels, numbers=numbers, where=where)
                    # The class HandstandPushups has videos called v_HandStandPushups_*: case does not distinguish them.
                    splits = videos.setdefault(stem_of(video.path).lower(), video).splits
                    if splits[fold - 1] != "unused":
                        raise UserError(f"{where}: {video.path!r} is already in a list of fold {fold}")
                    splits[fold - 1] = split
    problems.check()
    return list(videos.values())


def _read_video(line: str, *, labels: dict[str, str], numbers: dict[str, int], where: str) -> _Video:
    path, *rest = line.replace("\\", "/").split(maxsplit=1)
    name = parse_ucf101_name(path)
    label = labels.get(name.label.lower()) if name else None
    if name is None or label is None:
        raise UserError(f"{where}: expected Class/v_Class_g01_c01.avi of a listed class, got {path!r}")
    # Test lists have no number; one that disagrees belongs to another class list.
    if rest and rest[0] != str(numbers[label]):
        raise UserError(f"{where}: class number {rest[0]!r}, but {label} is {numbers[label]} in classInd.txt")
    return _Video(path, label, name.group, ["unused"] * NUM_FOLDS)


def _to_record(video: _Video, *, files: VideoFiles) -> VideoRecord:
    stem = stem_of(video.path)
    return VideoRecord(
        video_id=stem,
        path=files.find(stem, expected=video.path) or video.path,
        label=video.label,
        source=f"{video.label}/{video.group}",
        splits=tuple(video.splits),
    )
