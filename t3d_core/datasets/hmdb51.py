"""The official HMDB51 lists become a VideoDataset with three folds (paper 4.1, Table 7).

The folder `testTrainMulti_7030_splits` as its authors publish it: 51 x 3 files `<class>_test_split<fold>.txt` with
lines "<video> <code>", code 1 for train, 2 for test, 0 for neither. A video's name gives its source:

    April_09_brush_hair_u_nm_np1_ba_goo_0.avi
    title    class      | |  |   |  |   number of the clip
                        | |  |   |  quality: bad, med, goo
                        | |  |   viewpoint: fr, ba, le, ri
                        | |  number of people
                        | camera motion: nm, cm
                        visible body part: h, u, f, l

The source is the title: the video that the clip was cut from, whatever the class. The official lists keep a title on
one side within each class only: 133, 149 and 144 titles give training clips of one class and test clips of another.
That is counted (see `check_no_leak`); validation, which is ours, is carved out of titles that no test clip has.
"""

import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from t3d_core.datasets.annotation_files import check_is_text, read_lines
from t3d_core.datasets.left_behind import is_left_behind
from t3d_core.datasets.problems import Problems
from t3d_core.datasets.records import VideoDataset, VideoRecord
from t3d_core.datasets.splits import carve_val, check_no_leak
from t3d_core.datasets.unicode_form import is_utf8, nfc, printable
from t3d_core.datasets.video_files import VideoFiles, stem_of
from t3d_core.errors import UserError

SPLIT_BY_CODE = {"1": "train", "2": "test", "0": "unused"}

_LIST_NAME = re.compile(r"(?P<label>.+)_test_split(?P<fold>[1-9])\.txt")
_NAME = re.compile(r"(?P<title_and_label>.+)_[a-z]_[a-z]{2}_np\d+_[a-z]{2}_[a-z]{3}_\d+\.\w+", re.DOTALL)


def read_hmdb51(
    annotations: Path, *, file_names: Collection[str], val_fraction: float = 0.0, seed: int = 0
) -> VideoDataset:
    """Read the official lists.

    Args:
        annotations: Folder of the lists; other files in it are ignored.
        file_names: POSIX paths below the root of all video files there are. A listed video is found by its name in any
            folder, with any extension; a missing one keeps its official path, class/video.avi.
        val_fraction: Share of the training videos of each fold carved out for validation, by whole sources.
        seed: Which sources are carved out.

    Returns:
        The listed videos in order of class and name. A video that no list of a fold names is 'unused' in it. The
        video_id is the name without extension, the source the title of the video it was cut from.

    Raises:
        UserError: A list is missing or has an invalid line (the message names it), a source stands on both sides of a
            carved split, or several files have the name of one video.
    """
    lists = _find_lists(annotations)
    files = VideoFiles(file_names)
    records, problems = [], Problems()
    for label in sorted(lists):
        records += _read_class(label, lists=lists[label], files=files, problems=problems)
    problems.check()
    dataset = VideoDataset(
        name="hmdb51",
        class_names=tuple(sorted(lists)),
        records=carve_val(records, fraction=val_fraction, seed=seed),
        official_splits=("train", "test"),
    )
    check_no_leak(dataset)
    return dataset


def parse_hmdb51_title(name: str, *, label: str) -> str | None:
    """Give the title in the name of a video of a class; None for names of another form.

    A title may hold underscores, class names and whatever else a file name can: it is what is left of all the rest.
    """
    match = _NAME.fullmatch(name)
    if match is None or not match["title_and_label"].endswith(f"_{label}"):
        return None
    return match["title_and_label"].removesuffix(f"_{label}") or None


def _find_lists(annotations: Path) -> dict[str, list[Path]]:
    """For every class its lists, fold after fold."""
    found = {
        (match["label"], int(match["fold"])): path
        for path in annotations.glob("*.txt")
        if not is_left_behind(path.name) and (match := _LIST_NAME.fullmatch(nfc(path.name)))
    }
    if not found:
        raise UserError(f"annotations {str(annotations)!r} holds no list such as brush_hair_test_split1.txt")
    for path in found.values():
        if not is_utf8(path.name):
            raise UserError(f"{annotations}: the name of list '{printable(path.name)}' is not UTF-8: rename the file")
    num_folds = max(fold for _, fold in found)
    lists: defaultdict[str, list[Path]] = defaultdict(list)
    for label in {label for label, _ in found}:
        for fold in range(1, num_folds + 1):
            if (label, fold) not in found:
                raise UserError(f"{str(annotations / f'{label}_test_split{fold}.txt')!r} is missing: fetch all lists")
            lists[label].append(found[label, fold])
    return lists


def _read_class(label: str, *, lists: list[Path], files: VideoFiles, problems: Problems) -> list[VideoRecord]:
    sources: dict[str, str] = {}
    splits_by_name: defaultdict[str, list[str]] = defaultdict(lambda: ["unused"] * len(lists))
    for place, path in enumerate(lists):
        seen: set[str] = set()
        for where, line in read_lines(path):
            with problems:
                name, title, split = _read_line(line, label=label, where=where)
                if name in seen:
                    raise UserError(f"{where}: {name!r} is listed twice in this file")
                seen.add(name)
                sources[name] = title
                splits_by_name[name][place] = split
    records = []
    for name, splits in sorted(splits_by_name.items()):
        with problems:
            path_on_disk = files.find(stem_of(name), expected=f"{label}/{name}") or f"{label}/{name}"
            records.append(VideoRecord(stem_of(name), path_on_disk, label, sources[name], tuple(splits)))
    return records


def _read_line(line: str, *, label: str, where: str) -> tuple[str, str, str]:
    """Give the video's name, its title and its split."""
    name, _, code = line.replace("\t", " ").rpartition(" ")
    name = name.rstrip()
    check_is_text(name, name="video", where=where)
    title = parse_hmdb51_title(name, label=label)
    if title is None or code not in SPLIT_BY_CODE:
        raise UserError(f"{where}: expected title_{label}_u_nm_np1_ba_goo_0.avi and 0, 1 or 2, got {line!r}")
    return name, title, SPLIT_BY_CODE[code]
