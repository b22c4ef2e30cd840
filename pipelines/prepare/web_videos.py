"""Videos of web servers, by their http:// and https:// addresses.

A video is downloaded to local disk before it is decoded, like those of object stores (see `web_download`).
"""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import requests

from pipelines.prepare.local_copies import LocalFile, check_size, new_copy
from pipelines.prepare.sources import MissingVideoError
from pipelines.prepare.web_download import CONNECT_SECONDS, READ_SECONDS, NotPublicError, open_download
from t3d_core.datasets.video_files import is_video_name
from t3d_core.errors import UserError
from t3d_core.video.container import VideoError

_PART_BYTES = 1 << 16


@dataclass(frozen=True)
class WebRoot:
    """All web servers; the name of a video is its address.

    Attributes:
        only_public: refuse servers in private networks, for addresses that strangers give.
        seconds: time for one download.
        max_redirects: how often a server may send on to another address.
    """

    only_public: bool = False
    seconds: float = 3600.0
    max_redirects: int = 5

    @contextmanager
    def open_locally(self, name: str, *, max_bytes: int) -> Iterator[LocalFile]:
        """Download a video; the copy is deleted at the end of the context.

        Raises:
            MissingVideoError: there is none.
            VideoError: the server refuses, sends a web page or more than `max_bytes`, or must not be asked.
            OSError: the server does not answer, or not in time; or the local disk is full.
        """
        check_web_address(name)
        download = open_download(
            name, only_public=self.only_public, seconds=self.seconds, max_redirects=self.max_redirects
        )
        with new_copy(suffix=_suffix_of(name)) as copy:
            with _request_errors(name), download as response:
                _check_answer(response)
                announced = response.headers.get("Content-Length", "")
                check_size(int(announced) if announced.isdecimal() else 0, max_bytes)
                num_bytes = 0
                for part in response.iter_content(_PART_BYTES):
                    num_bytes += len(part)
                    check_size(num_bytes, max_bytes)
                    copy.write(part)
            yield copy.local_file()


def check_web_address(address: str) -> None:
    """Refuse what is no address, and one that holds a password.

    Raises:
        UserError: it is one of these.
    """
    try:
        parts = urlsplit(address)
        has_host, has_secret = bool(parts.hostname), parts.username is not None
        _ = parts.port
    except ValueError:
        has_host = has_secret = False
    if not has_host:
        raise UserError(f"{address!r} is not a web address: give one like https://host/clip.mp4")
    if has_secret:
        raise UserError(
            f"the address '{parts.scheme}://...@{parts.hostname}' contains a secret, which would be written down: put "
            "it into ~/.netrc"
        )


def _check_answer(response: requests.Response) -> None:
    status = response.status_code
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise MissingVideoError("not found")
    if not response.ok:
        raise VideoError(f"unreadable: the server answers {status} {response.reason}".rstrip())
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/html":
        raise VideoError("not a video: the address gives a web page")


@contextmanager
def _request_errors(address: str) -> Iterator[None]:
    host = urlsplit(address).hostname
    try:
        yield
    except NotPublicError:
        raise VideoError("refused: the address does not lead to a public server") from None
    except requests.RequestException as error:
        raise OSError(f"{host} does not answer: {_cause_of(error)}") from error
    except (socket.gaierror, UnicodeError):  # UnicodeError: a name that no server can have
        raise OSError(f"{host} does not answer: there is no server of this name") from None


def _cause_of(error: requests.RequestException) -> str:
    """What happened, without the frames that each library puts around it."""
    texts: Mapping[type[requests.RequestException], str] = {
        requests.exceptions.SSLError: "its certificate is not trusted",
        requests.ConnectTimeout: f"no connection within {CONNECT_SECONDS} s",
        requests.ReadTimeout: f"nothing came for {READ_SECONDS} s",
        requests.exceptions.ChunkedEncodingError: "the connection broke before the end of the file",
    }
    for kind, text in texts.items():
        if isinstance(error, kind):
            return text
    text = str(error)
    if "NameResolutionError" in text:
        return "there is no server of this name"
    if "refused" in text:
        return "the connection is refused"
    return type(error).__name__


def _suffix_of(address: str) -> str:
    name = PurePosixPath(urlsplit(address).path).name
    return os.path.splitext(name)[1] if is_video_name(name) else ""
