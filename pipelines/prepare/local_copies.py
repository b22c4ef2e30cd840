"""A remote video is copied to local disk while it is decoded; a killed process leaves no copy for long."""

import errno
import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from filelock import lock_descriptor

from t3d_core.video.container import VideoError

_PREFIX = "t3d-copy-"


class TooLargeError(VideoError):
    """A file has more bytes than are read."""


class LocalFile(NamedTuple):
    """A video on local disk, until the end of the context that opened it."""

    path: str
    num_bytes: int


class LocalCopy:
    """A copy in the making."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, part: bytes) -> None:
        """Append some bytes.

        Raises:
            OSError: the local disk is full, and the message says whose.
        """
        with self._named_full_disk():
            self._file.write(part)

    def local_file(self) -> LocalFile:
        """The file with all that was written."""
        with self._named_full_disk():
            self._file.flush()
        return LocalFile(self._file.name, self._file.tell())

    @contextmanager
    def _named_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                text = f"{error.strerror} for the copy of a remote video"
                raise OSError(error.errno, text, self._file.name) from error
            raise


@contextmanager
def new_copy(*, suffix: str) -> Iterator[LocalCopy]:
    """An empty file that is deleted at the end of the context; its lock shows that its process is alive."""
    _sweep()
    while True:
        with tempfile.NamedTemporaryFile(prefix=_PREFIX, suffix=suffix, delete=False) as file:
            lock_descriptor(file.fileno())
            if os.path.exists(file.name):  # otherwise it was swept before it was locked
                try:
                    yield LocalCopy(file)
                finally:
                    os.unlink(file.name)
                return


def check_size(num_bytes: int, max_bytes: int) -> None:
    """Refuse a file that is too large.

    Raises:
        TooLargeError: it has more than `max_bytes`.
    """
    if num_bytes > max_bytes:
        raise TooLargeError(
            f"the file has {num_bytes / 2**30:.3g} GiB, more than guard.source_gib {max_bytes / 2**30:.3g}"
        )


@functools.cache  # once a process
def _sweep() -> None:
    """Delete the copies that killed processes left on this machine: those without a lock."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError), path.open("rb") as copy:
            if lock_descriptor(copy.fileno(), blocking=False):
                path.unlink()
