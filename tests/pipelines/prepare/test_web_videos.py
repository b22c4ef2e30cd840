import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from pipelines.prepare import web_download
from pipelines.prepare.sources import MissingVideoError
from pipelines.prepare.web_videos import WebRoot, check_web_address
from t3d_core.errors import UserError
from t3d_core.video.container import VideoError


class Pages(BaseHTTPRequestHandler):
    """Answers by the path that is asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        name = self.path.partition("?")[0].strip("/")
        if name.isdigit():
            self._answer(int(name), b"")
        elif name == "busy-once.mp4" and self.asked.count(self.path) == 1:
            self._answer(503, b"")
        elif name == "loop":
            self._answer(302, b"", Location="/loop")
        elif name == "to-private":
            self._answer(302, b"", Location="http://127.0.0.1:1/a.mp4")
        elif name == "to-file":
            self._answer(302, b"", Location="file:///etc/passwd")
        elif name == "page.html":
            self._answer(200, b"<html>", **{"Content-Type": "text/html; charset=utf-8"})
        elif name == "odd-length.mp4":
            self._answer(200, b"123", **{"Content-Length": "many"})
        elif name == "cut.mp4":
            self._answer(200, b"123", **{"Content-Length": "10"})
        elif name.startswith("endless-"):
            self.send_response(int(name.removeprefix("endless-")))
            self.send_header("Location", "/a.mp4")
            self.end_headers()
            self._send_for_ever(b"x" * 10_000)
        elif name == "slow-headers":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
            self._send_for_ever(b"x")
        else:
            self._answer(200, self.path.encode())

    def _answer(self, status, body, **headers):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def _send_for_ever(self, part):
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(part)
                time.sleep(0.01)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(web_download, "_PAUSES", (0, 0, 0))


def download(address, *, max_bytes=1000, **settings):
    with WebRoot(**settings).open_locally(address, max_bytes=max_bytes) as file:
        assert file.num_bytes > 0
        with open(file.path, "rb") as copy:
            return copy.read(), file.path


def test_a_video_is_downloaded_with_its_query_and_deleted_again(server):
    content, path = download(f"{server}/a%20b.mp4?key=1")
    assert content == b"/a%20b.mp4?key=1"
    assert path.endswith(".mp4")
    with pytest.raises(FileNotFoundError):
        open(path)


def test_a_server_that_is_busy_is_asked_again(server):
    assert download(f"{server}/busy-once.mp4")[0] == b"/busy-once.mp4"


def test_a_length_that_is_no_number_is_passed_over(server):
    assert download(f"{server}/odd-length.mp4")[0] == b"123"


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("404", MissingVideoError, "not found"),
        ("410", MissingVideoError, "not found"),
        ("403", VideoError, "the server answers 403 Forbidden"),
        ("loop", VideoError, "too many redirects, more than 5"),
        ("to-file", VideoError, "redirects to an address that is not http"),
        ("to-private", OSError, r"127\.0\.0\.1 does not answer: the connection is refused"),
        ("page.html", VideoError, "gives a web page"),
        ("cut.mp4", OSError, "the connection broke before the end"),
        ("long" * 500, VideoError, "more than guard.source_gib"),
    ],
)
def test_what_is_no_video_has_a_reason(server, name, kind, reason):
    with pytest.raises(kind, match=reason):
        download(f"{server}/{name}")


def test_a_download_without_end_stops_at_its_bytes(server):
    with pytest.raises(VideoError, match=r"guard\.source_gib"):
        download(f"{server}/endless-200", max_bytes=500)


@pytest.mark.parametrize("name", ["endless-200", "slow-headers"])
def test_a_download_without_end_stops_at_its_seconds(server, name):
    with pytest.raises(OSError, match=r"takes more than 0\.3 s"):
        download(f"{server}/{name}", max_bytes=10**9, seconds=0.3)


def test_bodies_of_redirects_and_of_errors_are_not_read(server):
    assert download(f"{server}/endless-302")[0] == b"/a.mp4"
    with pytest.raises(VideoError, match="the server answers 503"):
        download(f"{server}/endless-503")


def test_a_server_that_does_not_exist_is_named(monkeypatch):
    with pytest.raises(OSError, match=r"no\.such\.invalid does not answer: there is no server of this name"):
        download("http://no.such.invalid/a.mp4")
    with pytest.raises(OSError, match="there is no server of this name"):
        download(f"http://{'a' * 70}.invalid/a.mp4", only_public=True)


def test_strangers_reach_public_servers_only(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server)  # is not asked
    Pages.asked.clear()
    port = server.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254", "[::1]", "0.0.0.0"):
        with pytest.raises(VideoError, match="does not lead to a public server"):
            download(f"http://{host}:{port}/a.mp4", only_public=True)
    assert Pages.asked == []


def test_a_name_that_leads_elsewhere_the_second_time_reaches_nothing(server, monkeypatch):
    """DNS rebinding: the name is public when it is looked up, and private when it is connected to."""
    looked_up = web_download.socket.getaddrinfo
    answers = iter([[(None, None, None, "", ("93.184.215.14", 80))]])
    monkeypatch.setattr(web_download.socket, "getaddrinfo", lambda *a, **k: next(answers, None) or looked_up(*a, **k))
    Pages.asked.clear()
    with pytest.raises(VideoError, match="does not lead to a public server"):
        download(f"{server}/a.mp4", only_public=True)
    assert Pages.asked == []


@pytest.mark.parametrize(
    "ip",
    ["64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1%eth0", "224.0.0.1", "100.64.0.1", "fd00::1", "::7f00:1", "fec0::1"],
)
def test_addresses_that_stand_for_private_ones_are_not_public(ip):
    with pytest.raises(web_download.NotPublicError):
        web_download._check_public(ip)
    web_download._check_public("93.184.215.14")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://", "is not a web address"),
        ("http://[a/b.mp4", "is not a web address"),
        ("http://host:port/b.mp4", "is not a web address"),
        ("https://me:word@host/a.mp4", r"https://\.\.\.@host' contains a secret"),
    ],
)
def test_addresses_that_cannot_work_are_refused(address, reason):
    with pytest.raises(UserError, match=reason):
        check_web_address(address)
    check_web_address("https://host/@me/a.mp4")
