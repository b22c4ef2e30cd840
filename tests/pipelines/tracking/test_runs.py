import json
import math
import multiprocessing
import os
import pickle
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from pipelines.tracking import store
from pipelines.tracking.commit import git_commit
from pipelines.tracking.models import MODEL_REQUIREMENTS, fetch_weights, log_model, register_model
from pipelines.tracking.runs import Point, PointsRefusedError, Run, start_run
from pipelines.tracking.store import StoreAwayError, resolve_tracking_uri
from pipelines.train.job import locate_weights
from t3d_core.models import build_model
from t3d_core.training.checkpoint import load_model, save_weights
from t3d_core.training.weights_card import WeightsCard
from t3d_core.video.transforms import normalize_clip

MODEL_ARGUMENTS = {
    "growth_rate": 4,
    "block_config": (1, 1, 1, 1),
    "num_init_features": 8,
    "bn_size": 2,
    "ttl_preset": "thirds",
}
CLIP_SHAPE_THWC = (16, 32, 32, 3)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A migrated store without runs, made once: each test works on a copy."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracking_uri(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def run(tracking_uri):
    return open_run(tracking_uri)


def open_run(tracking_uri, *, run_id=None, experiment="t3d", tags=None, mark=None):
    about = {"experiment": experiment, "run_name": "first", "run_id": run_id, "tags": tags or {}, "mark": mark}
    return start_run(tracking_uri=tracking_uri, **about)


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


@pytest.fixture(scope="session")
def weights_path(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "model.safetensors", class_names=("a", "b", "c"))


def write_weights(path, *, class_names):
    torch.manual_seed(0)
    card = WeightsCard(
        model_kind="t3d",
        model_arguments=MODEL_ARGUMENTS,
        class_names=class_names,
        num_frames=CLIP_SHAPE_THWC[0],
        frame_stride=1,
        short_side=36,
        crop_size=CLIP_SHAPE_THWC[1],
        short_video="loop",
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.2, 0.3),
    )
    save_weights(build_model("t3d", num_classes=len(class_names), **MODEL_ARGUMENTS), path, card=card)
    return path


def read_run(run):
    return MlflowClient(run.tracking_uri).get_run(run.run_id)


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        (None, "sqlite:////base/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:////base/mlflow.db"),
        ("sqlite:///sub/a.db", "sqlite:////base/sub/a.db"),
        ("sqlite:////abs/a.db", "sqlite:////abs/a.db"),
        ("mlruns", "file:///base/mlruns"),
        ("file:mlruns", "file:///base/mlruns"),
        ("/abs/mlruns", "file:///abs/mlruns"),
        ("file:///abs/mlruns", "file:///abs/mlruns"),
        ("https://mlflow.example:5000", "https://mlflow.example:5000"),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
    ],
)
def test_a_tracking_uri_becomes_independent_of_the_working_folder(uri, absolute, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_tracking_uri(uri, base=Path("/base")) == absolute


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:se/c@ret@host/mlflow",
        "postgresql://mlflow:se/c@ret@host/mlflow",
        "postgresql://mlflow@host/mlflow?sslmode=require&password=se/c@ret",
        "mysql+pymysql://mlflow@host/mlflow?passwd=se/c@ret",
        "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dse/c@ret",
    ],
)
def test_a_password_in_the_uri_is_refused_without_repeating_it(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ValueError, match=r"came with a password in it.*PGPASSWORD") as told:
        resolve_tracking_uri(None, base=Path("/base"))
    assert not any(part in str(told.value) for part in ("se/c", "ret@"))


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://mlflow@host:5432/mlflow",
        "http://host:5000/team@x",
        "http://host:5000/p?x=a@b",
        "file:///x:y@z",
    ],
)
def test_an_address_without_a_password_is_taken_as_it_is(uri):
    assert resolve_tracking_uri(uri, base=Path("/base")) == uri


def test_the_configured_uri_comes_before_the_environment_and_that_before_the_default(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///env.db")
    assert resolve_tracking_uri(None, base=Path("/base")) == "sqlite:////base/env.db"
    assert resolve_tracking_uri("http://host", base=Path("/base")) == "http://host"


def test_a_run_goes_on_under_its_id_and_stays_one_run(tracking_uri):
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


def test_a_run_that_left_the_store_cannot_go_on(tracking_uri, run):
    MlflowClient(tracking_uri).delete_run(run.run_id)
    for run_id in (run.run_id, "0" * 32):
        with pytest.raises(ValueError, match=f"run {run_id} cannot go on"):
            open_run(tracking_uri, run_id=run_id)


def test_a_deleted_experiment_is_a_clear_error(tracking_uri, run):
    client = MlflowClient(tracking_uri)
    client.delete_experiment(client.get_experiment_by_name("t3d").experiment_id)
    with pytest.raises(ValueError, match="no run can be started"):
        open_run(tracking_uri)


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


def test_a_server_that_does_not_know_its_name_is_told_with_the_cure(server):
    server.answer_to_get = (403, "Invalid Host header - possible DNS rebinding attack detected")
    with pytest.raises(ValueError, match=rf"refuses to be called 127\.0\.0\.1:{server.server_port}: .*--allowed-hosts"):
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


def test_a_store_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="no run can be started"):
        open_run(f"sqlite:///{tmp_path}/file/mlflow.db")


def test_what_failed_in_a_run_is_not_hidden_by_a_server_that_is_away(nowhere, caplog):
    with pytest.raises(RuntimeError, match="the loss is NaN"), Run(nowhere, "a" * 32):
        raise RuntimeError("the loss is NaN")
    assert "cannot be closed" in caplog.text


def test_a_call_waits_for_a_locked_sqlite_store(run, monkeypatch):
    """MLflow waits 20 s by itself; here it is made to give up at once."""
    busy = sqlite3.connect(run.tracking_uri.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    monkeypatch.setattr(store, "_SECONDS_BETWEEN_TRIES", 0.1)
    tries = []
    log_batch = MlflowClient.log_batch

    def impatient_log_batch(client, *arguments, **settings):
        tries.append(time.monotonic())
        if busy.in_transaction:
            raise mlflow.MlflowException("(sqlite3.OperationalError) database is locked")
        log_batch(client, *arguments, **settings)

    monkeypatch.setattr(MlflowClient, "log_batch", impatient_log_batch)
    busy.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.5, busy.execute, args=("COMMIT",)).start()
    run.log_params({"optimizer.lr": 0.1})
    assert len(tries) > 1
    assert read_run(run).data.params == {"optimizer.lr": "0.1"}
    monkeypatch.setattr(store, "_SECONDS_OF_PATIENCE", 0.0)
    busy.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreAwayError, match=r"database is locked.*start the job again"):
        run.set_tags({"a": "b"})


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


@pytest.fixture
def store_of_user(run):
    """What a user of the model does: names the store to MLflow; undone for the tests that follow."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(run.tracking_uri)
    yield
    mlflow.set_tracking_uri(before)


@pytest.mark.usefixtures("store_of_user")
def test_a_logged_model_gives_the_probabilities_of_the_network(run, weights_path):
    clips_BTHWC = np.random.default_rng(0).integers(0, 256, (2, *CLIP_SHAPE_THWC), dtype=np.uint8)
    model, card = load_model(weights_path)
    with torch.inference_mode():
        clips_BCTHW = normalize_clip(torch.from_numpy(clips_BTHWC), mean=card.mean, std=card.std)
        expected_BK = model(clips_BCTHW).softmax(dim=1).numpy()

    model_uri = log_model(run, weights_path)
    loaded = mlflow.pyfunc.load_model(model_uri)

    probabilities_BK = loaded.predict(clips_BTHWC)
    assert probabilities_BK.dtype == np.float32
    np.testing.assert_allclose(probabilities_BK, expected_BK, rtol=1e-4, atol=1e-6)
    (input_spec,) = loaded.metadata.signature.inputs
    (output_spec,) = loaded.metadata.signature.outputs
    assert (input_spec.type, input_spec.shape) == (np.dtype("uint8"), (-1, *CLIP_SHAPE_THWC))
    assert (output_spec.type, output_spec.shape) == (np.dtype("float32"), (-1, 3))
    assert loaded.metadata.run_id == run.run_id


def test_every_form_of_address_finds_the_weights_logged_last(run, weights_path, tmp_path):
    older = write_weights(tmp_path / "model.safetensors", class_names=("x",))
    log_model(run, older)
    model_uri = log_model(run, weights_path)
    with_alias = register_model(run, model_uri, name="t3d-ucf", alias="champion")
    with_version = register_model(run, model_uri, name="t3d-ucf", alias=None)
    assert (with_alias, with_version) == ("models:/t3d-ucf@champion", "models:/t3d-ucf/2")
    for uri in (f"runs:/{run.run_id}", f"runs:/{run.run_id}/model", with_alias, with_version, model_uri):
        assert fetch_weights(uri, tracking_uri=run.tracking_uri).read_bytes() == weights_path.read_bytes(), uri


def test_a_new_version_takes_the_alias_over(run, weights_path):
    for version in (1, 2):
        register_model(run, log_model(run, weights_path), name="t3d-ucf", alias="champion")
        client = MlflowClient(run.tracking_uri, registry_uri=run.tracking_uri)
        assert int(client.get_model_version_by_alias("t3d-ucf", "champion").version) == version


def test_weights_logged_as_a_file_of_the_run_are_found(run, weights_path, tmp_path):
    student = shutil.copy(weights_path, tmp_path / "student.safetensors")
    run.log_artifact(student)
    run.log_text("a: 1", "recipe.yaml")
    for uri in (f"runs:/{run.run_id}", f"runs:/{run.run_id}/student.safetensors"):
        assert fetch_weights(uri, tracking_uri=run.tracking_uri).read_bytes() == weights_path.read_bytes()


def test_weights_are_located_by_path_or_by_address(run, weights_path):
    run.log_artifact(weights_path)
    assert locate_weights(str(weights_path.parent), tracking_uri=run.tracking_uri) == weights_path
    for where in (f"runs:/{run.run_id}", run.run_id):
        found = locate_weights(where, tracking_uri=run.tracking_uri)
        assert found.read_bytes() == weights_path.read_bytes()


@pytest.mark.parametrize(
    "uri", ["runs:/" + "0" * 32, "models:/nobody@champion", "models:/nobody/1", "models:/m-" + "0" * 32]
)
def test_an_address_that_the_store_does_not_know_is_named_in_the_error(uri, tracking_uri):
    with pytest.raises(ValueError, match=uri):
        fetch_weights(uri, tracking_uri=tracking_uri)


def test_a_run_without_weights_or_with_two_is_refused(run, weights_path, tmp_path):
    uri = f"runs:/{run.run_id}"
    with pytest.raises(ValueError, match=uri):
        fetch_weights(uri, tracking_uri=run.tracking_uri)
    run.log_artifact(weights_path)
    run.log_artifact(shutil.copy(weights_path, tmp_path / "student.safetensors"))
    with pytest.raises(ValueError, match=r"found model\.safetensors, student\.safetensors"):
        fetch_weights(uri, tracking_uri=run.tracking_uri)


def test_a_network_without_classes_is_not_logged_as_a_classifier(run, tmp_path):
    headless = write_weights(tmp_path / "student.safetensors", class_names=())
    with pytest.raises(ValueError, match="has no classes"):
        log_model(run, headless)


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


def test_the_logged_model_asks_for_what_the_project_declares():
    pyproject = tomllib.loads(Path("pyproject.toml").read_text())
    assert set(MODEL_REQUIREMENTS) <= set(pyproject["project"]["dependencies"])


def git(folder, *arguments):
    identity = ["-c", "user.name=me", "-c", "user.email=me@here"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_commit_is_that_of_the_folder_and_says_when_files_were_changed(tmp_path, monkeypatch):
    monkeypatch.delenv("T3D_GIT_COMMIT", raising=False)
    assert git_commit(tmp_path) is None
    git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-m", "first")
    clean = git_commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == f"{clean}-dirty"


def test_code_without_git_is_told_its_commit(tmp_path, monkeypatch):
    monkeypatch.delenv("T3D_GIT_COMMIT", raising=False)
    (tmp_path / ".commit").write_text("\n")  # the image was built without one
    assert git_commit(tmp_path) is None
    (tmp_path / ".commit").write_text("of the image\n")
    assert git_commit(tmp_path) == "of the image"
    monkeypatch.setenv("T3D_GIT_COMMIT", "abc")
    assert git_commit(tmp_path) == "abc"
