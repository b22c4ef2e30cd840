"""Small networks and synthetic shards: what is scored, what is counted, what is written; a few cases on Ray."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from pipelines.clips.config import ClipConfig
from pipelines.clips.stream import as_row
from pipelines.clips.views import ViewPlan
from pipelines.evaluate.job import run_evaluate
from pipelines.evaluate.scoring import Scored, Scorer, _settings_of_scorer
from pipelines.shards.index import load_index
from t3d_core.errors import UserError
from t3d_core.evaluation.intervals import accuracy_interval
from t3d_core.evaluation.video_scores import VideoScores
from t3d_core.training.checkpoint import load_model, save_weights
from t3d_core.video.cropping import view_crops
from t3d_core.video.decoding import decode_frames
from t3d_core.video.sizes import resized_size
from tests.pipelines.damage import changed_videos
from tests.pipelines.evaluate.small_network import (
    evaluate_config,
    network_input,
    plan_of,
    save_network,
    scores_of,
)

CLIP = ClipConfig(num_frames=16, frame_stride=1, crop_size=32)  # two clips in the 40 frames of a synthetic video
NUM_TEST_VIDEOS = 10


@pytest.fixture
def without_ray(monkeypatch):
    """Batches are loaded and scored in this process: no worker to start."""

    class Here(NamedTuple):
        plan: ViewPlan
        scorer: Scorer
        batch_size: int

        def iter_batches(self, **_):
            numbers = range(self.plan.num_views)
            for first in range(0, len(numbers), self.batch_size):
                yield as_row(self.scorer.score(self.plan.batch(numbers[first : first + self.batch_size])))

    def batches(plan, loaded, config):
        return Here(plan, Scorer(loaded, **_settings_of_scorer(config)), config.batch_size)

    monkeypatch.setattr("pipelines.evaluate.scoring._scored_by_actors", batches)


def runs_of(tmp_path):
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("t3d")
    return client, client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def read_results(output):
    metrics = json.loads((output / "metrics.json").read_text())
    return metrics, pq.read_table(output / "scores.parquet")


@pytest.mark.parametrize(("num_crops", "batch_size"), [(1, 3), (3, 4), (10, 7)])
def test_every_view_of_every_video_is_loaded_once_with_the_pixels_of_the_source(
    synthetic_shards, weights, num_crops, batch_size
):
    plan = plan_of(synthetic_shards, weights, num_crops=num_crops)
    index, clip = plan.loader.index, plan.loader.clip
    starts = range(0, plan.num_views, batch_size)
    batches = [plan.batch(range(first, min(first + batch_size, plan.num_views))) for first in starts]
    assert {len(batch["row_B"]) for batch in batches[:-1]} == {batch_size}
    views = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert views["row_B"].tolist() == [row for row in range(NUM_TEST_VIDEOS) for _ in range(2 * num_crops)]
    assert not any(views["reason_B"])
    assert not views["num_padded_B"].any()
    size = resized_size(48, 64, short_side=clip.short_side)
    crops = view_crops(*size, crop_size=32, num_crops=num_crops)
    for row in (0, NUM_TEST_VIDEOS - 1):
        frames_THWC = decode_frames(
            index.frames(row), range(40), size=size, crop=crops[0][0] if num_crops == 1 else None
        )
        expected = []
        for first in (0, 16):
            for crop, is_mirrored in crops:
                cut = frames_THWC[first : first + 16]
                if num_crops > 1:
                    cut = cut[:, crop.top : crop.top + 32, crop.left : crop.left + 32]
                expected.append(cut[:, :, ::-1] if is_mirrored else cut)
        assert np.array_equal(views["clip_BSTHWC"][views["row_B"] == row][:, 0], np.stack(expected))


def test_a_number_of_clips_lies_at_even_distances(synthetic_shards, weights):
    plan = plan_of(synthetic_shards, weights, num_clips=4)
    assert plan.num_views == 4 * NUM_TEST_VIDEOS
    assert_clips_start_at((0, 8, 16, 24), plan, plan.batch(range(4))["clip_BSTHWC"][:, 0])


def test_a_view_of_segments_holds_clips_that_do_not_overlap_in_their_order(synthetic_shards, segment_weights):
    plan = plan_of(synthetic_shards, segment_weights)
    batch = plan.batch(range(1, plan.num_views))
    assert batch["row_B"].tolist() == list(range(1, NUM_TEST_VIDEOS))
    (first_STHWC,) = plan.batch(range(1))["clip_BSTHWC"]
    assert_clips_start_at((0, 24), plan, first_STHWC)


def assert_clips_start_at(starts, plan, clip_STHWC):
    """The clips of row 0 are 16 frames each from `starts` on, in the centre crop."""
    size = plan.loader.test_size(0)
    [(crop, _)] = view_crops(*size, crop_size=32, num_crops=1)
    frames_THWC = decode_frames(plan.loader.index.frames(0), range(40), size=size, crop=crop)
    assert np.array_equal(clip_STHWC, np.stack([frames_THWC[start : start + 16] for start in starts]))


def test_made_up_frames_of_all_segments_are_counted(synthetic_shards, tmp_path):
    clip = CLIP.model_copy(update={"frame_stride": 4, "num_segments": 3})
    plan = plan_of(synthetic_shards, save_network(synthetic_shards, tmp_path / "model.safetensors", clip))
    assert plan.batch(range(2))["num_padded_B"].tolist() == [18, 18]  # frames 40, 44, ... 60, three times


@pytest.fixture(scope="module")
def tested(damaged, weights, empty_store, tmp_path_factory):
    """(folder, summary) of a test by one worker."""
    tmp_path = tmp_path_factory.mktemp("tested")
    shutil.copy(empty_store, tmp_path)
    return tmp_path, run_evaluate(evaluate_config(damaged.shards, tmp_path, weights, cpus_per_worker=1.0))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_any_number_of_workers_gives_the_same_numbers_to_the_last_bit(tested, damaged, weights, tmp_path, num_workers):
    run_evaluate(evaluate_config(damaged.shards, tmp_path, weights, num_workers=num_workers))
    expected, result = tested[0] / "result", tmp_path / "result"
    assert (result / "metrics.json").read_bytes() == (expected / "metrics.json").read_bytes()
    assert pq.read_table(result / "scores.parquet").equals(pq.read_table(expected / "scores.parquet"))
    assert (result / "classes.csv").read_bytes() == (expected / "classes.csv").read_bytes()


def test_the_score_of_a_video_is_the_mean_over_its_clips_and_each_video_is_there_once(tested, damaged, weights):
    _, table = read_results(tested[0] / "result")
    index = load_index([damaged.shards], fold=1, splits=["test"])
    net, card = load_model(weights)
    assert json.loads(table.schema.metadata[b"class_names"]) == list(card.class_names)
    rows = {row["video_id"]: row for row in table.to_pylist()}
    assert len(table) == len(rows)
    assert rows.keys() == set(index.video_id_N) - set(damaged.video_ids)
    plan = plan_of(damaged.shards, weights)
    for row in (0, 1):
        with torch.no_grad():
            logits_BK = net(network_input(plan.batch(range(2 * row, 2 * row + 2))["clip_BSTHWC"][:, 0], card))
        found = rows[index.video_id_N[row]]
        np.testing.assert_allclose(found["scores"], logits_BK.softmax(dim=1).mean(dim=0), atol=1e-4)
        assert found["label"] == index.class_names[index.label_N[row]]
        assert found["num_views"] == 2


def test_metrics_follow_from_the_scores_file(tested):
    metrics, table = read_results(tested[0] / "result")
    rows, names = table.to_pylist(), json.loads(table.schema.metadata[b"class_names"])
    places = [sorted(row["scores"], reverse=True).index(row["scores"][names.index(row["label"])]) for row in rows]
    num_top1, num_top5 = (sum(place < k for place in places) for k in (1, 5))
    assert 0 < num_top1 < len(rows)
    assert num_top1 == sum(row["label"] == row["predicted"] for row in rows)
    assert metrics["video_top1"] == num_top1 / len(rows)
    assert metrics["video_top5"] == num_top5 / len(rows)
    interval = binomtest(num_top1, len(rows)).proportion_ci(method="wilson")
    assert (metrics["video_top1_low"], metrics["video_top1_high"]) == pytest.approx((interval.low, interval.high))
    assert (metrics["num_listed"], metrics["num_videos"], metrics["num_failed"]) == (NUM_TEST_VIDEOS, len(rows), 2)
    assert metrics["coverage"] == (NUM_TEST_VIDEOS - 2) / NUM_TEST_VIDEOS
    assert metrics["num_clips"] == metrics["num_views"] == 2 * len(rows)


def test_intervals_are_over_sources_which_the_scores_name(synthetic_shards, weights, tmp_path, without_ray):
    shards = shutil.copytree(synthetic_shards, tmp_path / "shards")
    with changed_videos(shards) as videos:
        for number, video in enumerate(videos):
            video["source"] = f"scene{number % 4}"
    run_evaluate(evaluate_config(shards, tmp_path, weights))
    metrics, table = read_results(tmp_path / "result")
    index = load_index([shards], fold=1, splits=["test"])
    source_of = dict(zip(index.video_id_N, index.source_names[index.source_N], strict=True))
    assert table.column("source").to_pylist() == [source_of[video_id] for video_id in table["video_id"].to_pylist()]
    is_correct_V = np.array([row["label"] == row["predicted"] for row in table.to_pylist()])
    source_V = np.unique(table.column("source").to_pylist(), return_inverse=True)[1]
    assert len(set(source_V)) == 4
    expected = accuracy_interval(is_correct_V, source_V)
    assert (metrics["video_top1_low"], metrics["video_top1_high"]) == expected
    assert expected != accuracy_interval(is_correct_V, np.arange(len(source_V)))


def test_classes_are_reported_as_scikit_learn_counts_them(tested):
    _, table = read_results(tested[0] / "result")
    names = json.loads(table.schema.metadata[b"class_names"])
    label, predicted = (table.column(name).to_pylist() for name in ("label", "predicted"))
    with (tested[0] / "result" / "classes.csv").open(newline="") as file:
        classes = list(csv.DictReader(file))
    with (tested[0] / "result" / "confusion_matrix.csv").open(newline="") as file:
        heading, *matrix = list(csv.reader(file))
    assert [row["class"] for row in classes] == names == heading[1:] == [row[0] for row in matrix]
    expected_KK = confusion_matrix(label, predicted, labels=names)
    assert np.array_equal(np.array([row[1:] for row in matrix], int), expected_KK)
    recall_K = recall_score(label, predicted, labels=names, average=None, zero_division=np.nan)
    precision_K = precision_score(label, predicted, labels=names, average=None, zero_division=np.nan)
    for k, row in enumerate(classes):
        np.testing.assert_allclose(float(row["top1"] or "nan"), recall_K[k], atol=1e-6)
        np.testing.assert_allclose(float(row["precision"] or "nan"), precision_K[k], atol=1e-6)
        assert int(row["support"]) == label.count(names[k]) <= int(row["listed"])
        wrong = np.delete(expected_KK[k], k)
        assert int(row["num_confused"] or 0) == wrong.max()
        assert not row["confused_with"] or expected_KK[k, names.index(row["confused_with"])] == wrong.max()
    assert sum(int(row["listed"]) for row in classes) == NUM_TEST_VIDEOS


def test_videos_that_cannot_be_decoded_are_named_with_the_reason(tested, damaged):
    failures = pq.read_table(tested[0] / "result" / "failures.parquet").to_pylist()
    assert {row["video_id"] for row in failures} == set(damaged.video_ids)
    assert all(row["reason"] for row in failures)
    assert f"2 of {NUM_TEST_VIDEOS} videos cannot be read or decoded, such as {damaged.video_ids[0]}: " in tested[1]


def test_all_that_was_found_is_in_mlflow(tested):
    client, (run,) = runs_of(tested[0])
    metrics, _ = read_results(tested[0] / "result")
    assert run.info.status == "FINISHED"
    assert run.data.metrics == pytest.approx(metrics)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        *("metrics.json", "scores.parquet", "classes.csv", "confusion_matrix.csv", "confusion_matrix.png"),
        *("failures.parquet", "recipe.yaml"),
    }


def test_a_matrix_that_cannot_be_drawn_is_left_out(
    synthetic_shards, weights, tmp_path, without_ray, monkeypatch, caplog
):
    monkeypatch.setattr("pipelines.evaluate.report.plot_confusion", lambda *_, **__: 1 / 0)
    picture = tmp_path / "result" / "confusion_matrix.png"
    picture.parent.mkdir()
    picture.write_bytes(b"of an earlier test")
    summary = run_evaluate(evaluate_config(synthetic_shards, tmp_path, weights))
    assert "confusion_matrix.png is not drawn" in caplog.text
    assert picture.name not in summary
    assert not picture.exists()
    client, (run,) = runs_of(tmp_path)
    assert run.info.status == "FINISHED"
    assert "metrics.json" in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_views_of_segments_in_several_crops_are_tested(synthetic_shards, segment_weights, tmp_path, without_ray):
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "failures.parquet").write_text("of an earlier test")
    run_evaluate(evaluate_config(synthetic_shards, tmp_path, segment_weights, num_crops=3))
    metrics, table = read_results(tmp_path / "result")
    assert metrics["num_views"] == 3 * NUM_TEST_VIDEOS
    assert metrics["num_clips"] == 2 * NUM_TEST_VIDEOS
    assert table.column("num_views").to_pylist() == [3] * NUM_TEST_VIDEOS
    plan = plan_of(synthetic_shards, segment_weights, num_crops=3)
    mean_K = scores_of(plan, segment_weights)["score_BK"][:3].mean(axis=0)
    np.testing.assert_allclose(table.column("scores")[0].as_py(), mean_K, atol=1e-5)
    assert not (tmp_path / "result" / "failures.parquet").exists()


def test_a_lost_shard_lowers_the_coverage_and_is_told(synthetic_shards, weights, tmp_path, without_ray):
    shards = tmp_path / "shards"
    shutil.copytree(synthetic_shards, shards)
    index = load_index([shards], fold=1, splits=["test"])
    lost = index.shard_N[0]
    Path(index.shard_paths[lost]).unlink()
    num_lost = int((index.shard_N == lost).sum())
    summary = run_evaluate(evaluate_config(shards, tmp_path, weights))
    metrics, _ = read_results(tmp_path / "result")
    assert (metrics["num_lost"], metrics["num_videos"]) == (num_lost, NUM_TEST_VIDEOS - num_lost)
    assert metrics["coverage"] == 1 - num_lost / NUM_TEST_VIDEOS
    assert f"LEFT OUT: {num_lost} rows of 1 shards" in summary


@pytest.fixture(scope="module")
def fold_weights(two_folds, tmp_path_factory):
    """A run folder for each fold, as training leaves them; the second network has forgotten its head."""
    root = tmp_path_factory.mktemp("runs")
    for fold in (1, 2):
        (root / f"mine-fold{fold}").mkdir()
        save_network(two_folds, root / f"mine-fold{fold}" / "model.safetensors", CLIP)
    net, card = load_model(root / "mine-fold2" / "model.safetensors")
    torch.nn.init.normal_(net.classifier.weight)
    save_weights(net, root / "mine-fold2" / "model.safetensors", card=card)
    return root / "mine-fold{fold}"


def test_each_fold_is_tested_with_its_network_on_its_videos(two_folds, fold_weights, tmp_path, without_ray, capsys):
    summary = run_evaluate(evaluate_config(two_folds, tmp_path, fold_weights, folds=(1, 2)))
    found = {fold: read_results(tmp_path / "result" / f"fold{fold}") for fold in (1, 2)}
    for fold, (metrics, table) in found.items():
        index = load_index([two_folds], fold=fold, splits=["test"])
        assert table.column("video_id").to_pylist() == index.video_id_N.tolist()
        assert metrics["coverage"] == 1.0
    top1 = [metrics["video_top1"] for metrics, _ in found.values()]
    assert top1[0] != top1[1]
    averaged = json.loads((tmp_path / "result" / "metrics.json").read_text())
    assert averaged["folds"] == [1, 2]
    assert averaged["mean"]["video_top1"] == pytest.approx(np.mean(top1))
    assert averaged["std"]["video_top1"] == pytest.approx(np.std(top1, ddof=1))
    assert f"mean of 2 folds: video_top1 {np.mean(top1):.3f} +- {np.std(top1, ddof=1):.3f}" in summary
    of_fold = capsys.readouterr().out.partition("fold 2\n")[2]
    assert f"{2 * len(found[2][1])} views; t3d, 16 frames of 32 px at stride 1" in of_fold
    _, (parent, *children) = runs_of(tmp_path)
    assert parent.data.metrics["video_top1"] == pytest.approx(np.mean(top1))
    assert [run.data.tags["mlflow.parentRunId"] for run in children] == [parent.info.run_id] * 2
    assert [run.data.metrics["video_top1"] for run in children] == pytest.approx(top1)
    assert [run.data.params["data.fold"] for run in children] == ["1", "2"]
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}


def test_a_fold_without_weights_is_refused_before_any_is_tested(two_folds, fold_weights, tmp_path):
    with pytest.raises(ValueError, match=r"mine-fold3 does not exist"):
        run_evaluate(evaluate_config(two_folds, tmp_path, fold_weights, folds=(1, 3)))
    assert not (tmp_path / "result").exists()
    assert mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_experiment_by_name("t3d") is None


def test_an_interrupted_fold_is_killed_in_mlflow_and_so_is_the_whole(two_folds, fold_weights, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.evaluate.job.score_videos", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_evaluate(evaluate_config(two_folds, tmp_path, fold_weights, folds=(1, 2)))
    assert [run.info.status for run in runs_of(tmp_path)[1]] == ["KILLED", "KILLED"]


def interrupt(*_):
    raise KeyboardInterrupt


def test_mirrored_crops_are_refused_for_weights_whose_mirrored_clips_had_the_label_of_another_class(
    synthetic_shards, weights, tmp_path, without_ray
):
    net, card = load_model(weights)
    one, other = card.class_names[:2]
    sided = tmp_path / "model.safetensors"
    save_weights(net, sided, card=replace(card, mirrored_classes=((one, other),)))
    message = rf"num_crops 10 .* to see '{other}' in a mirrored '{one}' .*: give --num_crops 1 or 3"
    with pytest.raises(UserError, match=message):
        run_evaluate(evaluate_config(synthetic_shards, tmp_path, sided, num_crops=10))
    run_evaluate(evaluate_config(synthetic_shards, tmp_path, sided, num_crops=3))


def test_workers_that_leave_no_cpu_for_decoding_are_refused(synthetic_shards, weights, tmp_path):
    with pytest.raises(
        ValueError, match=r"3 workers with 0.4 CPU each and 1 CPU .* make 2.2 CPU, but the cluster has 2"
    ):
        run_evaluate(evaluate_config(synthetic_shards, tmp_path, weights, num_workers=3, cpus_per_worker=0.4))


def test_a_test_of_which_no_video_can_be_decoded_fails_and_names_one(synthetic_shards, weights, tmp_path, monkeypatch):
    def fail_all(plan, loaded, label_V, config):
        return Scored(VideoScores(label_V, len(loaded.card.class_names)), {row: "torn" for row in range(len(label_V))})

    monkeypatch.setattr("pipelines.evaluate.job.score_videos", fail_all)
    earlier = tmp_path / "result" / "metrics.json"
    earlier.parent.mkdir()
    earlier.write_text("{}")
    with pytest.raises(ValueError, match=r"no video can be tested: 10 of 10 videos cannot be .* such as \S+: torn"):
        run_evaluate(evaluate_config(synthetic_shards, tmp_path, weights))
    assert len(pq.read_table(tmp_path / "result" / "failures.parquet")) == NUM_TEST_VIDEOS
    assert not earlier.exists(), "scores of another test beside what failed in this one"
    assert [run.info.status for run in runs_of(tmp_path)[1]] == ["FAILED"]


def test_a_refusal_at_a_later_batch_keeps_its_words(synthetic_shards, weights, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.evaluate.scoring.Scorer", RefusesTheSecond)
    with pytest.raises(UserError, match=r"^the second batch is refused$"):
        run_evaluate(evaluate_config(synthetic_shards, tmp_path, weights))


class RefusesTheSecond(Scorer):
    """Scores one batch, then finds fault with the next."""

    def score(self, batch):
        if hasattr(self, "has_scored"):
            self._scorer._scorer.score = refuse_clips
        self.has_scored = True
        return super().score(batch)


def refuse_clips(clip_BSTHWC):
    raise UserError("the second batch is refused")
