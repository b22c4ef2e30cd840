import json
import math
import multiprocessing
import pickle
import re
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from mlflow import MlflowClient

from pipelines.tracking import store
from pipelines.tracking.models import fetch_weights, log_model, register_model
from pipelines.tracking.recorded import find_runs
from pipelines.tracking.runs import Point, PointsRefusedError, Run
from pipelines.tracking.store import StoreAwayError
from t3d_core.errors import UserError
from tests.pipelines.tracking.new_runs import open_run, read_run


@pytest.mark.heavy
def test_of_the_runs_with_a_mark_only_one_that_finished_stays(tmp_path):
    """Whose file of the id was lost later, say."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    finished = open_run(uri, mark="0123")
    finished.finish()
    begun = open_run(uri, mark="0123")  # and killed
    last = open_run(uri, mark="0123")
    left = MlflowClient(uri).search_runs(["1"])
    assert {run.info.run_id for run in left} == {finished.run_id, last.run_id}
    assert begun.run_id not in {finished.run_id, last.run_id}


def test_a_run_is_resumed_under_its_id_and_stays_one_run(tracking_uri):
    tags = {"mlflow.source.git.commit": "abc", "mlflow.user": "me"}
    first = open_run(tracking_uri, tags=tags)
    first.log_params({"optimizer.lr": 0.1})
    first.log_metrics({"loss": 2.0}, step=1)
    first.finish("FAILED")

    second = open_run(tracking_uri, run_id=first.run_id)
    assert read_run(second).info.status == "RUNNING"
    second.log_params({"optimizer.lr": 0.1})
    second.log_metrics({"loss": 1.0}, step=2)
    second.finish()

    client = MlflowClient(tracking_uri)
    (stored,) = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    assert stored.info.status == "FINISHED"
    assert stored.data.params == {"optimizer.lr": "0.1"}
    assert tags.items() <= stored.data.tags.items()
    assert [(point.step, point.value) for point in client.get_metric_history(second.run_id, "loss")] == [(1, 2), (2, 1)]


def test_a_run_that_the_store_does_not_have_cannot_be_resumed(tracking_uri):
    with pytest.raises(UserError, match=f"run {'0' * 32} cannot be resumed in .*: give the store that has it"):
        open_run(tracking_uri, run_id="0" * 32)


def restore_as_printed(error):
    """Run the command that the message gives in backquotes."""
    command = re.search(r"`(.*)`", str(error))[1]
    subprocess.run(command, shell=True, check=True, capture_output=True)


@pytest.mark.heavy
def test_a_deleted_run_is_resumed_after_the_command_that_the_error_gives(tracking_uri, run):
    MlflowClient(tracking_uri).delete_run(run.run_id)
    with pytest.raises(
        UserError, match=f"run {run.run_id} is deleted in .*or start again with a new --name"
    ) as refused:
        open_run(tracking_uri, run_id=run.run_id)
    restore_as_printed(refused.value)
    assert open_run(tracking_uri, run_id=run.run_id).run_id == run.run_id


@pytest.mark.heavy
def test_a_deleted_experiment_is_used_again_after_the_command_that_the_error_gives(tracking_uri, run):
    client = MlflowClient(tracking_uri)
    client.delete_experiment(client.get_experiment_by_name("t3d").experiment_id)
    refusal = r"experiment 't3d' is deleted in .*or give another one with --tracking\.experiment"
    for resumed in (None, run.run_id):
        with pytest.raises(UserError, match=refusal) as refused:
            open_run(tracking_uri, run_id=resumed)
    with pytest.raises(UserError, match=refusal):
        find_runs(tracking_uri, experiment="t3d")
    restore_as_printed(refused.value)
    assert open_run(tracking_uri, run_id=run.run_id).run_id == run.run_id


def test_a_continued_run_refuses_another_value_of_a_parameter(run):
    run.log_params({"optimizer.lr": 0.1})
    with pytest.raises(ValueError, match=r"optimizer\.lr"):
        run.log_params({"optimizer.lr": 0.2})


def test_points_sent_twice_are_single_in_the_store_whatever_their_value(run):
    values = [0.1 + 0.2, math.nan, math.inf, -math.inf, 5e-324, 1.0]
    points = [Point("loss", value, 1_700_000_000_000 + step, step) for step, value in enumerate(values)]
    run.log_points(points[:4])
    run.log_points(points)
    run.log_points(points)
    stored = MlflowClient(run.tracking_uri).get_metric_history(run.run_id, "loss")
    assert [(point.step, point.timestamp) for point in stored] == [(point.step, point.time_ms) for point in points]
    assert math.isnan(stored[1].value)
    largest = np.finfo(np.float64).max
    assert [point.value for point in stored if point.step != 1] == [0.1 + 0.2, largest, -largest, 5e-324, 1.0]


def test_points_with_one_that_cannot_be_stored_are_refused_whole(run):
    with pytest.raises(PointsRefusedError, match="top1/who"):
        run.log_points([Point("loss", 1.0, 1, 1), Point("top1/who?", 1.0, 1, 1)])
    assert not read_run(run).data.metrics


class FakeServer(HTTPServer):
    """Answers each POST with the next of `answers`: a status and a body; keeps what it was sent."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), FakeServerHandler)
        self.answers, self.received = [], []
        self.answer_to_get = (200, {})
        self.uri = f"http://127.0.0.1:{self.server_port}"


class FakeServerHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer(*self.server.answers.pop(0))

    def do_GET(self):
        self._answer(*self.server.answer_to_get)

    def _answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with FakeServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


def test_points_go_to_a_server_in_one_try_with_its_words_for_nan_and_infinity(server):
    server.answers = [(200, {})]
    values = [math.nan, math.inf, -math.inf, 0.5]
    Run(server.uri, "a" * 32).log_points([Point("loss", value, 7, 3) for value in values])
    (body,) = server.received
    assert body["run_id"] == "a" * 32
    assert [metric["value"] for metric in body["metrics"]] == ["NaN", "Infinity", "-Infinity", 0.5]
    assert body["metrics"][0] == {"key": "loss", "value": "NaN", "timestamp": 7, "step": 3}


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "bad name"}, PointsRefusedError),
        (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"}, StoreAwayError),
        (403, {}, StoreAwayError),
        (500, {"error_code": "INTERNAL_ERROR", "message": "oh"}, StoreAwayError),
        (503, {}, StoreAwayError),
    ],
)
def test_a_server_refuses_points_or_may_take_them_later(status, body, error, server):
    server.answers = [(status, body)]
    with pytest.raises(error):
        Run(server.uri, "a" * 32).log_points([Point("loss", 1.0, 7, 3)])
    assert len(server.received) == 1


def test_a_server_that_does_not_know_its_name_is_reported_with_the_cure(server):
    server.answer_to_get = (403, "Invalid Host header - possible DNS rebinding attack detected")
    with pytest.raises(
        ValueError, match=rf"refuses the host name 127\.0\.0\.1:{server.server_port}: .*--allowed-hosts"
    ):
        open_run(server.uri)


@pytest.fixture
def nowhere(monkeypatch):
    """An address at which nothing listens."""
    monkeypatch.setattr(store, "_SECONDS_TO_ANSWER", 0.1)
    monkeypatch.setattr(store, "_SECONDS_BETWEEN_TRIES", 0.1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("run_id", [None, "a" * 32])
def test_a_wrong_address_is_a_clear_error_at_once_and_not_after_minutes(run_id, nowhere):
    with pytest.raises(ValueError, match=rf"no MLflow server answers at {nowhere} .*refused.*MLFLOW_TRACKING_URI"):
        open_run(nowhere, run_id=run_id)
    with pytest.raises(ValueError, match=f"no MLflow server answers at {nowhere}"):
        fetch_weights("models:/t3d@champion", tracking_uri=nowhere)


@pytest.mark.heavy
def test_a_store_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/mlflow.db.lock cannot be written .*: make its folder one"):
        open_run(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_what_failed_in_a_run_is_not_hidden_by_a_server_that_is_away(nowhere, caplog):
    with pytest.raises(RuntimeError, match="the loss is NaN"), Run(nowhere, "a" * 32):
        raise RuntimeError("the loss is NaN")
    assert "cannot be closed" in caplog.text


def test_many_and_long_parameters_all_arrive(run):
    run.log_params({f"group.p{index}": index for index in range(150)} | {"long": "x" * 7000, "none": None, "empty": ""})
    params = read_run(run).data.params
    assert params["group.p149"] == "149"
    assert len(params["long"]) == 6000
    assert len(params) == 153


def test_files_of_a_run_lie_beside_the_sqlite_store(run, tmp_path):
    run.log_text("optimizer: {lr: 0.1}", "recipe.yaml")
    assert len(list((tmp_path / "mlruns").rglob("recipe.yaml"))) == 1


def test_a_dataset_is_an_input_of_the_run_with_its_fingerprint(run):
    run.log_dataset("weizmann", "f" * 64, "/data/shards", context="test")
    run.log_dataset("ucf101", "e" * 64, "s3://bucket/shards")
    inputs = {item.dataset.name: item for item in read_run(run).inputs.dataset_inputs}
    local, remote = inputs["weizmann"], inputs["ucf101"]
    assert local.dataset.digest == "f" * 36
    assert json.loads(local.dataset.source) == {"uri": "/data/shards"}
    assert [(tag.key, tag.value) for tag in local.tags] == [("mlflow.data.context", "test")]
    assert (local.dataset.source_type, remote.dataset.source_type) == ("local", "s3")


def test_a_run_is_pickled_as_its_address_alone(run):
    assert pickle.loads(pickle.dumps(run)) == run
    assert len(pickle.dumps(run)) < 500


def test_the_description_of_a_run_names_the_command_that_shows_it(run):
    assert run.describe() == f"mlflow ui --backend-store-uri {run.tracking_uri}  # run {run.run_id}"


def write_metrics(tracking_uri, run_id, name, start):
    start.wait(timeout=120)
    run = open_run(tracking_uri, run_id=run_id, experiment=name)
    for step in range(50):
        run.log_metrics({name: step, f"{name}/squared": step * step}, step=step)


def write_in_two_processes(tracking_uri, *, run_id):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    worker = context.Process(target=write_metrics, args=(tracking_uri, run_id, "worker", start))
    worker.start()
    write_metrics(tracking_uri, run_id, "driver", start)
    worker.join()
    assert worker.exitcode == 0


def test_two_processes_write_to_one_run_in_sqlite_without_loss(run):
    write_in_two_processes(run.tracking_uri, run_id=run.run_id)
    client = MlflowClient(run.tracking_uri)
    for name in ("driver", "worker"):
        assert [point.value for point in client.get_metric_history(run.run_id, name)] == list(range(50))
        assert len(client.get_metric_history(run.run_id, f"{name}/squared")) == 50


@pytest.mark.heavy
def test_two_processes_may_be_the_first_in_a_new_store(tmp_path):
    tracking_uri = f"sqlite:///{tmp_path / 'not' / 'yet' / 'mlflow.db'}"
    write_in_two_processes(tracking_uri, run_id=None)
    experiments = {experiment.name for experiment in MlflowClient(tracking_uri).search_experiments()}
    assert {"driver", "worker"} <= experiments


def test_normal_use_prints_nothing_and_leaves_the_working_folder_empty(
    tracking_uri, weights_path, tmp_path, monkeypatch, capfd
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run = open_run(tracking_uri)
    run.log_metrics({"loss": 1.0}, step=0)
    model_uri = log_model(run, weights_path)
    register_model(run, model_uri, name="quiet", alias="champion")
    fetch_weights("models:/quiet@champion", tracking_uri=tracking_uri)
    run.finish()
    assert capfd.readouterr() == ("", "")
    assert not list(elsewhere.iterdir())
