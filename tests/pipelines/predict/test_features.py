"""Features of videos become one table, in the order of the videos, also when the job was killed on the way."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.networks.weights import card_of
from pipelines.predict import features
from pipelines.predict.config import PredictConfig
from pipelines.predict.features import FeatureLedger
from pipelines.predict.job import run_predict
from t3d_core.datasets.synthetic import SyntheticSettings, synthesize_frames
from t3d_core.errors import UserError
from t3d_core.models import build_model
from t3d_core.prediction.video_prediction import VideoPrediction
from t3d_core.training.checkpoint import load_model, save_weights
from t3d_core.video.playable import write_playable
from tests.pipelines.evaluate.small_network import CLIP, MODEL


def prediction_of(feature_ND):
    num_clips = len(feature_ND)
    start_N = np.arange(num_clips) * 2.0
    scores = np.ones(2) / 2, np.ones((num_clips, 2), np.float32) / 2
    return VideoPrediction(*scores, start_N, start_N + 2, 0, np.asarray(feature_ND, np.float32))


def written(folder, kind, videos):
    ledger = FeatureLedger(folder, kind=kind, metadata={"weights_sha256": "12ab"})
    for name, feature_ND in videos.items():
        ledger.append(name, prediction_of(feature_ND))
    return pq.read_table(ledger.write_parquet())


def test_a_row_is_a_clip_with_its_times(tmp_path):
    table = written(tmp_path, "clip", {"a.mp4": [[1, 2, 3], [4, 5, 6]], "b.mp4": [[7, 8, 9]]})
    assert table.to_pylist() == [
        {"video": "a.mp4", "start_seconds": 0.0, "end_seconds": 2.0, "feature": [1, 2, 3]},
        {"video": "a.mp4", "start_seconds": 2.0, "end_seconds": 4.0, "feature": [4, 5, 6]},
        {"video": "b.mp4", "start_seconds": 0.0, "end_seconds": 2.0, "feature": [7, 8, 9]},
    ]
    assert str(table.schema.field("feature").type) == "fixed_size_list<element: float>[3]"
    assert table.schema.metadata == {b"features": b"clip", b"weights_sha256": b"12ab"}


def test_a_row_is_the_mean_of_a_video_from_its_begin_to_its_end(tmp_path):
    [row] = written(tmp_path, "video", {"a.mp4": [[1, 2, 3], [3, 4, 8]]}).to_pylist()
    assert row == {"video": "a.mp4", "start_seconds": 0.0, "end_seconds": 4.0, "feature": [2, 3, 5.5]}


def test_a_killed_job_is_completed(tmp_path):
    written(tmp_path, "clip", {"a.mp4": [[1, 2, 3]], "b.mp4": [[4, 5, 6]]})
    lines = (tmp_path / "features.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "features.jsonl").write_bytes(lines[0] + lines[1][:20])
    with (tmp_path / "features.f32").open("ab") as file:
        file.write(b"\0" * 7)  # of a third video, in part
    ledger = FeatureLedger(tmp_path, kind="clip", metadata={})
    assert ledger.done == {"a.mp4"}
    ledger.append("b.mp4", prediction_of([[4, 5, 6]]))
    rows = pq.read_table(ledger.write_parquet()).to_pylist()
    assert [(row["video"], row["feature"]) for row in rows] == [("a.mp4", [1, 2, 3]), ("b.mp4", [4, 5, 6])]


def test_features_whose_numbers_are_gone_are_not_done(tmp_path):
    written(tmp_path, "clip", {"a.mp4": [[1, 2, 3]], "b.mp4": [[4, 5, 6]]})
    (tmp_path / "features.f32").write_bytes((tmp_path / "features.f32").read_bytes()[:-4])
    assert FeatureLedger(tmp_path, kind="clip", metadata={}).done == {"a.mp4"}
    (tmp_path / "features.f32").unlink()
    assert FeatureLedger(tmp_path, kind="clip", metadata={}).write_parquet() is None


def test_groups_of_rows_are_bounded_also_within_a_long_video(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_ROWS_A_GROUP", 4)
    videos = {"long.mp4": np.arange(18).reshape(9, 2), "b.mp4": [[1, 1]], "c.mp4": [[2, 2]] * 3}
    table = written(tmp_path, "clip", videos)
    file = pq.ParquetFile(tmp_path / "features.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [4, 4, 2, 3]
    assert table["feature"].to_pylist() == [*videos["long.mp4"].tolist(), [1, 1], *[[2, 2]] * 3]


def test_the_other_kind_of_features_asked_for_in_between_does_not_enter_the_table(tmp_path):
    clips = {"a.mp4": [[1, 2], [3, 6]]}
    first = written(tmp_path, "clip", clips)
    assert written(tmp_path, "video", clips)["feature"].to_pylist() == [[2, 4]]
    assert FeatureLedger(tmp_path, kind="clip", metadata={}).done == set()
    assert written(tmp_path, "clip", clips).equals(first)


def test_names_that_are_not_utf8_are_shown_as_codes(tmp_path):
    assert written(tmp_path, "video", {"a\udcff.mp4": [[1.0]]})["video"].to_pylist() == ["a\\xff.mp4"]


def test_the_example_of_the_guide_finds_what_is_alike(tmp_path, monkeypatch, capsys):
    guide = (Path(__file__).parents[3] / "jobs" / "predict.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    [example] = [code for code in examples if "features.parquet" in code]
    rng = np.random.default_rng(0)
    centres = {"run": [9, 0, 1], "jump": [0, 5, 1]}
    names = [(f"/videos/{name}/{number}.mp4", centre) for number in range(7) for name, centre in centres.items()]
    (tmp_path / "RESULT").mkdir()
    written(tmp_path / "RESULT", "video", {name: [rng.normal(centre, 0.3)] for name, centre in names})
    monkeypatch.chdir(tmp_path)
    exec(example)
    *nearest, accuracy = capsys.readouterr().out.splitlines()
    assert len(nearest) == 5
    assert all(re.match(r"(1\.000|0\.9\d\d) /videos/run/", line) for line in nearest)
    assert "/videos/run/0.mp4" not in " ".join(nearest)
    assert float(accuracy) == 1


@pytest.fixture
def video(tmp_path):
    settings = SyntheticSettings(videos_per_class=1, num_frames=40)
    frames_THWC = synthesize_frames("move_left", index=0, settings=settings)
    write_playable(iter(frames_THWC), path=tmp_path / "left.mp4", fps=25)
    return tmp_path / "left.mp4"


@pytest.fixture
def weights(tmp_path):
    """A network with random weights; the classes do not matter here."""
    card = card_of(MODEL, CLIP, class_names=("move_left", "move_right"))
    net = build_model(card.model_kind, num_classes=2, **card.model_arguments)
    save_weights(net, tmp_path / "model.safetensors", card=card)
    return tmp_path / "model.safetensors"


@pytest.fixture
def headless(weights, tmp_path):
    """The same weights without the classes, as a transfer leaves them."""
    net, card = load_model(weights)
    net.reset_classifier(0)
    save_weights(net, tmp_path / "student.safetensors", card=replace(card, class_names=()))
    return tmp_path / "student.safetensors"


def config_of(model, video, tmp_path, **changes):
    settings = {"inputs": (str(video),), "model": str(model), "output": tmp_path / "predicted"}
    return PredictConfig(**settings | changes)


def features_of(tmp_path):
    return np.array(pq.read_table(tmp_path / "predicted" / "features.parquet")["feature"].to_pylist())


@pytest.mark.heavy
def test_features_are_made_up_for_later_and_stay_when_other_files_are(weights, video, tmp_path):
    run_predict(config_of(weights, video, tmp_path))
    assert "features.parquet" in run_predict(config_of(weights, video, tmp_path, features="clip"))
    before = features_of(tmp_path)
    assert "resumed" in run_predict(config_of(weights, video, tmp_path, features="clip"))
    run_predict(config_of(weights, video, tmp_path, timeline=True))
    assert "resumed" in run_predict(config_of(weights, video, tmp_path, features="clip"))
    assert np.array_equal(features_of(tmp_path), before)
    run_predict(config_of(weights, video, tmp_path, features="video"))
    np.testing.assert_allclose(features_of(tmp_path), before.mean(axis=0, keepdims=True), rtol=1e-6)


def test_features_are_those_that_the_scores_are_made_of(weights, video, tmp_path):
    run_predict(config_of(weights, video, tmp_path, features="clip"))
    line = json.loads((tmp_path / "predicted" / "predictions.jsonl").read_text())
    with torch.inference_mode():
        feature_ND = torch.tensor(features_of(tmp_path), dtype=torch.float32)
        score_NK = load_model(weights).model.classifier(feature_ND).softmax(dim=1)
    np.testing.assert_allclose(score_NK, [clip["scores"] for clip in line["clips"]], atol=1e-5)
    metadata = pq.read_schema(tmp_path / "predicted" / "features.parquet").metadata
    assert metadata[b"weights_sha256"].decode() == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_weights_without_classes_give_features_alone(weights, headless, video, tmp_path, capsys):
    run_predict(config_of(weights, video, tmp_path, features="clip"))
    of_classifier = features_of(tmp_path)
    run_predict(config_of(headless, video, tmp_path, features="clip", output=tmp_path / "headless"))
    [row] = pq.read_table(tmp_path / "headless" / "predictions.parquet").to_pylist()
    assert (row["status"], row["label"], row["score"], row["scores"]) == ("ok", None, None, [])
    table = pq.read_table(tmp_path / "headless" / "features.parquet")
    assert table["feature"].to_pylist() == of_classifier.tolist()
    assert f"features of {of_classifier.shape[1]} numbers" in capsys.readouterr().out


def test_weights_without_classes_cannot_give_what_needs_them(headless, video, tmp_path):
    with pytest.raises(UserError, match=r"no classes.*give --features video"):
        run_predict(config_of(headless, video, tmp_path))
    with pytest.raises(UserError, match=r"timeline\.csv need classes"):
        run_predict(config_of(headless, video, tmp_path, features="clip", timeline=True))
