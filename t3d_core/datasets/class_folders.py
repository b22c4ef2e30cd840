"""Paths of videos in class folders become their labels and splits: `label/video`, or `split/label/video` for all.

What stands where it does not belong is named: a folder beside train and test, a file in the root itself.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from t3d_core.datasets.problems import Problems
from t3d_core.datasets.records import SPLITS
from t3d_core.datasets.split_names import split_named
from t3d_core.datasets.unicode_form import is_utf8, nfc, printable
from t3d_core.errors import UserError

_CLASSES = "label/video"
_SPLIT_CLASSES = f"{{{','.join(SPLITS)}}}/label/video"


class FolderLabel(NamedTuple):
    """The label and the split that the folders of a video give; the split is empty where folders give none."""

    label: str
    split: str


def read_class_folders(paths: Sequence[str]) -> list[FolderLabel]:
    """Give the label and the split of each path.

    Args:
        paths: POSIX paths of videos below the root.

    Raises:
        UserError: A path has another form than the rest, the folders have no form that gives labels, or the name of one
            that gives a label is not UTF-8.
    """
    form = _form_of_all(paths)
    problems = Problems()
    for folder, strays in _strays(paths, form=form).items():
        problems.add(_describe_strays(folder, strays, form=form))
    problems.check()
    if form == _CLASSES:
        _check_folders_are_no_splits({path.partition("/")[0] for path in paths})
    _check_labels_are_text({path.rpartition("/")[0] for path in paths})
    shared: dict[FolderLabel, FolderLabel] = {}  # one record, and one string, for all videos of a class
    return [shared.setdefault(each, each) for each in (_to_label(path, form=form) for path in paths)]


def _to_label(path: str, *, form: str) -> FolderLabel:
    *folders, _ = path.split("/")
    return FolderLabel(nfc(folders[-1]), (split_named(folders[0]) or "") if form == _SPLIT_CLASSES else "")


def _form_of(path: str) -> str:
    depth = path.count("/")
    if depth == 1:
        return _CLASSES
    return _SPLIT_CLASSES if depth == 2 and split_named(path.partition("/")[0]) else ""


def _form_of_all(paths: Sequence[str]) -> str:
    """The form that most of the paths have, or that two splits have: other videos may lie beside them."""
    counts = Counter(map(_form_of, paths))
    if not counts[_CLASSES] and not counts[_SPLIT_CLASSES]:
        raise UserError(_describe_no_form(paths))
    splits = {split_named(path.partition("/")[0]) for path in paths if path.count("/") == 2} - {None}
    return _SPLIT_CLASSES if len(splits) > 1 or counts[_SPLIT_CLASSES] > counts[_CLASSES] else _CLASSES


def _strays(paths: Sequence[str], *, form: str) -> dict[str, list[str]]:
    """Paths of another form, by their first folder; it is empty for files in the root itself."""
    strays: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        if _form_of(path) != form:
            folder, slash, _ = path.partition("/")
            strays[folder if slash else ""].append(path)
    return strays


def _describe_strays(folder: str, strays: Sequence[str], *, form: str) -> str:
    first = strays[0]
    others = f" (and {len(strays) - 1:,} more)" if len(strays) > 1 else ""
    expected = f"{first}{others}: expected {form} below the root, as for the other videos"
    if not folder:
        return f"{expected}, but it lies in the root itself: move it into a folder, or away"
    if form == _SPLIT_CLASSES and not split_named(folder):
        names = ", ".join(SPLITS)
        return f"{expected}, but folder {folder!r} is not a split: rename it to one of {names}, or move it away"
    depth = first.count("/")
    return f"{expected}, but it lies {depth} {'folder' if depth == 1 else 'folders'} deep: move it, or away"


def _describe_no_form(paths: Sequence[str]) -> str:
    """The error where no path has a form that gives labels."""
    expected = f"expected {_CLASSES} or {_SPLIT_CLASSES} below the root"
    if inner := _folder_of_all(paths):
        return f"{paths[0]}: {expected}, but all videos lie in folder {inner!r}: give that folder as root"
    folders = sorted({path.rpartition("/")[0] or "the root itself" for path in paths})
    return (
        f"{paths[0]}: {expected} (the same form for all videos), but videos lie in {', '.join(folders[:3])}"
        f"{', ...' if len(folders) > 3 else ''}: make such folders, give a CSV with labels, or is_labelled=False"
    )


def _folder_of_all(paths: Sequence[str]) -> str:
    """The folder that holds all videos in one of the forms, `UCF-101` or `data/train-and-test`; empty if none does."""
    outer: list[str] = []
    while all("/" in path for path in paths) and len({path.partition("/")[0] for path in paths}) == 1:
        outer.append(paths[0].partition("/")[0])
        paths = [path.partition("/")[2] for path in paths]
        if len({_form_of(path) for path in paths}) == 1 and _form_of(paths[0]):
            return "/".join(outer)
    return ""


def _check_folders_are_no_splits(folders: set[str]) -> None:
    """Refuse `train/a.mp4` and `test/b.mp4`: a class may be called train, but not all of them as splits."""
    splits = {split_named(folder) for folder in folders}
    if len(splits) > 1 and None not in splits:
        raise UserError(
            f"folders {', '.join(map(repr, sorted(folders)))} are splits, but they hold videos and no class folders: "
            f"make folders {_SPLIT_CLASSES}, give a CSV with labels, or read with is_labelled=False"
        )


def _check_labels_are_text(folders: set[str]) -> None:
    """Refuse labels that the list of classes could show only as escapes."""
    problems = Problems()
    for folder in sorted(folders):
        if not is_utf8(folder):
            problems.add(f"the name of class folder '{printable(folder)}' is not UTF-8: rename the folder")
    problems.check()
