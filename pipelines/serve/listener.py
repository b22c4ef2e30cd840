"""An ASGI app listens on a port of this process, in a thread of its own.

Ray Serve's own proxy reads all that a client sends into memory before the app may refuse it: three requests of 2 GB
made it grow to 3 GB. uvicorn here stops reading while the app does.
"""

import asyncio
import socket
import threading
import time

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
    """Closes connections on which no request comes, or only a part of its headers, for which uvicorn waits for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in h11_impl
        super().connection_made(transport)
        self._seen, self._idle_since = self.cycle, time.monotonic()
        self.loop.call_later(_TICK_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.transport.is_closing():
            return
        is_at_work = self.cycle is not None and not self.cycle.response_complete
        if is_at_work or self.cycle is not self._seen:
            self._seen, self._idle_since = self.cycle, time.monotonic()
        elif time.monotonic() - self._idle_since > _IDLE_SECONDS:
            self.transport.abort()
            return
        self.loop.call_later(_TICK_SECONDS, self._close_if_idle)


class Listener:
    """Serves an app until it is closed.

    Args:
        app: what answers.
        host: address to listen on.
        port: port to listen on.
        is_shared: other processes of this machine may listen on the same port, and connections are spread over them.

    Raises:
        OSError: the port is taken, or the address is not of this machine.
    """

    def __init__(self, app: ASGIApp, *, host: str, port: int, is_shared: bool) -> None:
        self._socket = bound_socket(host, port, is_shared=is_shared)
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=_PatientProtocol,
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
