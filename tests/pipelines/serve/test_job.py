"""A server under real requests: predict's scores, reasons for what it refuses, and nobody's request harms another's."""

import base64
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.predict.config import PredictConfig
from pipelines.predict.job import run_predict
from pipelines.serve import job
from pipelines.serve.access import TOKEN_VARIABLE
from pipelines.serve.config import LimitsConfig, ServeConfig
from pipelines.serve.served_weights import find_weights_to_serve
from t3d_core.errors import UserError
from t3d_core.video.decoding import probe
from tests.pipelines.serve.conftest import Client, free_port

LIMITS = LimitsConfig(mib=2, seconds=5, open_requests=24, open_requests_per_client=20, upload_seconds=2)


class Store(BaseHTTPRequestHandler):
    """A web server that has two videos: a large one, and one that is cut off."""

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.send_response(200 if name in ("large.mp4", "cut.mp4") else 404)
        self.send_header("Content-Length", str(2**40 if name == "large.mp4" else 9))
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def store():
    server = HTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/videos/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def client(local_ray, weights, store):
    """A server, from its start to its end, and a client of it."""
    listed = (store, "ftp://127.0.0.1/videos/")
    config = ServeConfig(
        model=str(weights), port=free_port(), decoders=1, batch_size=3, limits=LIMITS, allowed_addresses=listed
    )
    with job.serving(find_weights_to_serve(config), config, None):
        yield Client(config.port)


@pytest.fixture(scope="module")
def predicted(weights, videos, tmp_path_factory):
    """What `predict` says of the videos."""
    folder = tmp_path_factory.mktemp("predicted")
    config = PredictConfig(inputs=tuple(map(str, videos)), model=str(weights), output=folder, batch_size=3)
    run_predict(config)
    return {row["video"]: row for row in pq.read_table(folder / "predictions.parquet").to_pylist()}


def test_a_served_video_gets_the_scores_of_predict_to_the_last_bit_whoever_else_asks(client, videos, predicted):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda path: client.predict(Path(path).read_bytes(), "?top=8"), videos * 3))
    for path, answer in zip(videos * 3, answers, strict=True):
        assert answer.status == 200, answer.content
        row = predicted[str(path)]
        assert (answer.content["label"], answer.content["score"]) == (row["label"], max(row["scores"]))
        assert [each["score"] for each in answer.content["top"]] == sorted(row["scores"], reverse=True)


def test_an_answer_has_a_timeline_segments_and_an_explanation_that_plays(client, videos, tmp_path):
    content = client.predict(Path(videos[0]).read_bytes(), "?top=2&explain=true", Content_Type="video/mp4").content
    assert len(content["top"]) == len(content["timeline"]["labels"]) == len(content["timeline"]["scores"]) == 2
    assert np.shape(content["timeline"]["scores"]) == (2, len(content["timeline"]["seconds"]))
    assert (content["start_seconds"], content["num_padded_frames"]) == (0.0, 0)
    assert content["segments"][0]["start_seconds"] == 0.0
    assert content["segments"][-1]["end_seconds"] == content["end_seconds"]
    explanation = content["explanation"]
    assert explanation["label"] == content["label"]
    for layer in explanation["layers"]:
        assert [branch["frames"] for branch in layer] in ([1, 3, 6], [1, 3, 4])
        assert sum(branch["share"] for branch in layer) == pytest.approx(1, abs=1e-5)
    kind, _, encoded = explanation["video"].partition(",")
    assert kind == "data:video/mp4;base64"
    (tmp_path / "explanation.mp4").write_bytes(base64.b64decode(encoded))
    assert probe(tmp_path / "explanation.mp4").num_frames == 16


def test_ready_model_and_metrics(client):
    for path in ("/healthz", "/-/healthz"):
        ready = client("GET", path)
        assert (ready.status, ready.content["status"]) == (200, "success")  # KubeRay greps for the word
    model = client("GET", "/model").content
    assert (len(model["classes"]), model["limits"], model["needs_token"]) == (8, {"mib": 2, "seconds": 5}, False)
    before = client("GET", "/metrics").content.decode()
    assert client.predict(b"no video").status == 422
    deadline = time.monotonic() + 30
    while True:  # a page is kept for a second
        after = client("GET", "/metrics").content.decode()
        if _count(after, 'status="422"') == _count(before, 'status="422"') + 1:
            break
        assert time.monotonic() < deadline
    assert "t3d_serve_views_total" in after


def test_the_page_may_load_nothing_from_elsewhere(client):
    page = client("GET", "/")
    assert page.status == 200
    assert b"<title>" in page.content
    assert page.headers["content-security-policy"].startswith("default-src 'none'; ")


def _count(page, part):
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if part in line)


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "reason"),
    [
        ("POST", "/predict", b"", {}, 400, "empty"),
        ("POST", "/predict?top=0", b"x", {}, 400, "top"),
        ("POST", "/predict?explain=maybe", b"x", {}, 400, "explain"),
        ("POST", "/predict", b"{}", {"Content_Type": "application/json"}, 400, "address"),
        ("POST", "/predict", b'{"address": "http://127.0.0.1/"}', {"Content_Type": "application/json"}, 403, "address"),
        ("POST", "/predict", b"x", {"Host": "example.com"}, 403, "example.com"),
        ("GET", "/", None, {"Host": "example.com"}, 403, "example.com"),
        ("GET", "/model", None, {"Host": "example.com"}, 403, "example.com"),
        ("GET", "/metrics", None, {"Host": "example.com"}, 403, "example.com"),
        ("POST", "/predict", b"no video at all", {}, 422, "not a video"),
        ("GET", "/predict", None, {}, 405, "Method Not Allowed"),
        ("GET", "/absent", None, {}, 404, "Not Found"),
    ],
)
def test_what_cannot_be_answered_gets_a_reason(client, method, path, body, headers, status, reason):
    answer = client(method, path, body, **headers)
    assert (answer.status, list(answer.content)) == (status, ["reason"])
    assert reason in answer.content["reason"]


@pytest.mark.parametrize(
    ("address", "status", "reason"),
    [
        ("STORE/absent.mp4", 404, "not found"),
        ("STORE/large.mp4", 413, "more than 2 MiB"),
        ("STORE/cut.mp4", 422, "cannot be read"),
        ("ftp://127.0.0.1/videos/a.mp4", 422, "is not read"),
    ],
)
def test_an_address_that_cannot_be_read_is_no_fault_of_the_server(client, store, address, status, reason):
    body = json.dumps({"address": address.replace("STORE/", store)})
    answer = client.predict(body, Content_Type="application/json")
    assert answer.status == status, answer.content
    assert reason in answer.content["reason"]


@pytest.fixture
def long_video(tmp_path):
    from tests.pipelines.prepare.made_videos import write_video

    write_video(tmp_path / "long.mp4", num_frames=60, fps=10.0)
    return (tmp_path / "long.mp4").read_bytes()


def test_a_long_video_is_refused(client, long_video):
    answer = client.predict(long_video)
    assert (answer.status, answer.content["reason"]) == (422, "the video is longer than 5 s")


def test_a_large_request_is_refused_before_it_is_sent_and_while_it_is(client):
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as stated:
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\n"
        stated.sendall(f"{head}Content-Length: 2147483648\r\n\r\n".encode())
        assert stated.recv(1 << 16).startswith(b"HTTP/1.1 413 ")
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as unstated:
        unstated.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        part = b"10000\r\n" + b"\0" * 0x10000 + b"\r\n"
        unstated.sendall(part * 33)
        assert unstated.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_a_slow_upload_is_given_up(client):
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as slow:
        slow.sendall(f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nContent-Length: 9\r\n\r\nx".encode())
        assert slow.recv(1 << 16).startswith(b"HTTP/1.1 408 ")


def test_hostile_files_and_clients_that_leave_harm_no_other_request(client, videos, predicted):
    good = Path(videos[0]).read_bytes()
    generator = np.random.default_rng(0)
    hostile = [
        good[: len(good) // 2],
        good[:40] + generator.bytes(3000) + good[3040:],
        generator.bytes(5000),
        b"\0" * 99,
    ]
    is_over = threading.Event()

    def attack():
        while not is_over.is_set():
            for body in hostile:
                assert client.predict(body).status in (200, 422)
            with socket.create_connection(("127.0.0.1", client.port)) as leaving:
                head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(good)}\r\n\r\n".encode()
                leaving.sendall(head + good)

    with ThreadPoolExecutor(2) as threads:
        attacks = [threads.submit(attack) for _ in range(2)]
        try:
            answers = [client.predict(good) for _ in range(5)]
        finally:
            is_over.set()
        [attack.result() for attack in attacks]
    assert {(answer.status, answer.content["score"]) for answer in answers} == {
        (200, max(predicted[str(videos[0])]["scores"]))
    }
    deadline = time.monotonic() + 30
    while _count(client("GET", "/metrics").content.decode(), "t3d_serve_open_requests{"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert client("GET", "/healthz").status == 200


def test_a_client_with_too_many_requests_hears_it_at_once(client):
    held = []
    try:
        for _ in range(LIMITS.open_requests_per_client):
            held.append(socket.create_connection(("127.0.0.1", client.port)))
            held[-1].sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nx")
        deadline = time.monotonic() + 1.5
        while (answer := client.predict(b"x")).status != 429 and time.monotonic() < deadline:
            pass
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) > 0
        assert "open requests" in answer.content["reason"]
    finally:
        for each in held:
            each.close()


def test_a_port_that_is_taken_and_a_missing_token_are_refused_before_ray_starts(weights, monkeypatch):
    monkeypatch.setattr(job.session, "connect", lambda **_: pytest.fail("Ray starts"))
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="give another --port"):
            job.run_serve(ServeConfig(model=str(weights), port=port))
    with pytest.raises(UserError, match="set T3D_SERVE_TOKEN"):
        job.run_serve(ServeConfig(model=str(weights), host="0.0.0.0", port=port))


def test_damaged_weights_are_refused(weights, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut\.safetensors"):
        find_weights_to_serve(ServeConfig(model=str(tmp_path / "cut.safetensors")))
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights.read_bytes())
    served = find_weights_to_serve(ServeConfig(model=str(copy)))
    copy.write_bytes(weights.read_bytes()[::-1])
    with pytest.raises(UserError, match="have changed"):
        served.load()


def test_without_its_packages_the_job_names_the_extra(monkeypatch):
    monkeypatch.setattr(job, "_NEEDED", ("absent_package",))
    with pytest.raises(UserError, match=r"absent_package.*pip install -e '.\[serve\]'"):
        job.check_installed()
