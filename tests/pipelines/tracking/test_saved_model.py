"""What a user of a logged model gets."""

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.types import DataType

from pipelines.tracking.models import log_model
from pipelines.tracking.saved_model import MODEL_REQUIREMENTS, signature_of
from t3d_core.training.weights_card import read_card
from t3d_core.video.playable import write_playable
from tests.pipelines.tracking.new_runs import open_run

START_SECONDS = 200


@pytest.fixture
def run(empty_store, tmp_path):
    """A run in a folder with a name that ends an address."""
    folder = tmp_path / "a#b"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return open_run(f"sqlite:///{folder}/mlflow.db")


@pytest.fixture
def store_of_user(run):
    """What a user of the model does: names the store to MLflow; undone for the tests that follow."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(run.tracking_uri)
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "a.mp4"
    write_playable(np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), np.uint8), path=path, fps=25)
    return path


@pytest.mark.usefixtures("store_of_user")
def test_a_logged_model_says_what_it_takes_and_predicts_its_own_example(run, weights_path):
    model = mlflow.pyfunc.load_model(log_model(run, weights_path))
    assert model.metadata.run_id == run.run_id
    [column] = model.metadata.signature.inputs
    assert (column.name, column.type, column.required) == ("video", DataType.string, True)
    assert model.metadata.signature.outputs.input_names() == ["label", "score", "scores", "reason"]
    assert {each.name: each.default for each in model.metadata.signature.params} == {"top": 5, "num_clips": None}
    [row] = model.predict(model.input_example, params={"top": 2}).to_dict("records")
    assert row["reason"] == ""
    assert row["label"] in "abc"
    assert len(row["scores"]) == 2


def test_a_network_of_segments_offers_no_number_of_clips(weights_path):
    card = replace(read_card(weights_path), num_segments=2)
    assert [each.name for each in signature_of(card, weights_path).params] == ["top"]


def test_the_model_asks_for_what_the_project_declares():
    pyproject = tomllib.loads(Path("pyproject.toml").read_text())
    assert set(MODEL_REQUIREMENTS) <= set(pyproject["project"]["dependencies"])


@pytest.mark.heavy
def test_mlflow_serves_the_model_from_its_files_alone(run, weights_path, video, tmp_path):
    """`mlflow models serve`: bytes have labels; hostile files, and paths of the server, are rows with reasons."""
    log_model(run, weights_path)
    [folder] = [path.parent for path in tmp_path.rglob("MLmodel")]
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pyc", ".pickle")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-P", "-m", "mlflow", "models", "serve", "--model-uri", str(folder), *options]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "T3D_MODEL_READS")}
    log = (tmp_path / "serve.log").open("wb")
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=log, start_new_session=True)
    try:
        wait_for(port, server, tmp_path / "serve.log")
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{video}\n#EXT-X-ENDLIST\n"  # to read by the server
        videos = [data_url(video.read_bytes()), str(video), data_url(playlist.encode())]
        by_bytes, by_path, hostile = post(port, {"dataframe_records": [{"video": each} for each in videos]})
        assert by_bytes["label"] in "abc"
        assert by_path["reason"].startswith("refused: this server reads bytes")  # it sees that MLflow serves it
        assert hostile["reason"].startswith("not a video")
        assert hostile["label"] is hostile["score"] is hostile["scores"] is None
        example = json.loads((folder / "serving_input_example.json").read_text())
        [of_example] = post(port, example | {"params": {"top": 1, "num_clips": 1}})
        assert len(of_example["scores"]) == 1
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
        log.close()


def data_url(data):
    return f"data:;base64,{base64.b64encode(data).decode()}"


def wait_for(port, server, log):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            ask = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            ask.request("GET", "/ping")
            if ask.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server does not answer:\n{log.read_text()}")


def post(port, request):
    ask = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    ask.request("POST", "/invocations", json.dumps(request), {"Content-Type": "application/json"})
    answer = ask.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    return json.loads(body, parse_constant=pytest.fail)["predictions"]
