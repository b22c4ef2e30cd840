"""One JSON line for each video, in a file that only grows, so that a job that is killed loses no whole line."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


class VideoLines:
    """The lines of a file; in memory are only the names of the videos and where their lines begin.

    Args:
        path: the file; what a killed job wrote in part at its end is cut off.
        is_done: whether a line is the result that is wanted.

    Attributes:
        done: names of the videos of whose last line `is_done` is true.
    """

    def __init__(self, path: Path, *, is_done: Callable[[Mapping[str, Any]], bool]) -> None:
        self.path, self._is_done = path, is_done
        self.done: set[str] = set()
        self._begin_of: dict[str, int] = {}  # of the last line of each video, in the order of the first ones
        if not path.exists():
            return
        end = 0
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    self._enter(json.loads(line), end)
                    end += len(line)
        os.truncate(path, end)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a line with the keys of `row`, one of which is `video`; it is on disk when this returns.

        Raises:
            OSError: it cannot be written; a line in part is cut off at the next start.
        """
        # Names may hold bytes that are not UTF-8, as surrogates, which JSON writes in ASCII.
        begin = append_synced(self.path, json.dumps(row).encode() + b"\n")
        self._enter(row, begin)

    def last_row(self, video: str) -> dict[str, Any]:
        """The last line of a video that has one."""
        with self.path.open("rb") as file:
            file.seek(self._begin_of[video])
            return json.loads(file.readline())

    def last_rows(self) -> Iterator[dict[str, Any]]:
        """The last line of each video, in the order in which the videos came first."""
        if not self._begin_of:
            return
        with self.path.open("rb") as file:
            for begin in self._begin_of.values():
                file.seek(begin)
                yield json.loads(file.readline())

    def _enter(self, row: Mapping[str, Any], begin: int) -> None:
        self._begin_of[row["video"]] = begin
        if self._is_done(row):
            self.done.add(row["video"])
        else:
            self.done.discard(row["video"])


def append_synced(path: Path, content: bytes | memoryview) -> int:
    """Write at the end of a file, to the disk; return where the content begins.

    Raises:
        OSError: it cannot be written, or in part.
    """
    with path.open("ab") as file:
        begin = file.tell()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return begin


def printable(text: str) -> str:
    """A text in which what is not UTF-8 is shown as codes."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
