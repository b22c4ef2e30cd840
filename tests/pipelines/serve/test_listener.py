import asyncio
import socket
import time

import pytest

from pipelines.serve import listener
from pipelines.serve.listener import Listener
from tests.pipelines.serve.conftest import free_port

LARGE = b"x" * (16 << 20)
GET = b"GET /%s HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n%s\r\n"


async def app(scope, receive, send):
    """Says who asks, takes its time for it, or sends much."""
    body = LARGE if scope["path"] == "/large" else scope["client"][0].encode()
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def connect(monkeypatch):
    monkeypatch.setattr(listener, "_IDLE_SECONDS", 0.4)
    monkeypatch.setattr(listener, "_TICK_SECONDS", 0.05)
    port = free_port()
    server = Listener(app, host="127.0.0.1", port=port, is_shared=False, max_of_client=3)
    opened = []

    def connect(sent=b""):
        opened.append(socket.socket())
        opened[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        opened[-1].settimeout(20)
        opened[-1].connect(("127.0.0.1", port))
        opened[-1].sendall(sent)
        return opened[-1]

    yield connect
    for each in opened:
        each.close()
    server.close()
    assert not server.is_alive()


def read_all(connection, *, pause=0.0):
    """What comes until the server closes the connection."""
    parts = []
    try:
        while part := connection.recv(1 << 19):
            parts.append(part)
            time.sleep(pause)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: loc"])
def test_a_connection_without_a_request_is_closed(connect, sent):
    assert read_all(connect(sent)) == b""


def test_a_request_that_takes_long_is_waited_for_and_its_sender_is_who_connects(connect):
    assert read_all(connect(GET % (b"slow", b""))).endswith(b"\r\n127.0.0.1")


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"])
def test_who_reads_slowly_gets_all_of_the_answer(connect, header):
    assert read_all(connect(GET % (b"large", header)), pause=0.02).endswith(LARGE)


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"])
def test_who_does_not_read_loses_the_connection(connect, header):
    connection = connect(GET % (b"large", header))
    time.sleep(1)
    assert len(read_all(connection)) < len(LARGE)


def test_a_client_has_so_many_connections_and_no_more(connect):
    held = [connect(GET % (b"slow", b"")) for _ in range(3)]
    assert read_all(connect(GET % (b"", b""))) == b""
    assert [each.recv(1 << 16)[:15] for each in held] == [b"HTTP/1.1 200 OK"] * 3
