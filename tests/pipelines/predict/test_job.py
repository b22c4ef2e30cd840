"""Videos become predictions: the scores of a test, one row for each video, and nothing is lost on the way."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.evaluate.job import run_evaluate
from pipelines.networks.config import ScoringComputeConfig
from pipelines.predict import ledger
from pipelines.predict.config import PredictConfig
from pipelines.predict.in_process import predict_in_process
from pipelines.predict.job import run_predict
from pipelines.predict.ledger import Ledger, PredictedVideo
from pipelines.predict.video_files import folder_of
from t3d_core.errors import UserError
from t3d_core.prediction.video_prediction import VideoPrediction
from t3d_core.video.decoding import probe
from t3d_core.video.guard import GuardedDecoder
from tests.conftest import SHARED_DATA
from tests.pipelines.evaluate.small_network import CLIP, evaluate_config, save_network


def predict_config(weights, tmp_path, *inputs, **changes):
    settings = {"inputs": tuple(map(str, inputs)), "model": str(weights), "output": tmp_path / "predicted"}
    return PredictConfig(**settings | {"storage": tmp_path / "runs"} | changes)


def rows_of(tmp_path):
    return pq.read_table(tmp_path / "predicted" / "predictions.parquet").to_pylist()


def test_a_test_video_gets_its_evaluated_score_to_the_last_bit(
    local_ray, tracking_uri, synthetic_shards, weights, tmp_path
):
    run_evaluate(evaluate_config(synthetic_shards, tmp_path, weights, batch_size=3))
    evaluated = pq.read_table(tmp_path / "result" / "scores.parquet").to_pylist()
    paths = {path.name: path for path in synthetic_shards.rglob("*.mp4")}
    tested = [paths[Path(row["video_id"]).name] for row in evaluated]
    run_predict(predict_config(weights, tmp_path, *reversed(tested), batch_size=3))
    predicted = {row["video"]: row for row in rows_of(tmp_path)}
    assert len(predicted) == len(evaluated) == 10
    for row, path in zip(evaluated, tested, strict=True):
        assert np.float32(predicted[str(path)]["scores"]).tolist() == row["scores"]
        assert predicted[str(path)]["label"] == row["predicted"]


@pytest.mark.heavy
def test_real_videos_that_are_copied_get_their_evaluated_scores(local_ray, tracking_uri, weizmann_shards, tmp_path):
    """AVI files of MPEG-4: read from their start, while their copies are read by seeking."""
    weights = save_network(weizmann_shards, tmp_path / "model.safetensors", CLIP)
    config = evaluate_config(weizmann_shards, tmp_path, weights, batch_size=8)
    run_evaluate(config.model_copy(update={"data": config.data.model_copy(update={"split": "val"})}))
    evaluated = pq.read_table(tmp_path / "result" / "scores.parquet").to_pylist()
    tested = [SHARED_DATA / "weizmann6" / row["video_id"] for row in evaluated]
    tested = [path if path.exists() else next((SHARED_DATA).rglob(path.name)) for path in tested]
    run_predict(predict_config(weights, tmp_path, *tested))
    for row, predicted in zip(evaluated, rows_of(tmp_path), strict=True):
        assert np.float32(predicted["scores"]).tolist() == row["scores"], row["video_id"]


@pytest.mark.parametrize("changes", [{"num_clips": 3}, {"num_crops": 3}, {"num_crops": 10, "num_clips": 2}])
def test_other_views_are_those_of_evaluate_too(local_ray, tracking_uri, synthetic_shards, weights, tmp_path, changes):
    run_evaluate(evaluate_config(synthetic_shards, tmp_path, weights, num_workers=0, **changes))
    evaluated = pq.read_table(tmp_path / "result" / "scores.parquet").to_pylist()[0]
    [path] = synthetic_shards.rglob(Path(evaluated["video_id"]).name)
    run_predict(predict_config(weights, tmp_path, path, batch_size=3, **changes))
    [row] = rows_of(tmp_path)
    assert np.float32(row["scores"]).tolist() == evaluated["scores"]
    assert len(row["clips"]) == changes.get("num_clips", 2)


def test_segments_of_a_network_are_scored_together(synthetic_shards, segment_weights, videos, tmp_path):
    run_predict(predict_config(segment_weights, tmp_path, videos / "0.mp4"))
    [row] = rows_of(tmp_path)
    assert len(row["clips"]) == 1
    assert (row["start_seconds"], round(row["end_seconds"] * 25)) == (0.0, 40)


def test_a_bad_video_is_a_row_with_its_reason_and_stops_nothing(weights, videos, tmp_path, capsys):
    summary = run_predict(predict_config(weights, tmp_path, videos, tmp_path / "absent.mp4"))
    rows = rows_of(tmp_path)
    assert [Path(row["video"]).name for row in rows] == ["0.mp4", "1.mp4", "2.mp4", "broken.mp4", "absent.mp4"]
    assert [row["status"] for row in rows] == ["ok"] * 3 + ["failed"] * 2
    assert "not a video" in rows[3]["reason"]
    assert rows[4]["reason"] == "not found"
    assert "3 of 5 videos" in summary
    assert "failed:     2 videos" in summary
    assert "FAILED: not found" in capsys.readouterr().out


def test_a_row_says_when_each_clip_is_shown_and_scores_sum_to_one(weights, videos, tmp_path):
    run_predict(predict_config(weights, tmp_path, videos / "1.mp4"))
    [row] = rows_of(tmp_path)
    line = json.loads((tmp_path / "predicted" / "predictions.jsonl").read_text())
    assert line == row | {
        "clips": [clip | {"scores": line["clips"][place]["scores"]} for place, clip in enumerate(row["clips"])]
    }
    spans = [(round(clip["start_seconds"] * 25), round(clip["end_seconds"] * 25)) for clip in row["clips"]]
    assert spans == [(0, 16), (16, 32)]
    assert sum(row["scores"]) == pytest.approx(1)
    assert np.mean([clip["scores"] for clip in row["clips"]], axis=0) == pytest.approx(row["scores"])
    metadata = pq.read_schema(tmp_path / "predicted" / "predictions.parquet").metadata
    assert len(json.loads(metadata[b"class_names"])) == len(row["scores"])


def test_a_stride_in_seconds_gives_a_finer_timeline(weights, videos, tmp_path):
    run_predict(predict_config(weights, tmp_path, videos / "0.mp4", stride_seconds=0.2))
    [row] = rows_of(tmp_path)
    assert [round(clip["start_seconds"] * 25) for clip in row["clips"]] == [0, 5, 10, 15, 20]


def test_an_interrupted_job_is_completed_and_failed_videos_are_tried_again(weights, videos, tmp_path, monkeypatch):
    config = predict_config(weights, tmp_path, videos)
    run_predict(config)
    first = rows_of(tmp_path)
    ledger = tmp_path / "predicted" / "predictions.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(lines[0] + lines[1][:50])  # killed while it wrote the second line
    shutil.copy(videos / "0.mp4", videos / "broken.mp4")
    scored = []
    monkeypatch.setattr("pipelines.predict.job.predict_in_process", counting(scored))
    summary = run_predict(config)
    assert scored == ["1.mp4", "2.mp4", "broken.mp4"]
    rows = rows_of(tmp_path)
    assert rows[:3] == first[:3]
    assert rows[3]["scores"] == rows[0]["scores"]
    assert "resumed:    1 videos" in summary


def counting(scored):
    def predict(videos, *rest, **options):
        scored.extend(Path(video.name).name for video in videos)
        return predict_in_process(videos, *rest, **options)

    return predict


def test_a_folder_with_other_predictions_is_refused(weights, videos, tmp_path):
    run_predict(predict_config(weights, tmp_path, videos / "0.mp4"))
    with pytest.raises(UserError, match="another network or with another sampling"):
        run_predict(predict_config(weights, tmp_path, videos / "0.mp4", num_clips=1))


def test_scores_that_are_no_numbers_stop_the_job(weights, videos, tmp_path):
    import torch

    from t3d_core.training.checkpoint import load_model, save_weights

    net, card = load_model(weights)
    torch.nn.init.constant_(net.classifier.weight, float("nan"))
    save_weights(net, tmp_path / "nan.safetensors", card=card)
    with pytest.raises(UserError, match="not finite"):
        run_predict(predict_config(tmp_path / "nan.safetensors", tmp_path, videos))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inputs": ()}, "no video is given"),
        ({"model": "absent.safetensors"}, "does not exist"),
        ({"model": None}, "give --model, or train first"),
        ({"use_gpu": True}, "finds no GPU"),
    ],
)
def test_what_cannot_work_is_refused_before_a_video_is_read(weights, videos, tmp_path, monkeypatch, changes, reason):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=reason):
        run_predict(predict_config(weights, tmp_path, videos).model_copy(update=changes))
    assert not list(tmp_path.rglob("predictions.parquet"))


def test_a_cut_off_file_of_weights_is_named_with_the_cure(weights, videos, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"cut\.safetensors cannot be read.*give a whole \.safetensors file"):
        run_predict(predict_config(tmp_path / "cut.safetensors", tmp_path, videos))


def test_bf16_and_switches_change_scores_by_rounding_only(weights, videos, tmp_path):
    run_predict(predict_config(weights, tmp_path, videos / "0.mp4"))
    compute = ScoringComputeConfig(fold_batch_norm=False, channels_last=False)
    run_predict(predict_config(weights, tmp_path, videos / "0.mp4", compute=compute, output=tmp_path / "other"))
    [row], [other] = rows_of(tmp_path), pq.read_table(tmp_path / "other" / "predictions.parquet").to_pylist()
    assert other["scores"] == pytest.approx(row["scores"], abs=1e-4)


@pytest.mark.heavy
def test_one_file_is_predicted_without_the_libraries_that_it_does_not_need(weights, videos, tmp_path):
    script = """
import sys
from pipelines.predict.config import PredictConfig
from pipelines.predict.in_process import predict_in_process
from pipelines.predict.job import run_predict
run_predict(PredictConfig(inputs=sys.argv[1:2], model=sys.argv[2], output="predicted"))
print(sorted({"ray", "mlflow", "torchvision", "matplotlib"} & {*sys.modules}))
"""
    command = [sys.executable, "-c", script, str(videos / "0.mp4"), str(weights)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.heavy
def test_the_files_of_a_video_are_made_and_made_up_for_later(weights, videos, tmp_path, capsys):
    config = predict_config(weights, tmp_path, videos / "0.mp4", videos / "broken.mp4", stride_seconds=0.2)
    run_predict(config)
    summary = run_predict(config.model_copy(update={"timeline": True, "annotate": True, "explain": True}))
    [folder] = (tmp_path / "predicted" / "videos").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert names == {"timeline.csv", "timeline.png", "annotated.mp4", "explanation.png", "explanation.mp4"}
    copy, source = probe(folder / "annotated.mp4"), probe(videos / "0.mp4")
    assert (copy.num_frames, copy.height, copy.width, copy.fps) == (40, source.height, source.width, source.fps)
    assert probe(folder / "explanation.mp4").num_frames == CLIP.num_frames
    out = capsys.readouterr().out
    assert out.count("temporal layer") == 3
    assert "0:00-0:0" in out
    assert "annotated.mp4" in summary
    assert "1 of 2 videos" in summary


def test_files_of_videos_with_one_name_lie_apart(tmp_path):
    folders = {folder_of(tmp_path, name) for name in ("a/clip.mp4", "b/clip.mp4", "b/clip.avi")}
    assert len(folders) == 3
    assert all(re.fullmatch(r"clip-[0-9a-f]{8}", folder.name) for folder in folders)


def test_files_that_cannot_be_written_do_not_lose_the_prediction(weights, videos, tmp_path, capsys):
    (tmp_path / "predicted").mkdir()
    (tmp_path / "predicted" / "videos").touch()  # a file in the place of the folder
    run_predict(predict_config(weights, tmp_path, videos / "0.mp4", timeline=True))
    assert [row["status"] for row in rows_of(tmp_path)] == ["ok"]
    assert "its files cannot be written" in capsys.readouterr().out


@pytest.mark.parametrize("later", [{"timeline": True}, {"features": "clip"}])
def test_a_prediction_survives_a_video_that_is_gone_later_and_what_is_missing_is_counted(
    weights, videos, tmp_path, capsys, later
):
    config = predict_config(weights, tmp_path, videos / "0.mp4")
    run_predict(config)
    (videos / "0.mp4").unlink()
    summary = run_predict(config.model_copy(update=later))
    assert [row["status"] for row in rows_of(tmp_path)] == ["ok"]
    assert "1 of 1 videos" in summary
    assert "no files:   1 videos" in summary
    assert "its files cannot be written: not found" in capsys.readouterr().out


def test_files_that_are_asked_for_later_are_made_of_the_scores_that_there_are(weights, videos, tmp_path, monkeypatch):
    config = predict_config(weights, tmp_path, videos / "0.mp4")
    run_predict(config)
    lines = (tmp_path / "predicted" / "predictions.jsonl").read_bytes()
    monkeypatch.setattr(GuardedDecoder, "read_views", lambda *_: pytest.fail("it is read again"))
    assert "no files" not in run_predict(config.model_copy(update={"timeline": True}))
    assert (tmp_path / "predicted" / "predictions.jsonl").read_bytes() == lines
    assert len(list(tmp_path.rglob("timeline.csv"))) == 1


def test_a_full_disk_stops_the_job_and_the_next_start_completes_it(weights, videos, tmp_path, monkeypatch):
    config, append = predict_config(weights, tmp_path, videos), Ledger.append
    results = []

    def fails_at_the_second(self, result):
        results.append(result.video)
        if len(results) == 2:
            with self.jsonl.open("ab") as file:
                file.write(b'{"video": "hal')
            raise OSError(28, "No space left on device")
        append(self, result)

    monkeypatch.setattr(Ledger, "append", fails_at_the_second)
    with pytest.raises(OSError, match="No space"):
        run_predict(config)
    monkeypatch.setattr(Ledger, "append", append)
    run_predict(config)
    assert [row["status"] for row in rows_of(tmp_path)] == ["ok"] * 3 + ["failed"]


def test_what_the_decoder_refuses_in_one_video_stops_no_other(weights, videos, tmp_path, monkeypatch):
    read = GuardedDecoder.read_views

    def refuses_one(self, path, sampling, **options):
        if str(path).endswith("1.mp4"):
            raise UserError("the crop does not fit")
        yield from read(self, path, sampling, **options)

    monkeypatch.setattr(GuardedDecoder, "read_views", refuses_one)
    run_predict(predict_config(weights, tmp_path, videos))
    assert [row["reason"] for row in rows_of(tmp_path)[:3]] == ["", "the crop does not fit", ""]


@pytest.mark.parametrize("changes", [{}, {"timeline": True}])
def test_a_video_that_gives_no_view_is_one_failed_row(weights, videos, tmp_path, monkeypatch, changes):
    read = GuardedDecoder.read_views

    def gives_nothing_of_one(self, path, sampling, **options):
        return iter(()) if str(path).endswith("1.mp4") else read(self, path, sampling, **options)

    monkeypatch.setattr(GuardedDecoder, "read_views", gives_nothing_of_one)
    run_predict(predict_config(weights, tmp_path, videos, **changes))
    assert [row["reason"].partition(":")[0] for row in rows_of(tmp_path)[:3]] == ["", "zero frames", ""]


def test_another_precision_is_another_job(weights, videos, tmp_path):
    config = predict_config(weights, tmp_path, videos / "0.mp4")
    run_predict(config)
    with pytest.raises(UserError, match="another network or with another sampling"):
        run_predict(config.model_copy(update={"compute": ScoringComputeConfig(precision="bf16")}))


def test_groups_of_the_table_are_bounded_by_their_scores_too(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "_ROWS_A_GROUP", 3)
    monkeypatch.setattr(ledger, "_NUMBERS_A_GROUP", 20)
    made = Ledger(tmp_path, scored_by={}, class_names=("a", "b"))
    for place, num_clips in enumerate((1, 4, 1, 9, 0, 0, 1, 1)):  # a clip has four numbers
        score_NK, time_N = np.full((num_clips, 2), 0.5, np.float32), np.arange(float(num_clips))
        prediction = VideoPrediction(np.full(2, 0.5), score_NK, time_N, time_N + 1, 0) if num_clips else None
        made.append(PredictedVideo(f"{place}.mp4", prediction))
    made.write_parquet()
    file = pq.ParquetFile(made.parquet)
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [2, 1, 1, 3, 1]
    assert [len(row["clips"] or ()) for row in file.read().to_pylist()] == [1, 4, 1, 9, 0, 0, 1, 1]
