"""The paths that a CSV names become names of files below the root.

People write paths relative to the root of the videos, relative to the CSV's own folder, or in full. A CSV is read in
one way as a whole, and its rows decide in which. Full paths are the same in both and decide nothing.

    rows that find a file                      the CSV is read
    only below the root (some, or none)        relative to the root; what has no file is missing, as in all large lists
    only below the CSV's folder                relative to the CSV's folder
    some only in one, some only in the other   not at all: whichever were taken, files that are there would be missing
    half of them or more in both               not at all: they may mean either file, and too few rows decide
    fewer in both                              as the others: in large lists a few names are the same by chance
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from t3d_core.datasets.missing_videos import describe_none_found
from t3d_core.datasets.video_files import FilesByPath
from t3d_core.errors import UserError

_OTHER_ROOT = re.compile(r"/|[A-Za-z]:/|[a-z][a-z0-9+]+:/")  # absolute, a drive of Windows, an address


class ListedPath(NamedTuple):
    """A path as a CSV names it; of a full path, what follows the root."""

    path: str
    is_full: bool


class FoundPath(NamedTuple):
    """A path below the root, and the name on disk of its file: the path itself where there is no file."""

    path: str
    file_name: str


def path_below(root: Path, *, folder: Path) -> PurePosixPath | None:
    """Where root lies below a folder, an empty path if it is that folder; None if it lies elsewhere."""
    # Compared by name first: a root that is itself a link, data/weizmann -> /disk/weizmann, lies inside data.
    for resolve in (os.path.abspath, os.path.realpath):
        inner, outer = PurePosixPath(resolve(root)), PurePosixPath(resolve(folder))
        if inner.is_relative_to(outer):
            return inner.relative_to(outer)
    return None


class ListedPathParser:
    """Reads the paths of a CSV, row by row.

    Args:
        root: Folder or address of the videos; full paths and addresses below it are read too. Empty: unknown.
        files: The files below the root.
    """

    def __init__(self, root: str, *, files: FilesByPath) -> None:
        self._root, self._files = root, files
        names = [root.partition("?")[0]] if "://" in root else [os.path.abspath(root), os.path.realpath(root)]
        self._starts = tuple(f"{name.rstrip('/')}/" for name in names) if root else ()

    def parse(self, text: str, *, where: str) -> ListedPath:
        r"""Read one path. Backslashes separate folders, as Windows writes them, unless a file has that very name.

        Raises:
            UserError: The path is empty, or leads out of the root.
        """
        path = text if "\\" not in text or text in self._files else text.replace("\\", "/")
        inner = self._below_root(path)
        path = _without_empty_parts(path if inner is None else inner)
        if not path or _OTHER_ROOT.match(path) or "\0" in path or (".." in path and ".." in path.split("/")):
            raise UserError(
                f"{where}: path {text!r} must lead to a file below the root{f' {self._root!r}' * bool(self._root)}: "
                f"write it relative to the root, without '..'"
            )
        return ListedPath(path, is_full=inner is not None)

    def _below_root(self, path: str) -> str | None:
        """What follows the root in a full path or address; None if it is not one below the root."""
        if path.startswith("~"):
            path = os.path.expanduser(path)
        elif path.startswith("file://"):
            path = unquote(path.removeprefix("file://"))
        return next((path.removeprefix(start).lstrip("/") for start in self._starts if path.startswith(start)), None)


def find_listed(
    listed: Sequence[ListedPath], *, annotations: Path, root: str, files: FilesByPath
) -> list[FoundPath | None]:
    """Find the files of a CSV.

    Args:
        listed: The paths of all rows.
        annotations: The CSV file.
        root: Folder or address of the videos; empty where it is unknown.
        files: The files below the root.

    Returns:
        One entry a row; None for a path that lies outside the root.

    Raises:
        UserError: The CSV can be read in two ways, and its rows mix them, do not decide, or find nothing in either.
    """
    ways = [_Way()]
    if root and "://" not in root:
        ways += _ways_from_folder(annotations.parent, root=Path(root))
    paths_by_way = [[way.apply(each) for each in listed] for way in ways]
    names_by_way = [files.find([path for path in paths if path is not None]) for paths in paths_by_way]
    chosen = 0
    if len(ways) > 1:
        rows = _sort_rows(listed, paths_by_way, names_by_way)
        if not any(names_by_way) and any(rows):
            raise UserError(_describe_neither(paths_by_way, rows.neither[0], annotations, root=root, files=files))
        _check_decides(rows, annotations=annotations, root=root)
        chosen = 1 if rows.only_folder else 0
    names = names_by_way[chosen]
    return [None if path is None else FoundPath(path, names.get(path, path)) for path in paths_by_way[chosen]]


class _Way(NamedTuple):
    """How paths are read: relative to the root, or to a folder above it, or to one below it."""

    root_below_folder: str = ""
    folder_below_root: str = ""

    def apply(self, listed: ListedPath) -> str | None:
        """The path below the root; None if it lies outside."""
        if listed.is_full:
            return listed.path
        if self.root_below_folder:
            inner = listed.path.removeprefix(f"{self.root_below_folder}/")
            return inner if len(inner) < len(listed.path) else None
        return f"{self.folder_below_root}/{listed.path}" if self.folder_below_root else listed.path


def _ways_from_folder(folder: Path, *, root: Path) -> list[_Way]:
    """How paths relative to the CSV's folder are read; nothing where that is the root, or lies elsewhere."""
    above, below = path_below(root, folder=folder), path_below(folder, folder=root)
    if above is not None and above.parts:
        return [_Way(root_below_folder=str(above))]
    if below is not None and below.parts:
        return [_Way(folder_below_root=str(below))]
    return []


class _FoundRows(NamedTuple):
    """The paths of a CSV that are not full, by where they have a file: below the root, below the CSV's folder."""

    only_root: list[str]
    only_folder: list[str]
    both: list[str]
    neither: list[str]


def _sort_rows(
    listed: Sequence[ListedPath],
    paths_by_way: Sequence[Sequence[str | None]],
    names_by_way: Sequence[Mapping[str, str]],
) -> _FoundRows:
    in_root, in_folder = names_by_way
    groups: defaultdict[tuple[bool, bool], list[str]] = defaultdict(list)
    for each, path, path_from_folder in zip(listed, *paths_by_way, strict=True):
        if not each.is_full:
            groups[path in in_root, path_from_folder in in_folder].append(each.path)
    return _FoundRows(groups[True, False], groups[False, True], groups[True, True], groups[False, False])


def _check_decides(rows: _FoundRows, *, annotations: Path, root: str) -> None:
    """Refuse rows that mix the two ways, or most of which have a file in both."""
    num_root, num_folder, num_both = map(len, (rows.only_root, rows.only_folder, rows.both))
    if num_root and num_folder:
        first = min(rows.only_root, rows.only_folder, key=len)[0]
        raise UserError(
            f"{annotations} mixes two ways of writing paths (rows with a file below the root only: {num_root:,}, below "
            f"the CSV's own folder only: {num_folder:,}; looked for as "
            f"{_tried(first, annotations, root=root, word='and')}): write all of them in one way, or in full"
        )
    if num_both and num_both >= max(num_root, num_folder):
        raise UserError(
            f"{annotations} can be read in two ways (rows with a file below the root and another below the CSV's own "
            f"folder: {num_both:,}, such as {_tried(rows.both[0], annotations, root=root, word='and')}; with one of "
            f"them only: {max(num_root, num_folder):,}): write full paths, or move the CSV into the root if they are "
            f"relative to it"
        )


def _describe_neither(
    paths_by_way: Sequence[Sequence[str | None]], first: str, annotations: Path, *, root: str, files: FilesByPath
) -> str:
    return describe_none_found(
        [path for paths in paths_by_way for path in paths if path is not None],
        num_listed=len(paths_by_way[0]),
        name=Path(root).name,
        root=root,
        first=_tried(first, annotations, root=root, word="or"),
        file_names=files.names,
        holds=f"{len(files.names):,} other {'file' if len(files.names) == 1 else 'files'}",
    )


def _tried(path: str, annotations: Path, *, root: str, word: str) -> str:
    return f"{str(Path(root) / path)!r} {word} {str(annotations.parent / path)!r}"


def _without_empty_parts(path: str) -> str:
    """The path without `.` and empty parts: `./a//b.mp4` is `a/b.mp4`."""
    if "//" in path or "./" in path or path.endswith(("/", ".")):
        path = str(PurePosixPath(path))
    return "" if path == "." else path
