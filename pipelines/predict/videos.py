"""What a user names, videos, folders, lists and addresses, becomes the videos to classify, before any is opened."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipelines.prepare.local_copies import LocalFile
from pipelines.prepare.sources import LocalRoot, VideoRoot, open_root, remote_root
from pipelines.prepare.web_download import is_web_address
from pipelines.prepare.web_videos import WebRoot, check_web_address
from pipelines.runtime.paths import input_path
from t3d_core.datasets.annotation_files import read_csv_rows, read_lines
from t3d_core.datasets.video_files import extension_of, is_video_name
from t3d_core.errors import UserError

_LIST_EXTENSIONS = (".txt", ".csv", ".tsv")
_STORES = ("s3://", "gs://", "gcs://", "abfs://", "abfss://", "file://")


@dataclass(frozen=True)
class NamedVideo:
    """One video.

    Attributes:
        name: its absolute path, or its address.
        root: where it lies.
        inner: its name below the root.
        num_bytes: size of the file where that is known without asking a store, else 0.
    """

    name: str
    root: VideoRoot | WebRoot
    inner: str
    num_bytes: int = 0

    def open(self, *, max_bytes: int) -> AbstractContextManager[LocalFile]:
        """Open the file, as `VideoRoot.open_locally`."""
        return self.root.open_locally(self.inner, max_bytes=max_bytes)


def find_videos(inputs: Sequence[str]) -> list[NamedVideo]:
    """The videos that are meant, each once, in the order of the inputs; those of a folder are sorted by name.

    A video that does not exist is found all the same, and fails when it is opened: it must not stop the others.

    Raises:
        UserError: nothing is named, a list or a folder cannot be read or holds no video, or a kind of address is
            unknown.
    """
    if not inputs:
        raise UserError(
            "no video is given: name videos, folders or lists, as in `python jobs/predict.py clip.mp4`, "
            "or `--inputs clip.mp4`"
        )
    videos = [video for each in inputs for video in _find(each)]
    return list({video.name: video for video in videos}.values())


def named_video(given: str) -> NamedVideo:
    """The one video at a path or an address, whatever its name looks like.

    Raises:
        UserError: a kind of address is unknown, or it cannot be one of a file.
    """
    if "://" not in given:
        return _of_file(input_path(Path(given)))
    _check_kind(given)
    return NamedVideo(given, WebRoot(), given) if is_web_address(given) else _of_store(given)


def _find(given: str) -> Iterator[NamedVideo]:
    if "://" in given:
        yield from _of_address(given)
        return
    path = input_path(Path(given))
    if os.path.isdir(path):  # unlike `Path.is_dir`, it takes any name
        yield from _of_folder(os.path.abspath(path), open_root(path))
    elif extension_of(given) in _LIST_EXTENSIONS:
        yield from _of_list(path)
    else:
        yield _of_file(path)


def _of_address(address: str) -> Iterator[NamedVideo]:
    _check_kind(address)
    if is_web_address(address):
        check_web_address(address)
        yield NamedVideo(address, WebRoot(), address)
    elif is_video_name(address.partition("?")[0].rpartition("/")[2]):
        yield _of_store(address)
    else:
        yield from _of_folder(address, open_root(address))


def _check_kind(address: str) -> None:
    if not is_web_address(address) and not address.startswith(_STORES):
        raise UserError(
            f"input {address!r} is not read: give a local path, or an address that begins with http://, https://, "
            f"{', '.join(_STORES)}"
        )


def _of_store(address: str) -> NamedVideo:
    """A file of a store; whether it is there shows when it is opened."""
    if address.startswith("file://"):
        return _of_file(Path(unquote(urlsplit(address).path)))
    where, _, query = address.partition("?")
    folder, _, name = where.rpartition("/")
    if not name or folder.endswith(":/"):
        raise UserError(f"input {address!r} names no file: give an address like s3://bucket/clip.mp4")
    return NamedVideo(address, remote_root(f"{folder}?{query}" if query else folder), name)


def _of_folder(given: str, root: VideoRoot) -> Iterator[NamedVideo]:
    found = root.list_files()
    names = sorted(filter(is_video_name, found.sizes))
    if not names:
        raise UserError(f"folder {given!r} holds no videos ({found.describe()}): give another one, or name files")
    folder = given.partition("?")[0].rstrip("/")
    for name in names:
        yield NamedVideo(f"{folder}/{name}", root, name, found.sizes[name])


def _of_list(path: Path) -> Iterator[NamedVideo]:
    """The videos of a list; relative paths start from the folder of the list, or else from the working folder."""
    if extension_of(path.name) == ".txt":
        paths = [line for _, line in read_lines(path)]
    else:
        paths = [row["path"] for _, row in read_csv_rows(path, required=["path"])]
    if not paths:
        raise UserError(f"list {str(path)!r} names no videos")
    for name in paths:
        if "://" in name:
            yield from _of_address(name)
        else:
            beside = path.parent / name
            yield _of_file(beside if os.path.exists(beside) else input_path(Path(name)))


def _of_file(path: Path) -> NamedVideo:
    real = Path(os.path.realpath(path))
    num_bytes = os.path.getsize(real) if os.path.isfile(real) else 0
    return NamedVideo(os.path.abspath(path), LocalRoot(real.parent), real.name, num_bytes)
