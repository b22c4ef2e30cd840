"""Videos of web servers, by their http:// and https:// addresses.

A video is downloaded to local disk before it is decoded, like those of object stores. Where the addresses come from
strangers, only public servers are asked: never this machine, its network or the metadata of its cloud. It is checked
twice, before and after connecting, because a name may lead elsewhere the second time; and so for every redirect.
"""

import ipaddress
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.retry import Retry

from pipelines.prepare.local_copies import LocalFile, check_size, new_copy
from pipelines.prepare.sources import MissingVideoError
from t3d_core.datasets.video_files import is_video_name
from t3d_core.errors import UserError
from t3d_core.video.container import VideoError

_SCHEMES = ("http://", "https://")
_CONNECT_SECONDS, _READ_SECONDS = 10, 30
_RETRY = Retry(
    total=3,
    redirect=False,  # requests follows them
    backoff_factor=0.5,
    status_forcelist=[429, 500, 502, 503, 504],
    raise_on_status=False,
    respect_retry_after_header=False,  # it may ask for hours
)
_PART_BYTES = 1 << 16
# Networks whose addresses stand for others: NAT64, 6to4, Teredo.
_TUNNELS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))


class _NotPublicError(Exception):
    """The address leads into a network that is not public."""


def is_web_address(text: str) -> bool:
    """Whether a text is the address of a web server."""
    return text.lower().startswith(_SCHEMES)


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
        with new_copy(suffix=_suffix_of(name)) as copy:
            with _request_errors(name), self._session() as session, self._get(session, name) as response:
                _check_answer(response)
                announced = response.headers.get("Content-Length", "")
                check_size(int(announced) if announced.isdecimal() else 0, max_bytes)
                with _ended_after(self.seconds, response):
                    num_bytes = 0
                    for part in response.iter_content(_PART_BYTES):
                        num_bytes += len(part)
                        check_size(num_bytes, max_bytes)
                        copy.write(part)
            yield copy.local_file()

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.max_redirects = self.max_redirects
        session.trust_env = not self.only_public  # a proxy would connect to where we must not; .netrc holds secrets
        adapter = _PublicAdapter(max_retries=_RETRY) if self.only_public else HTTPAdapter(max_retries=_RETRY)
        for scheme in _SCHEMES:
            session.mount(scheme, adapter)
        return session

    def _get(self, session: requests.Session, address: str) -> requests.Response:
        return session.get(address, stream=True, timeout=(_CONNECT_SECONDS, _READ_SECONDS))


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


class _PublicAdapter(HTTPAdapter):
    """Connects to public servers only."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PublicHttpPool, "https": _PublicHttpsPool}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        parts = urlsplit(str(request.url))
        for *_, place in socket.getaddrinfo(parts.hostname, parts.port or parts.scheme, type=socket.SOCK_STREAM):
            _check_public(str(place[0]))
        return super().send(request, *args, **kwargs)


class _PublicHttpConnection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _check_public(self.sock.getpeername()[0])


class _PublicHttpsConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _check_public(self.sock.getpeername()[0])


class _PublicHttpPool(HTTPConnectionPool):
    ConnectionCls = _PublicHttpConnection


class _PublicHttpsPool(HTTPSConnectionPool):
    ConnectionCls = _PublicHttpsConnection


def _check_public(ip: str) -> None:
    address = ipaddress.ip_address(ip.partition("%")[0])
    inner = getattr(address, "ipv4_mapped", None) or address
    if not inner.is_global or inner.is_multicast or any(inner in tunnel for tunnel in _TUNNELS):
        raise _NotPublicError


@contextmanager
def _ended_after(seconds: float, response: requests.Response) -> Iterator[None]:
    """End a download after its time, however slowly its bytes come."""
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        with suppress(RuntimeError):  # it has just ended by itself
            response.raw.shutdown()

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield
    except requests.RequestException:
        if not is_over.is_set():
            raise
    finally:
        timer.cancel()
    if is_over.is_set():
        raise TimeoutError(f"the download takes more than {seconds:g} s")


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
    except _NotPublicError:
        raise VideoError("refused: the address does not lead to a public server") from None
    except requests.TooManyRedirects:
        raise VideoError("unreadable: too many redirects") from None
    except requests.exceptions.InvalidSchema:
        raise VideoError("unreadable: the server redirects to an address that is not http:// or https://") from None
    except requests.RequestException as error:
        raise OSError(f"{host} does not answer: {_cause_of(error)}") from error
    except (socket.gaierror, UnicodeError):  # UnicodeError: a name that no server can have
        raise OSError(f"{host} does not answer: there is no server of this name") from None


def _cause_of(error: requests.RequestException) -> str:
    """What happened, without the frames that each library puts around it."""
    texts: Mapping[type[requests.RequestException], str] = {
        requests.exceptions.SSLError: "its certificate is not trusted",
        requests.ConnectTimeout: f"no connection within {_CONNECT_SECONDS} s",
        requests.ReadTimeout: f"nothing came for {_READ_SECONDS} s",
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
    return f"{type(error).__name__}"


def _suffix_of(address: str) -> str:
    name = PurePosixPath(urlsplit(address).path).name
    return os.path.splitext(name)[1] if is_video_name(name) else ""
