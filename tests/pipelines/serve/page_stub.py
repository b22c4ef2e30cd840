"""A small HTTP server that answers the page as the real one does, with a result made up for a video of ten seconds."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

PAGE = Path(__file__).parents[3] / "pipelines" / "serve" / "page.html"
CLASSES = ["jumping", "walking", "<b>bold</b> waving", "bending", "skipping", "running", "jacking", "siding"]
SECONDS = 10.0


class Reply(NamedTuple):
    """Of /predict: a status, a body and more headers; `may_go` holds it back until it is set."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]
    may_go: threading.Event


def reply(status: int = 200, body: dict[str, Any] | None = None, *, is_held: bool = False, **headers: str) -> Reply:
    may_go = threading.Event()
    if not is_held:
        may_go.set()
    return Reply(status, body or {}, {name.replace("_", "-"): value for name, value in headers.items()}, may_go)


def result(overlay: bytes | None = None) -> dict[str, Any]:
    """`jumping` for six seconds, then `walking`, in 20 clips; the explained clip lasts from 2 to 4 seconds."""
    centres = [0.25 + 0.5 * place for place in range(20)]
    first = [0.7 if seconds < 6 else 0.2 for seconds in centres]
    rest = 0.1 / (len(CLASSES) - 2)
    scores = [first, [0.9 - score for score in first], *[[rest] * 20 for _ in CLASSES[2:]]]
    top = [{"label": CLASSES[0], "score": 0.5}, {"label": CLASSES[1], "score": 0.4}]
    top += [{"label": label, "score": rest} for label in CLASSES[2:5]]
    explanation = {
        "label": CLASSES[0],
        "start_seconds": 2.0,
        "end_seconds": 4.0,
        "video": "data:video/mp4;base64," + base64.b64encode(overlay or b"").decode(),
        "layers": [
            [{"frames": 1, "share": 0.3}, {"frames": 3, "share": 0.5}, {"frames": 6, "share": 0.2}],
            [{"frames": 1, "share": None}, {"frames": 3, "share": None}, {"frames": 4, "share": None}],
        ],
    }
    return {
        **top[0],
        "top": top,
        "start_seconds": 0.0,
        "end_seconds": SECONDS,
        "num_padded_frames": 0,
        "timeline": {"seconds": centres, "labels": CLASSES, "scores": scores},
        "segments": [
            {"start_seconds": 0.0, "end_seconds": 6.0, "label": CLASSES[0], "score": 0.7},
            {"start_seconds": 6.0, "end_seconds": SECONDS, "label": CLASSES[1], "score": 0.7},
        ],
        "explanation": explanation if overlay else None,
    }


class PageStub(ThreadingHTTPServer):
    """Serves the page; `replies` are given in turn, the last one again and again.

    Attributes:
        model: what /model answers.
        token: the one that it wants, if any.
        received: the query, the headers and the body of every request of /predict.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}/"
        self.reset()

    def reset(self) -> None:
        self.model: dict[str, Any] = {"classes": CLASSES, "limits": {"mib": 64, "seconds": 60}, "needs_token": False}
        self.token = ""
        self.replies = [reply(200, result())]
        self.received: list[tuple[str, dict[str, str], bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    server: PageStub

    def do_GET(self) -> None:
        if self.path == "/":
            self._answer(200, PAGE.read_bytes(), {"Content-Type": "text/html"})
        else:
            assert self.path == "/model", self.path
            self._answer_json(200, self.server.model, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            self._answer_json(401, {"reason": "this token is not right"}, {})
            return
        self.server.received.append((self.path, dict(self.headers), body))
        replies = self.server.replies
        this = replies.pop(0) if len(replies) > 1 else replies[0]
        this.may_go.wait(60)  # longer than a test waits for the page
        self._answer_json(this.status, this.body, this.headers)

    def _answer_json(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        self._answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"} | headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
