"""A server gets 340 hostile files, 2 GB of zeros, clients that leave, and a kill: other clients notice nothing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.faults.training_faults import REPO
from tests.pipelines.evaluate.small_network import CLIP, save_network
from tests.pipelines.serve.conftest import Client, free_port

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
START_SECONDS = 300
MIB = 16


@pytest.fixture(scope="module")
def server(tiny_shards, tmp_path_factory):
    """`python jobs/serve.py` in a process of its own, and a client of it."""
    folder = tmp_path_factory.mktemp("server")
    weights = save_network(tiny_shards, folder / "model.safetensors", CLIP)
    client = Client(free_port())
    command = [sys.executable, str(REPO / "jobs" / "serve.py"), "--model", str(weights), "--port", str(client.port)]
    command += ["--limits.mib", str(MIB), "--guard.seconds", "5"]
    uploads = folder / "tmp"
    uploads.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(REPO), "TMPDIR": str(uploads)}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + START_SECONDS
    while not is_ready(client):
        assert process.poll() is None, (folder / "log.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(1)
    client.process, client.uploads = process, uploads
    yield client
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, (folder / "log.txt").read_text()[-3000:]


def is_ready(client):
    try:
        return client("GET", "/healthz").status == 200
    except OSError:
        return False


@pytest.fixture
def bystander(server, corpus):
    """A client that sends a good video all the time; every answer must be the same."""
    video = (corpus / "videos" / "whole" / "h264.mp4").read_bytes()
    expected = server.predict(video)
    assert expected.status == 200
    answers, faults, is_over = [], [], threading.Event()

    def ask():
        try:
            while not is_over.is_set():
                answers.append(server.predict(video))
        except Exception as error:  # in a thread it would be lost
            faults.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    yield answers
    num_meanwhile = len(answers)
    while len(answers) < num_meanwhile + 3 and thread.is_alive():  # one that was begun meanwhile, and two later ones
        time.sleep(0.1)
    is_over.set()
    thread.join()
    assert faults == []
    assert [answer for answer in answers if answer.content != expected.content] == []


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutated") / "corpus"
    script = Path(__file__).with_name("mutated_corpus.py")
    subprocess.run([sys.executable, str(script), str(folder), "--seed", "0"], check=True)
    return folder


def test_every_hostile_file_gets_an_answer(server, bystander, corpus):
    counts = {}
    for path in sorted(corpus.rglob("*")):
        if path.is_file() and path.is_relative_to(corpus / "videos"):
            answer = server.predict(path.read_bytes())
            counts[answer.status] = counts.get(answer.status, 0) + 1
            assert answer.status in (200, 400, 413, 422), (path, answer)
            assert answer.status == 200 or list(answer.content) == ["reason"]
    print(f"\n{sum(counts.values())} hostile files: {counts}; {len(bystander)} requests of another client at that time")


def test_two_gigabytes_are_refused_and_kept_nowhere(server, bystander):
    part = b"100000\r\n" + b"\0" * 0x100000 + b"\r\n"
    start, num_sent, answer = time.monotonic(), 0, b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.setblocking(False)
        waiting = memoryview(part)
        while num_sent < 2 << 30 and not answer:
            try:
                sent = connection.send(waiting)
                num_sent, waiting = num_sent + sent, waiting[sent:] or memoryview(part)
            except BlockingIOError:
                time.sleep(0.001)
            try:
                answer = connection.recv(1 << 16)
            except BlockingIOError:
                pass
        seconds = time.monotonic() - start
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert num_sent < (MIB + 16) << 20
    print(f"\n413 after {seconds:.2f} s and {num_sent / 2**20:.0f} MiB")


def test_clients_that_leave_leave_nothing_behind(server, bystander, corpus):
    video = (corpus / "videos" / "whole" / "h264.mp4").read_bytes()
    for place in range(100):
        with socket.create_connection(("127.0.0.1", server.port)) as leaving:
            head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(video)}\r\n\r\n".encode()
            leaving.sendall((head + video)[: None if place % 2 else -100])
    deadline = time.monotonic() + 120
    while "t3d_serve_open_requests" not in (page := server("GET", "/metrics").content.decode()) or open_of(page) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def open_of(page):
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith("t3d_serve_open_req"))


def test_a_killed_network_is_replaced_and_no_request_is_lost(server, bystander):
    killed = [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if is_network_of(pid, server)]
    assert len(killed) == 1
    before = len(bystander)
    os.kill(killed[0], signal.SIGKILL)
    deadline = time.monotonic() + 300
    while len(bystander) < before + 5:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def is_network_of(pid, server):
    """Whether a process holds the network of this server."""
    try:
        if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::ServeReplica:t3d:network"):
            return False
        while pid > 1 and pid != server.process.pid:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return False
    return pid == server.process.pid


def test_nothing_is_left_in_the_temporary_folder(server):
    assert list(server.uploads.glob("t3d-copy-*")) == []
