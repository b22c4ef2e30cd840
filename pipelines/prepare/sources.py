"""The video files below the root of a data set, a local folder or any address of pyarrow.fs (s3://, gs://).

The root is listed once, when records are made; after that each task opens its files by name. A remote file is copied
to local disk while it is decoded, so that the guarded decoder needs no network and reads plain files.
"""

import errno
import functools
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from pipelines.prepare.found_files import FoundFiles
from pipelines.prepare.local_copies import LocalFile, check_size, new_copy
from pipelines.runtime.paths import input_path
from t3d_core.datasets.left_behind import first_left_behind, is_left_behind
from t3d_core.datasets.video_files import may_be_video
from t3d_core.errors import UserError
from t3d_core.video.container import VideoError

_COPY_BYTES = 8 << 20
_RETRY_SECONDS = 30
_MAX_REASON = 300


class MissingVideoError(VideoError):
    """A listed video does not exist."""


@dataclass(frozen=True)
class LocalRoot:
    """A folder on this machine, or one that all nodes share."""

    folder: Path

    @property
    def address(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def name(self) -> str:
        """Name of the data set in this root."""
        return self.folder.name

    def list_files(self) -> FoundFiles:
        """List the folder once; names hold bytes that are not UTF-8 as surrogates. What was left behind is not entered.

        Raises:
            UserError: a folder is a link, because links are not followed, or it may not be read.
        """
        found = FoundFiles()
        inner_folders = [""]
        while inner_folders:
            inner = inner_folders.pop()
            for entry in self._scan(inner):
                if is_left_behind(entry.name):
                    found.add_left_behind(entry.name)
                elif not _is_folder(entry):
                    found.add(inner + entry.name, functools.partial(self._size, entry))
                elif entry.is_symlink():
                    raise UserError(
                        f"{entry.path!r} is a link to a folder, which is not followed: put the folder itself there"
                    )
                else:
                    inner_folders.append(f"{inner}{entry.name}/")
        return found

    def sizes_of(self, names: Collection[str]) -> dict[str, int]:
        """Look for files by name: name -> size in bytes of those that there are, 0 for those that are not read."""
        is_inside = functools.cache(self._holds)  # of the folders, of which there are few
        sizes = {}
        for name in names:
            path = os.path.join(self.folder, name)
            try:
                status = os.lstat(path)
            except (OSError, ValueError):  # ValueError: a name that no file can have
                continue
            is_link = stat.S_ISLNK(status.st_mode)
            if not is_inside(os.path.dirname(path)) or (is_link and not self._holds(path)):
                sizes[name] = 0
            else:
                sizes[name] = os.path.getsize(path) if is_link and os.path.exists(path) else status.st_size
        return sizes

    @contextmanager
    def open_locally(self, name: str, *, max_bytes: int) -> Iterator[LocalFile]:
        """Open the file itself.

        Raises:
            MissingVideoError: there is none.
            VideoError: it is a link that leads out of the root, not a file, or larger than `max_bytes`.
        """
        path = os.path.join(self.folder, name)
        # A downloaded data set must not make us read and store other files of this machine.
        if not self._holds(path):
            raise VideoError(f"leads out of {str(self.folder)!r}, to {os.path.realpath(path)!r}")
        if not os.path.lexists(path):
            raise MissingVideoError("not found")
        if not os.path.isfile(path):
            raise VideoError("unreadable: not a regular file")
        num_bytes = os.path.getsize(path)
        check_size(num_bytes, max_bytes)
        yield LocalFile(path, num_bytes)

    def _holds(self, path: str) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.folder))

    def _scan(self, inner: str) -> list[os.DirEntry[str]]:
        folder = os.path.join(self.folder, inner)
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except PermissionError as error:
            raise UserError(f"{folder!r} may not be read by this user: allow it, or move it out of the root") from error

    def _size(self, entry: os.DirEntry[str]) -> int:
        """Size of the file; for a link that leads nowhere or out of the root, the size of the link itself."""
        with suppress(OSError):
            if entry.is_symlink() and self._holds(entry.path):
                return os.path.getsize(entry.path)
        return entry.stat(follow_symlinks=False).st_size


@dataclass(frozen=True)
class RemoteRoot:
    """A prefix of an object store, or any other address of pyarrow.fs."""

    address: str

    @property
    def name(self) -> str:
        """As `LocalRoot.name`."""
        return PurePosixPath(_filesystem(self.address)[1]).name

    def list_files(self) -> FoundFiles:
        """As `LocalRoot.list_files`; a folder that was left behind is counted once."""
        filesystem, base = _filesystem(self.address)
        found, left_behind = FoundFiles(), set()
        for file in filesystem.get_file_info(fs.FileSelector(base, recursive=True)):
            if file.type == fs.FileType.File:
                name = file.path.removeprefix(f"{base}/")
                if path := first_left_behind(name):
                    left_behind.add(path)
                else:
                    found.add(name, functools.partial(int, file.size))
        for path in left_behind:
            found.add_left_behind(path.rpartition("/")[2])
        return found

    def sizes_of(self, names: Collection[str]) -> dict[str, int]:
        """As `LocalRoot.sizes_of`; only for names that the listing passes over, as each takes a request."""
        filesystem, base = _filesystem(self.address)
        passed_over = [name for name in names if not may_be_video(name)]
        files = filesystem.get_file_info([f"{base}/{name}" for name in passed_over])
        return {name: file.size for name, file in zip(passed_over, files, strict=True) if file.type == fs.FileType.File}

    @contextmanager
    def open_locally(self, name: str, *, max_bytes: int) -> Iterator[LocalFile]:
        """Copy the file to local disk; the copy is deleted at the end of the context.

        Raises:
            MissingVideoError: there is none.
            VideoError: it cannot be read, or is larger than `max_bytes`.
            OSError: the local disk is full.
        """
        with new_copy(suffix=PurePosixPath(name).suffix) as copy:
            with _reading_errors():
                filesystem, base = _filesystem(self.address)
                with filesystem.open_input_file(f"{base}/{name}") as remote:
                    check_size(remote.size(), max_bytes)
                    while part := remote.read(_COPY_BYTES):
                        copy.write(part)
            yield copy.local_file()


VideoRoot = LocalRoot | RemoteRoot


def open_root(root: str | Path) -> VideoRoot:
    """Open a folder (a relative one as in `input_path`) or an address such as `s3://bucket/videos?region=...`.

    Raises:
        UserError: the folder or prefix does not exist, the kind of address is unknown, or it holds a password.
    """
    address = str(root)
    if "://" not in address:
        return _open_folder(input_path(Path(address)))
    if urlsplit(address).scheme == "file":
        return _open_folder(Path(unquote(urlsplit(address).path)))
    remote = remote_root(address)
    try:
        filesystem, base = _filesystem(address)
        kind = filesystem.get_file_info(base).type
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"root {address!r} cannot be opened: {_first_line(error)[:_MAX_REASON]}; check the address, the network "
            "and the credentials in the environment"
        ) from error
    if kind != fs.FileType.Directory:
        raise UserError(f"root {address!r} is empty: give the address of the folder of the videos")
    return remote


def remote_root(address: str) -> RemoteRoot:
    """As `open_root` of an address of a store, which is not asked for it.

    Raises:
        UserError: it holds a password.
    """
    scheme, _, rest = address.partition("://")
    if "@" in rest:  # a secret may hold slashes
        raise UserError(
            f"root '{scheme}://...@{rest.rpartition('@')[2]}' contains a secret, which would be logged: give it in "
            "environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    return RemoteRoot(address)


def _open_folder(folder: Path) -> LocalRoot:
    if not folder.is_dir():
        raise UserError(f"root {str(folder)!r} is not a folder: give the folder of the videos")
    return LocalRoot(Path(os.path.abspath(folder)))


@functools.lru_cache(64)
def _filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """The store and the prefix in it; made in each process, because its connections cannot be sent to workers."""
    if uri.startswith(("gs://", "gcs://")) and "retry_limit_seconds=" not in uri:  # its own limit is 15 minutes
        uri = f"{uri}{'&' if '?' in uri else '?'}retry_limit_seconds={_RETRY_SECONDS}"
    filesystem, base = fs.FileSystem.from_uri(uri)
    return filesystem, base.rstrip("/")


@contextmanager
def _reading_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise MissingVideoError("not found") from None
    except pa.ArrowException as error:
        raise VideoError(f"unreadable: {_first_line(error)}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(error.errno, _first_line(error)) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    with suppress(OSError):  # of links that lead to themselves
        return entry.is_dir()
    return False


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
