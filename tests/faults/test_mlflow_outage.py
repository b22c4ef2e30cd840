"""A real MLflow server, or the process that logs to it, is killed, and no point is lost or doubled: `pytest -m faults`.

T3D_OUTAGE_SECONDS=120 makes the outage two minutes long, which a run must survive.
"""

import json
import multiprocessing
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from itertools import count

import pytest
from mlflow import MlflowClient

from pipelines.tracking.metric_log import MetricLog, drain
from pipelines.tracking.runs import start_run

OUTAGE_SECONDS = float(os.environ.get("T3D_OUTAGE_SECONDS", "20"))
SECONDS_A_STEP = 0.1
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


class Server:
    """An `mlflow server` on its own port and sqlite store, in its own process group."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder

    def start(self):
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        files = ["--artifacts-destination", str(self.folder / "artifacts")]
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, *files, *address],
                cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_for(self.answers, seconds=120)

    def answers(self):
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=2).status == 200
        except OSError:
            return False

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


def wait_for(condition, *, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def open_run(tracking_uri):
    return start_run(tracking_uri=tracking_uri, experiment="t3d", run_name="outage", run_id=None, tags={})


def points_of(run, name):
    return [(point.step, point.value) for point in MlflowClient(run.tracking_uri).get_metric_history(run.run_id, name)]


def train(log, steps, *, until=None):
    """Log ten steps a second; return the last step, and the seconds that the calls took."""
    seconds, step = [], None
    for step in steps:
        started = time.perf_counter()
        log.log({"loss": 1 / (step + 1), "throughput": float(os.getpid())}, step=step)
        seconds.append(time.perf_counter() - started)
        if until is not None and until():
            break
        time.sleep(SECONDS_A_STEP)
    return step, seconds


def test_training_continues_through_an_outage_of_the_server_and_nothing_is_missing(server, tmp_path):
    run = open_run(server.uri)
    log = MetricLog(run, tmp_path / "metrics.jsonl")
    train(log, range(30))
    server.kill()
    (tmp_path / "weights").write_bytes(b"x" * 100_000)
    other_calls = [
        threading.Thread(target=run.set_tags, args=({"fold": "1"},)),
        threading.Thread(target=run.log_artifact, args=(tmp_path / "weights",)),
    ]
    for call in other_calls:
        call.start()
    back = threading.Timer(OUTAGE_SECONDS, server.start)
    back.start()
    last, seconds = train(log, count(30), until=back.finished.is_set)
    back.join()
    returned = time.monotonic()
    assert len(points_of(run, "loss")) < last, "the points of the outage are not there yet"
    wait_for(lambda: len(points_of(run, "loss")) == last + 1, seconds=15)
    print(f"\n{last + 1 - 30} steps in an outage of {OUTAGE_SECONDS:g} s and the start of the server")
    print(f"caught up {time.monotonic() - returned:.1f} s after the server was back")
    print(f"one call: median {statistics.median(seconds) * 1e3:.2f} ms, longest {max(seconds) * 1e3:.1f} ms")
    last, _ = train(log, range(last + 1, last + 20))
    assert log.close(timeout_seconds=30)
    (tmp_path / "metrics.jsonl.sent").unlink()
    drain(run, tmp_path / "metrics.jsonl", timeout_seconds=30)  # all once more: MLflow keeps each point once
    assert points_of(run, "loss") == [(step, 1 / (step + 1)) for step in range(last + 1)]
    assert len(points_of(run, "throughput")) == last + 1
    for call in other_calls:
        call.join(timeout=300)
    print(f"the other calls were through {time.monotonic() - returned:.1f} s after the server was back")
    stored = MlflowClient(server.uri).get_run(run.run_id)
    assert stored.data.tags["fold"] == "1"
    assert [file.path for file in MlflowClient(server.uri).list_artifacts(run.run_id)] == ["weights"]


def train_until_killed(run, path, first_step):
    train(MetricLog(run, path), count(first_step))


def test_killed_processes_hand_over_to_each_other_with_the_server_going_away_too(server, tmp_path):
    run, path = open_run(server.uri), tmp_path / "metrics.jsonl"
    spawn = multiprocessing.get_context("spawn")
    first_step, killed_at = 0, []
    for round_ in range(4):
        process = spawn.Process(target=train_until_killed, args=(run, path, first_step))
        process.start()
        num_lines = len(path.read_bytes().splitlines()) if path.exists() else 0
        wait_for(lambda num=num_lines: path.exists() and len(path.read_bytes().splitlines()) > num + 25, seconds=120)
        if round_ == 1:
            server.kill()
            time.sleep(2)
        process.kill()
        process.join()
        killed_at.append(json.loads(path.read_bytes().splitlines()[-1])["step"])
        first_step = killed_at[-1] - 7  # the step of its last checkpoint
        if round_ == 2:
            server.start()
    drain(run, path, timeout_seconds=60)
    print(f"\nkilled at steps {killed_at}")
    assert points_of(run, "loss") == [(step, 1 / (step + 1)) for step in range(killed_at[-1] + 1)]
    throughput = points_of(run, "throughput")
    assert [step for step, _ in throughput] == list(range(killed_at[-1] + 1)), "redone steps are there once"
    assert len({value for _, value in throughput}) == 4, "every process sent some"


def test_a_sqlite_store_locked_for_longer_than_mlflow_waits_holds_nobody_up(tmp_path):
    run = open_run(f"sqlite:///{tmp_path / 'mlflow.db'}")
    log = MetricLog(run, tmp_path / "metrics.jsonl")
    other = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(25, other.execute, args=("COMMIT",))
    release.start()
    last, seconds = train(log, count(), until=release.finished.is_set)
    assert last > 100
    assert max(seconds) < 1
    other.execute("BEGIN EXCLUSIVE")
    threading.Timer(25, other.execute, args=("COMMIT",)).start()
    run.finish()
    assert log.close(timeout_seconds=30)
    assert points_of(run, "loss") == [(step, 1 / (step + 1)) for step in range(last + 1)]
    assert MlflowClient(run.tracking_uri).get_run(run.run_id).info.status == "FINISHED"
