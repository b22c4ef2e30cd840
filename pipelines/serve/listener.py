"""An ASGI app listens on a port of this process, in a thread of its own.

Ray Serve's own proxy reads all that a client sends into memory before the app may refuse it: three requests of 2 GB
made it grow to 3 GB. uvicorn here stops reading while the app does.
"""

import asyncio
import functools
import socket
import threading
import time
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_IDLE_SECONDS = 30
_TICK_SECONDS = 5
_START_SECONDS = 30
_END_SECONDS = 10
_MAX_CONNECTIONS = 1000
_BACKLOG = 256


class _PatientProtocol(H11Protocol):
    """Closes connections on which nothing moves, for which uvicorn waits for ever.

    No request comes, or only a part of its headers, or nobody reads the answer.
    """

    def __init__(self, *args: Any, max_of_client: int | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._max_of_client = max_of_client

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in h11_impl
        super().connection_made(transport)
        self._seen, self._num_left, self._moved_at = self.cycle, 0, time.monotonic()
        self._tick = self.loop.call_later(_TICK_SECONDS, self._close_if_still)
        self._host = self.client[0] if self.client else ""
        num_of_client = sum(
            isinstance(each, _PatientProtocol) and each._host == self._host for each in self.connections
        )
        if self._max_of_client is not None and num_of_client > self._max_of_client:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tick.cancel()
        super().connection_lost(exc)

    def _close_if_still(self) -> None:
        num_left = self.transport.get_write_buffer_size()
        is_at_work = self.cycle is not None and not self.cycle.response_complete and not num_left
        if is_at_work or self.cycle is not self._seen or num_left < self._num_left:
            self._moved_at = time.monotonic()
        elif time.monotonic() - self._moved_at > _IDLE_SECONDS:
            self.transport.abort()
            return
        self._seen, self._num_left = self.cycle, num_left
        self._tick = self.loop.call_later(_TICK_SECONDS, self._close_if_still)


class Listener:
    """Serves an app until it is closed.

    Args:
        app: what answers.
        host: address to listen on.
        port: port to listen on.
        is_shared: other processes of this machine may listen on the same port, and connections are spread over them.
        max_of_client: connections that one client address has at once; the next one is closed.

    Raises:
        OSError: the port is taken, or the address is not of this machine.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, port: int, is_shared: bool, max_of_client: int | None = None
    ) -> None:
        self._socket = bound_socket(host, port, is_shared=is_shared)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=functools.partial(_PatientProtocol, max_of_client=max_of_client),  # type: ignore[arg-type] # called alone
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # or X-Forwarded-For of a request would say who sends it
                server_header=False,
                limit_concurrency=_MAX_CONNECTIONS,
                backlog=_BACKLOG,
                timeout_keep_alive=_IDLE_SECONDS,
                timeout_graceful_shutdown=_END_SECONDS,
            )
        )
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started and self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self._server.started:
            raise OSError(f"the server does not start on {host}:{port}; see its log")

    def is_alive(self) -> bool:
        """Whether it still listens."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Take no more connections, and wait some seconds for the requests that are open."""
        self._server.should_exit = True
        self._thread.join(_END_SECONDS + 1)


def bound_socket(host: str, port: int, *, is_shared: bool) -> socket.socket:
    """A socket that has the port.

    Raises:
        OSError: the port is taken, or the address is not of this machine.
    """
    [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
