"""A server is stopped while a request is open; a call of the network takes too long."""

import socket
import threading
from pathlib import Path

import pytest

from pipelines.serve import job
from pipelines.serve.config import ServeConfig
from pipelines.serve.front import _patiently
from pipelines.serve.refusal import Refusal
from pipelines.serve.served_weights import find_weights_to_serve
from pipelines.serve.watched_decoder import Watch
from tests.pipelines.serve.conftest import Client, free_port

pytestmark = pytest.mark.heavy


def test_an_open_request_is_answered_before_a_server_ends(local_ray, weights, videos):
    config = ServeConfig(model=str(weights), port=free_port(), decoders=1, batch_size=3)
    video, client = Path(videos[0]).read_bytes(), Client(config.port)
    request = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(video)}\r\n\r\n".encode() + video
    server = job.serving(find_weights_to_serve(config), config, None)
    server.__enter__()
    stopping = threading.Thread(target=server.__exit__, args=(None, None, None))
    try:
        with socket.create_connection(("127.0.0.1", config.port), timeout=60) as slow:
            slow.sendall(request[:-10])
            while b" 1.0" not in client("GET", "/metrics").content.partition(b"t3d_serve_open_requests{")[2]:
                pass
            stopping.start()
            while is_listening(config.port):
                pass
            slow.sendall(request[-10:])
            assert slow.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    finally:
        if not stopping.ident:
            stopping.start()
        stopping.join()


class SlowCall:
    is_cancelled = False

    def result(self, *, timeout_s):
        raise TimeoutError

    def cancel(self):
        self.is_cancelled = True


def test_a_call_of_the_network_that_takes_too_long_is_cancelled():
    call = SlowCall()
    with pytest.raises(Refusal, match="no answer within 60 s"):
        _patiently(lambda: call, Watch(seconds=60), admission=None)
    assert call.is_cancelled


def is_listening(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
