"""The model that MLflow serves: every row has its label or its reason, and nobody reads more than they may."""

import base64
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.predict.config import PredictConfig
from pipelines.predict.job import run_predict
from pipelines.predict.video_model import _load_pyfunc
from t3d_core.errors import UserError
from t3d_core.training.checkpoint import load_model, save_weights
from t3d_core.video.playable import write_playable
from tests.pipelines.tracking.new_runs import write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "model.safetensors", class_names=tuple("abcdefg"))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Two clips and a half, of growing noise."""
    path = tmp_path_factory.mktemp("videos") / "a.mp4"
    generator = np.random.default_rng(0)
    frames = [generator.integers(0, 55 + 5 * place, (48, 64, 3)).astype(np.uint8) for place in range(40)]
    write_playable(frames, path=path, fps=25)
    return path


@pytest.fixture(scope="module")
def model(weights):
    return _load_pyfunc(str(weights))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow.pyfunc.scoring_server.app", ModuleType("app"))


@pytest.fixture(params=["variable", "module"])
def served(monkeypatch, request):
    """Each of the two signs of MLflow is enough."""
    if request.param == "module":
        request.getfixturevalue("server")
    else:
        monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")


def data_url(data, kind="video/mp4"):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def predict(model, *videos, **params):
    return model.predict(pd.DataFrame({"video": pd.Series(videos, dtype=object)}), params).to_dict("records")


def test_a_score_is_that_of_the_job_to_the_last_bit_however_the_video_is_given(model, weights, video, tmp_path):
    run_predict(PredictConfig(inputs=(str(video),), model=str(weights), output=tmp_path / "predicted"))
    [predicted] = pq.read_table(tmp_path / "predicted" / "predictions.parquet").to_pylist()
    data = video.read_bytes()
    rows = predict(model, str(video), video, data, data_url(data), data_url(data, kind=""), top=100)
    names = load_model(weights).card.class_names
    for row in rows:
        assert [row["scores"][name] for name in names] == predicted["scores"]
        assert (row["label"], row["score"], row["reason"]) == (predicted["label"], max(predicted["scores"]), "")


def test_a_video_is_read_from_a_web_server(model, video):
    class Folder(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(video.parent))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Folder) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}"
        row, absent, local = predict(model, f"{address}/{video.name}", f"{address}/absent.mp4", str(video))
        server.shutdown()
    assert row == local
    assert absent["reason"] == "not found"


def test_a_bad_row_has_its_reason_and_fails_no_other(model, video):
    bad = {
        "absent.mp4": "not found",
        "a\0b": "null byte",
        "": "not a regular file",
        "ftp://host/a.mp4": "is not read",
        "s3://a.mp4": "names no file",
        "data:;base64,AAA": "not base64",
        "data:video/mp4,AAAA": "as data:;base64,",
        "A" * 5000: "as data:;base64,",
        b"": "empty file",
        b"no video" * 100: "not a video",
        video.read_bytes()[:-1000]: "truncated",
        None: "None is no path",
        float("nan"): "nan is no path",
        5: "5 is no path",
    }
    given = pd.DataFrame({"video": pd.Series([*bad, str(video)], dtype=object, index=range(3, 4 + len(bad)))})
    predicted = model.predict(given)
    assert predicted.index.equals(given.index)
    *failed, good = json.loads(json.dumps(predicted.to_dict("records"), allow_nan=False))
    assert good["reason"] == ""
    for row, reason in zip(failed, bad.values(), strict=True):
        assert reason in row.pop("reason")
        assert set(row.values()) == {None}


def test_parameters_choose_classes_and_clips(model, video):
    [whole] = predict(model, str(video))
    assert len(whole["scores"]) == 5
    [one_clip] = predict(model, str(video), top=2, num_clips=1)
    assert len(one_clip["scores"]) == 2
    assert list(one_clip["scores"].values()) == sorted(one_clip["scores"].values(), reverse=True)
    assert one_clip["score"] != whole["score"]
    for params in ({"top": 0}, {"num_clips": 0}):
        with pytest.raises(UserError, match=r"must be at least 1, got 0"):
            predict(model, str(video), **params)


@pytest.mark.usefixtures("served")
def test_a_server_reads_bytes_and_public_addresses_alone_unless_it_is_told_otherwise(
    model, weights, video, monkeypatch
):
    by_bytes, *refused = predict(model, video.read_bytes(), str(video), f"file://{video}", "s3://bucket/a.mp4")
    assert by_bytes["reason"] == ""
    assert all("T3D_MODEL_READS=anything" in row["reason"] for row in refused)
    [private] = predict(model, "http://127.0.0.1:1/a.mp4")
    assert private["reason"] == "refused: the address does not lead to a public server"
    monkeypatch.setenv("T3D_MODEL_READS", "anything")
    [by_path] = predict(_load_pyfunc(str(weights)), str(video))
    assert by_path == by_bytes
    monkeypatch.setenv("T3D_MODEL_READS", "some")
    with pytest.raises(UserError, match="T3D_MODEL_READS is 'some': set it to 'anything', or unset it"):
        _load_pyfunc(str(weights))


@pytest.mark.usefixtures("server")
def test_a_server_gives_no_row_more_time_than_its_caller_waits(model, weights, video, monkeypatch):
    data = video.read_bytes()
    [expected] = predict(model, data)
    assert expected["reason"] == ""
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "0")
    [late] = predict(model, data)
    assert late["reason"].startswith("no answer within 0 s: give a shorter video")
    busy = _load_pyfunc(str(weights))
    while not busy._decoders.empty():  # all decode long files
        busy._decoders.get()
    assert predict(busy, data) == [late]
    monkeypatch.delenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT")
    assert predict(model, data) == [expected]


def test_requests_at_once_get_the_scores_of_one_alone(model, video):
    expected = predict(model, str(video))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda given: predict(model, given), [str(video), b"no video"] * 5))
    assert answers[::2] == [expected] * 5
    assert all("not a video" in row["reason"] for [row] in answers[1::2])


def test_scores_that_are_no_numbers_are_no_prediction(weights, video, tmp_path):
    net, card = load_model(weights)
    torch.nn.init.constant_(net.classifier.weight, float("nan"))
    save_weights(net, tmp_path / "nan.safetensors", card=card)
    with pytest.raises(UserError, match="not finite"):
        predict(_load_pyfunc(str(tmp_path / "nan.safetensors")), str(video))
