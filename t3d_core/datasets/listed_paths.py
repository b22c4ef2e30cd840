"""The paths that a CSV names become names of files below the root.

People write paths relative to the root of the videos, relative to the CSV's own folder, or in full. A CSV is read in
one way as a whole: in the one that finds more of its videos, because in large lists some are always missing.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, NoReturn
from urllib.parse import unquote

from t3d_core.datasets.video_files import FilesByPath, describe_near_miss
from t3d_core.errors import UserError

_OTHER_ROOT = re.compile(r"/|[A-Za-z]:/|[a-z][a-z0-9+]+:/")  # absolute, a drive of Windows, an address


_COMPARED_PATHS = 1_000  # missing paths that are compared with the files there are


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
        UserError: The two ways of reading the CSV find equally many videos, or none.
    """
    ways = [_Way()]
    if root and "://" not in root:
        ways += _ways_from_folder(annotations.parent, root=Path(root))
    paths_by_way = [[way.apply(each) for each in listed] for way in ways]
    names_by_way = [files.find([path for path in paths if path is not None]) for paths in paths_by_way]
    counts = [len(names) for names in names_by_way]
    if len(ways) > 1 and counts[0] == counts[1] and not all(each.is_full for each in listed):
        example = next(each.path for each in listed if not each.is_full)
        tried = f"{str(Path(root) / example)!r} and {str(annotations.parent / example)!r}"
        if counts[0]:
            _refuse_both(counts[0], tried=tried, annotations=annotations)
        _refuse_neither(paths_by_way, tried=tried, root=root, files=files)
    best = counts.index(max(counts))
    names = names_by_way[best]
    return [None if path is None else FoundPath(path, names.get(path, path)) for path in paths_by_way[best]]


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


def _refuse_both(num_found: int, *, tried: str, annotations: Path) -> NoReturn:
    raise UserError(
        f"the paths of {annotations} lead to {num_found:,} files below the root, and to as many below the CSV's own "
        f"folder (the first: {tried}): move the CSV into the root, where both mean the same"
    )


def _refuse_neither(
    paths_by_way: Sequence[Sequence[str | None]], *, tried: str, root: str, files: FilesByPath
) -> NoReturn:
    paths = [path for paths in paths_by_way for path in paths[:_COMPARED_PATHS] if path is not None]
    near = files.find_near_miss(paths)
    cure = describe_near_miss(*near) if near else "write paths relative to the root, or give another root"
    raise UserError(
        f"not one of the {len(paths_by_way[0])} listed videos of {Path(root).name} is below root {root!r} (the first "
        f"was looked for as {tried}): {cure}"
    )


def _without_empty_parts(path: str) -> str:
    """The path without `.` and empty parts: `./a//b.mp4` is `a/b.mp4`."""
    if "//" in path or "./" in path or path.endswith(("/", ".")):
        path = str(PurePosixPath(path))
    return "" if path == "." else path
