import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pipelines.serve.addresses import address_in, check_address, open_address
from pipelines.serve.config import ServeConfig
from pipelines.serve.refusal import Refusal
from t3d_core.video.container import VideoError

LISTED = ServeConfig(allowed_addresses=("https://videos.example.com/clips/", "s3://bucket/videos/"))
PUBLIC = ServeConfig(public_addresses=True)


def refused(address, config):
    with pytest.raises(Refusal) as refusal:
        check_address(address, config)
    return refusal.value.status


def test_by_default_no_address_is_read():
    for address in ("https://example.com/a.mp4", "http://127.0.0.1/a.mp4", "s3://bucket/a.mp4"):
        assert refused(address, ServeConfig()) == 403


@pytest.mark.parametrize(
    "address",
    [
        "https://videos.example.com/clips/a.mp4",
        "https://VIDEOS.example.com/clips/b/c.mp4?x=1",
        "s3://bucket/videos/a.mp4",
    ],
)
def test_what_lies_below_a_listed_address_is_read(address):
    assert check_address(address, LISTED)


@pytest.mark.parametrize(
    "address",
    [
        "https://videos.example.com/other/a.mp4",
        "https://videos.example.com/clips",
        "https://videos.example.com/clips/../private/a.mp4",
        "https://videos.example.com/clips/%2e%2e/private/a.mp4",
        "https://videos.example.com/clips/%252e%252e%252fprivate/a.mp4",
        "https://videos.example.com/clips/..%5cprivate",
        "https://videos.example.com.evil.org/clips/a.mp4",
        "https://videos.example.com:8443/clips/a.mp4",
        "http://videos.example.com/clips/a.mp4",
        "s3://bucket/videos2/a.mp4",
        "s3://bucket/videos/../a.mp4",
        "s3://bucket/videos/a.mp4?endpoint_override=169.254.169.254:80&scheme=http",
        "s3://bucket/videos/a.mp4#/../../b.mp4",
    ],
)
def test_what_only_looks_like_a_listed_address_is_refused(address):
    assert refused(address, LISTED) == 403


@pytest.mark.parametrize(
    "address",
    ["", "a.mp4", "file:///etc/passwd", "https://", "https:///a", "https://user:pw@videos.example.com/clips/a.mp4", "https://x:99999999/a",
     "https://videos.example.com\\@evil.org/clips/a", "https://a b/c", "https://a/\nb", "http://[::1/a"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address):
    assert refused(address, LISTED) == refused(address, PUBLIC) == 400


@pytest.mark.parametrize("address", ["s3://bucket/a.mp4", "ftp://example.com/a", "gopher://a/b"])
def test_public_addresses_are_those_of_web_servers(address):
    assert refused(address, PUBLIC) == 403
    assert not check_address("https://example.com/a.mp4", PUBLIC)


@pytest.fixture
def redirecting():
    """A server on this machine that sends on to another address of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.endswith("moved.mp4"):
                self.send_response(302)
                self.send_header("Location", "/secret")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"video")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_private_server_is_asked_only_if_it_is_listed_and_may_not_send_on(redirecting, monkeypatch):
    listed = ServeConfig(allowed_addresses=(f"{redirecting}/clips/",))
    with open_address(f"{redirecting}/clips/a.mp4", listed) as file:
        assert open(file.path, "rb").read() == b"video"
    with pytest.raises(VideoError, match="too many redirects"), open_address(f"{redirecting}/clips/moved.mp4", listed):
        pass
    both = listed.model_copy(update={"public_addresses": True})
    for config in (PUBLIC, both):
        with pytest.raises(VideoError, match="public server"), open_address(f"{redirecting}/secret", config):
            pass
    # A name that leads here is no way around.
    lookup = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: lookup("127.0.0.1", *rest, **more))
    port = redirecting.rpartition(":")[2]
    with pytest.raises(VideoError, match="public server"), open_address(f"http://example.com:{port}/a.mp4", PUBLIC):
        pass


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'"https://a/b"', b'{"address": 3}', b"\xff", b"[" * 100_000])
def test_json_without_an_address_is_refused(body):
    with pytest.raises(Refusal) as refusal:
        address_in(body)
    assert refusal.value.status == 400
    assert address_in(b'{"address": "https://a/b"}') == "https://a/b"
