"""One address of a web server is asked for its file, by rules for servers that cannot be trusted.

- The whole download has a time limit, however slowly its headers and bytes come: when it is over, the sockets are shut.
- Bodies of redirects and of errors are not read.
- Where addresses come from strangers, only public servers are asked: never this machine, its network or the metadata of
  its cloud. It is checked when a name is looked up and again when it is connected to, because it may lead elsewhere the
  second time; and so for every redirect.
"""

import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager, ProxyManager

from t3d_core.video.container import VideoError

SCHEMES = ("http://", "https://")
CONNECT_SECONDS, READ_SECONDS = 10, 30
# Before an address is asked again.
_PAUSES = (0.5, 1.0, 2.0)
_PASSING = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
# Networks that Python calls global: those whose addresses stand for others (NAT64, 6to4, Teredo, IPv4 in IPv6), old
# private ones, and Azure's internal server.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in "64:ff9b::/96 64:ff9b:1::/48 2002::/16 2001::/32 ::/96 ::ffff:0:0:0/96 fec0::/10 192.0.0.0/24 "
    "168.63.129.16/32".split()
)


class NotPublicError(Exception):
    """The address leads into a network that is not public."""


def is_web_address(text: str) -> bool:
    """Whether a text is the address of a web server."""
    return text.lower().startswith(SCHEMES)


@contextmanager
def open_download(
    address: str, *, only_public: bool, seconds: float, max_redirects: int
) -> Iterator[requests.Response]:
    """Ask for a file; the answer, of any status, is given before its body is read.

    Args:
        address: of the file.
        only_public: refuse servers in private networks.
        seconds: until the end of the block.
        max_redirects: how often the server may send on to another address.

    Raises:
        NotPublicError: only public servers are asked, and this is none.
        VideoError: too many redirects, or one that leads off the web.
        TimeoutError: the time is over.
        requests.RequestException, socket.gaierror: the server does not answer.
    """
    watch = _Watch(only_public=only_public)
    timer = threading.Timer(seconds, watch.end)
    timer.daemon = True
    timer.start()
    try:
        with _session(watch) as session, _follow(session, address, max_redirects, watch) as response:
            yield response
    except (requests.RequestException, OSError):
        if not watch.is_over():
            raise
    finally:
        timer.cancel()
    if watch.is_over():
        raise TimeoutError(f"the download takes more than {seconds:g} s")


class _Watch:
    """Sees every socket of a download, from its connection on."""

    def __init__(self, *, only_public: bool) -> None:
        self.only_public = only_public
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()

    def is_over(self) -> bool:
        return self._over.is_set()

    def pause(self, seconds: float) -> None:
        self._over.wait(seconds)

    def end(self) -> None:
        """Shut all sockets: whoever reads them wakes up."""
        self._over.set()
        for each in self._sockets:
            with suppress(OSError):  # it is closed
                each.shutdown(socket.SHUT_RDWR)

    def connected(self, new: socket.socket) -> socket.socket:
        """Take note of a socket, before anything is sent.

        Raises:
            NotPublicError: it may not be used.
        """
        if self.only_public:
            try:
                _check_public(new.getpeername()[0])
                if new.getpeername()[0] == new.getsockname()[0]:  # this machine, by its public address
                    raise NotPublicError
            except BaseException:
                new.close()
                raise
        # A copy, because TLS takes over the first one and leaves it closed.
        self._sockets.append(new.dup())
        if self.is_over():
            self.end()
        return new

    def close(self) -> None:
        for each in self._sockets:
            each.close()


@contextmanager
def _session(watch: _Watch) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = not watch.only_public  # a proxy would connect to where we must not; .netrc holds secrets
        for scheme in SCHEMES:
            session.mount(scheme, _WatchedAdapter(watch))
        try:
            yield session
        finally:
            watch.close()


class _WatchedAdapter(HTTPAdapter):
    """Connects under the eyes of a watch."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _watch_connections(self.poolmanager, self._watch)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> ProxyManager:
        manager: ProxyManager = super().proxy_manager_for(*args, **kwargs)
        _watch_connections(manager, self._watch)
        return manager

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        if self._watch.only_public:
            parts = urlsplit(str(request.url))
            for *_, place in socket.getaddrinfo(parts.hostname, parts.port or parts.scheme, type=socket.SOCK_STREAM):
                _check_public(str(place[0]))
        return super().send(request, *args, **kwargs)


def _watch_connections(manager: PoolManager, watch: _Watch) -> None:
    class Http(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return watch.connected(super()._new_conn())

    class Https(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return watch.connected(super()._new_conn())

    class HttpPool(HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(HTTPSConnectionPool):
        ConnectionCls = Https

    manager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}


def _follow(session: requests.Session, address: str, max_redirects: int, watch: _Watch) -> requests.Response:
    """The answer at the end of all redirects; `requests` itself would read the body of each."""
    for _ in range(max_redirects + 1):
        response = _ask_patiently(session, address, watch)
        if not response.is_redirect:
            return response
        address = urljoin(address, response.headers["location"])
        response.close()
        if not is_web_address(address):
            raise VideoError("unreadable: the server redirects to an address that is not http:// or https://")
    raise VideoError(f"unreadable: too many redirects, more than {max_redirects}")


def _ask_patiently(session: requests.Session, address: str, watch: _Watch) -> requests.Response:
    """Ask again where that may help."""
    for pause in _PAUSES:
        try:
            response = _ask(session, address)
            if response.status_code not in _PASSING:
                return response
            response.close()
        except requests.ConnectionError:
            if watch.is_over():
                raise
        watch.pause(pause)
    return _ask(session, address)


def _ask(session: requests.Session, address: str) -> requests.Response:
    request = session.prepare_request(requests.Request("GET", address))
    url = str(request.url)
    settings = session.merge_environment_settings(url, {}, True, None, None)
    return session.get_adapter(url).send(request, timeout=(CONNECT_SECONDS, READ_SECONDS), **settings)


def _check_public(ip: str) -> None:
    address = ipaddress.ip_address(ip.partition("%")[0])
    inner = getattr(address, "ipv4_mapped", None) or address
    if not inner.is_global or inner.is_multicast or any(inner in network for network in _NOT_PUBLIC):
        raise NotPublicError
