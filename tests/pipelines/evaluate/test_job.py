"""Small networks and synthetic shards: what is scored, what is counted, what is written; a few cases on Ray."""

import csv
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ray.data._internal.logical.optimizers import get_execution_plan
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from pipelines.clips.config import ClipConfig
from pipelines.clips.loader import BatchLoader
from pipelines.clips.stream import as_row
from pipelines.clips.views import ViewPlan
from pipelines.evaluate.config import EvaluateComputeConfig, EvaluateConfig, EvaluateDataConfig
from pipelines.evaluate.job import run_evaluate
from pipelines.evaluate.scoring import Scored, Scorer, _refuse, _scored_by_actors
from pipelines.networks.config import T3DConfig
from pipelines.networks.weights import card_of, view_of
from pipelines.shards.index import load_index
from pipelines.tracking.config import TrackingConfig
from t3d_core.evaluation.video_scores import VideoScores
from t3d_core.models import build_model
from t3d_core.training.checkpoint import load_model, save_weights
from t3d_core.video.cropping import view_crops
from t3d_core.video.decoding import decode_frames
from t3d_core.video.sizes import resized_size
from t3d_core.video.transforms import normalize_clip
from tests.pipelines.damage import changed_videos

MODEL = T3DConfig(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=24, bn_size=2)
CLIP = ClipConfig(num_frames=16, frame_stride=1, crop_size=32)  # two clips in the 40 frames of a synthetic video
NUM_TEST_VIDEOS = 10


@pytest.fixture(scope="module")
def weights(synthetic_shards, tmp_path_factory):
    """A network that knows some classes: random features, and a head that looks for the nearest mean of each class."""
    return save_network(synthetic_shards, tmp_path_factory.mktemp("weights") / "model.safetensors", CLIP)


def save_network(shards, path, clip):
    index = load_index([shards], fold=1, splits=["train"])
    card = card_of(MODEL, clip, class_names=index.class_names)
    torch.manual_seed(0)
    net = build_model(card.model_kind, num_classes=len(card.class_names), **card.model_arguments).eval()
    batch = BatchLoader(index, view_of(card_of(MODEL, CLIP, class_names=()))).center_batch(np.arange(len(index)))
    with torch.no_grad():
        feature_BD = net.forward_features(network_input(batch["clip_BTHWC"], card))
        scale_D = feature_BD.std(dim=0) + 1e-6
        mean_KD = torch.stack([feature_BD[batch["label_B"] == k].mean(dim=0) for k in range(len(card.class_names))])
        net.classifier.weight[:] = mean_KD / scale_D**2
        net.classifier.bias[:] = -(mean_KD / scale_D).square().sum(dim=1) / 2
    save_weights(net, path, card=card)
    return path


def network_input(clip_BTHWC, card):
    return normalize_clip(torch.from_numpy(np.ascontiguousarray(clip_BTHWC)), mean=card.mean, std=card.std)


def evaluate_config(shards, tmp_path, checkpoint, **changes):
    settings = {
        "checkpoint": str(checkpoint),
        "data": EvaluateDataConfig(shards=(shards,)),
        "output": tmp_path / "result",
        "tracking": TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"),
        "storage": tmp_path / "runs",
        "batch_size": 3,
        "cpus_per_worker": 0.3,
    }
    return EvaluateConfig(**settings | changes)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """MLflow takes seconds to make the tables of a new store."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(autouse=True)
def store(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path)


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
        return Here(plan, Scorer(loaded, compute=config.compute, use_gpu=config.use_gpu), config.batch_size)

    monkeypatch.setattr("pipelines.evaluate.scoring._scored_by_actors", batches)


def plan_of(shards, weights, **changes):
    index = load_index([shards], fold=1, splits=["test"])
    return ViewPlan(BatchLoader(index, view_of(load_model(weights).card)), **changes)


def runs_of(tmp_path):
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("t3d")
    return client, client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])


def read_results(output):
    metrics = json.loads((output / "metrics.json").read_text())
    return metrics, pq.read_table(output / "scores.parquet")


# ---- views


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


# ---- scores


def scores_of(plan, weights, **compute):
    """What an actor gives for the first views, in this process."""
    scorer = Scorer(load_model(weights), compute=EvaluateComputeConfig(**compute), use_gpu=False)
    return scorer.score(plan.batch(range(5)))


def test_a_score_is_the_softmax_of_the_network(synthetic_shards, weights):
    plan = plan_of(synthetic_shards, weights, num_crops=3)
    scored = scores_of(plan, weights)
    net, card = load_model(weights)
    with torch.no_grad():
        logits_BK = net(network_input(plan.batch(range(5))["clip_BSTHWC"][:, 0], card))
    np.testing.assert_allclose(scored["score_BK"], logits_BK.softmax(dim=1), atol=1e-4)
    assert scored["row_B"].tolist() == [0] * 5
    assert not any(scored["refusal_B"])


def test_segments_are_scored_by_the_mean_of_their_features(synthetic_shards, segment_weights):
    plan = plan_of(synthetic_shards, segment_weights)
    scored = scores_of(plan, segment_weights)
    net, card = load_model(segment_weights)
    with torch.no_grad():
        feature_BSD = torch.stack(
            [net.forward_features(network_input(view, card)) for view in plan.batch(range(5))["clip_BSTHWC"]]
        )
        score_BK = net.classifier(feature_BSD.mean(dim=1)).softmax(dim=1)
    np.testing.assert_allclose(scored["score_BK"], score_BK, atol=1e-4)


def test_switches_of_testing_change_no_score_but_by_rounding(synthetic_shards, weights):
    plan = plan_of(synthetic_shards, weights)
    plain = scores_of(plan, weights, fold_batch_norm=False, channels_last=False)["score_BK"]
    assert 0 < np.abs(scores_of(plan, weights)["score_BK"] - plain).max() < 1e-4
    assert 1e-4 < np.abs(scores_of(plan, weights, precision="bf16")["score_BK"] - plain).max() < 0.2


def test_a_view_without_pixels_gets_no_score_and_leaves_the_others_alone(damaged, weights):
    plan = plan_of(damaged.shards, weights)
    batch = plan.batch(range(plan.num_views))
    is_damaged_B = np.isin(plan.loader.index.video_id_N[batch["row_B"]], damaged.video_ids)
    assert is_damaged_B.sum() == 4
    assert np.array_equal(batch["reason_B"] != "", is_damaged_B)
    scorer = Scorer(load_model(weights), compute=EvaluateComputeConfig(), use_gpu=False)
    score_BK = scorer.score(batch)["score_BK"]
    assert np.isnan(score_BK[is_damaged_B]).all()
    alone = scorer.score({name: column[~is_damaged_B] for name, column in batch.items()})["score_BK"]
    assert np.array_equal(score_BK[~is_damaged_B], alone)


# ---- a whole test, with one damaged video of each kind


class Damaged(NamedTuple):
    shards: Path
    video_ids: tuple[str, str]


@pytest.fixture(scope="module")
def damaged(synthetic_shards, tmp_path_factory):
    """The synthetic shards; the frames of one test video are noise, the page of another has lost its header."""
    shards = tmp_path_factory.mktemp("damaged") / "shards"
    shutil.copytree(synthetic_shards, shards)
    index = load_index([shards], fold=1, splits=["test"])
    noise, lost = 2, NUM_TEST_VIDEOS - 1
    assert index.shard_N[noise] != index.shard_N[lost]
    replace_frames(Path(index.shard_paths[index.shard_N[noise]]), int(index.row_N[noise]), b"noise" * 99)
    path, row = Path(index.shard_paths[index.shard_N[lost]]), int(index.row_N[lost])
    group = pq.ParquetFile(path).metadata.row_group(row)
    [column] = [group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "frames"]
    content = bytearray(path.read_bytes())
    content[column.data_page_offset : column.data_page_offset + 64] = b"\xff" * 64
    path.write_bytes(content)
    return Damaged(shards, (index.video_id_N[noise], index.video_id_N[lost]))


def replace_frames(shard, row, frames):
    """Write a shard anew with other frames in one row, as if it had been made so."""
    table = pq.read_table(shard)
    place = table.schema.get_field_index("frames")
    column = [frames if number == row else old for number, old in enumerate(table.column(place).to_pylist())]
    table = table.set_column(place, "frames", pa.array(column, pa.large_binary()))
    pq.write_table(table, shard, row_group_size=1)
    with changed_videos(shard.parents[1]) as videos:
        for video in videos:
            if video["shard"] == shard.name:
                video["shard_bytes"] = shard.stat().st_size


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


def test_actors_score_and_do_not_decode(synthetic_shards, weights, tmp_path):
    """Else each network would wait for its own decoding, and free CPUs would do nothing."""
    plan = plan_of(synthetic_shards, weights)
    config = evaluate_config(synthetic_shards, tmp_path, weights, cpus_per_worker=1.0)
    physical = get_execution_plan(_scored_by_actors(plan, load_model(weights), config)._logical_plan)[0]
    assert physical.dag.name == "MapBatches(Scorer)"
    assert physical.dag.input_dependencies[0].name == "ReadRange->MapBatches(load_some)"


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
    assert f"2 of {NUM_TEST_VIDEOS} videos cannot be read or decoded, as {damaged.video_ids[0]}: " in tested[1]


def test_all_that_was_found_is_in_mlflow(tested):
    client, (run,) = runs_of(tested[0])
    metrics, _ = read_results(tested[0] / "result")
    assert run.info.status == "FINISHED"
    assert run.data.metrics == pytest.approx(metrics)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        *("metrics.json", "scores.parquet", "classes.csv", "confusion_matrix.csv", "confusion_matrix.png"),
        *("failures.parquet", "recipe.yaml"),
    }


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


# ---- folds


@pytest.fixture(scope="module")
def two_folds(synthetic_shards, tmp_path_factory):
    """The synthetic shards with a second fold, whose test videos are those that validate in the first."""
    shards = tmp_path_factory.mktemp("folds") / "shards"
    shutil.copytree(synthetic_shards, shards)
    second = {"train": "train", "val": "test", "test": "val"}
    with changed_videos(shards) as videos:
        for video in videos:
            video["splits"] = [video["splits"][0], second[video["splits"][0]]]
    description = json.loads((shards / "dataset.json").read_text())
    (shards / "dataset.json").write_text(json.dumps(description | {"num_folds": 2}))
    return shards


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
    assert f"fold 2: t3d, 16 frames of 32 px at stride 1: {2 * len(found[2][1])} views" in capsys.readouterr().out
    _, (parent, *children) = runs_of(tmp_path)
    assert parent.data.metrics["video_top1"] == pytest.approx(np.mean(top1))
    assert [run.data.tags["mlflow.parentRunId"] for run in children] == [parent.info.run_id] * 2
    assert [run.data.metrics["video_top1"] for run in children] == pytest.approx(top1)
    assert [run.data.params["data.fold"] for run in children] == ["1", "2"]
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}


def test_folds_and_their_weights_must_fit_together(two_folds, tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint runs/mine is the same for all: write \{fold\} where"):
        evaluate_config(two_folds, tmp_path, "runs/mine", folds=(1, 2))
    with pytest.raises(
        ValueError, match=r"checkpoint runs/a\{fold\} is one for each fold: say which, as --folds 1 2 3"
    ):
        evaluate_config(two_folds, tmp_path, "runs/a{fold}")
    with pytest.raises(ValueError, match=r"folds \[1, 2, 1\] names one twice"):
        evaluate_config(two_folds, tmp_path, "runs/a{fold}", folds=(1, 2, 1))


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


# ---- what is refused


@pytest.fixture(scope="module")
def segment_weights(synthetic_shards, tmp_path_factory):
    """As `weights`, from the features of two segments."""
    clip = CLIP.model_copy(update={"num_segments": 2})
    return save_network(synthetic_shards, tmp_path_factory.mktemp("segments") / "model.safetensors", clip)


def test_a_number_of_clips_is_no_setting_of_a_network_of_segments(synthetic_shards, segment_weights, tmp_path):
    with pytest.raises(ValueError, match=r"num_clips 5 is for networks that score clip by clip.* takes 2 clips"):
        run_evaluate(evaluate_config(synthetic_shards, tmp_path, segment_weights, num_clips=5))


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
    with pytest.raises(ValueError, match=r"no video can be tested: 10 of 10 videos cannot be .* as \S+: torn"):
        run_evaluate(evaluate_config(synthetic_shards, tmp_path, weights))
    assert len(pq.read_table(tmp_path / "result" / "failures.parquet")) == NUM_TEST_VIDEOS
    assert not earlier.exists(), "scores of another test beside what failed in this one"
    assert [run.info.status for run in runs_of(tmp_path)[1]] == ["FAILED"]


@pytest.fixture
def broken(weights, tmp_path):
    """A network whose weights have gone to NaN."""
    net, card = load_model(weights)
    torch.nn.init.constant_(net.features.conv0.weight, float("nan"))
    save_weights(net, tmp_path / "broken.safetensors", card=card)
    return tmp_path / "broken.safetensors"


def test_forms_that_do_not_fit_the_network_are_refused(synthetic_shards, weights, tmp_path):
    forms = EvaluateComputeConfig(transition_forms=("pooled",))
    with pytest.raises(ValueError, match=r"1 entries, but this net has 3 transitions"):
        run_evaluate(evaluate_config(synthetic_shards, tmp_path, weights, compute=forms))


def test_scores_that_are_no_numbers_are_refused_and_debugging_says_where(synthetic_shards, broken):
    plan = plan_of(synthetic_shards, broken)
    with pytest.raises(ValueError, match="scores that are not finite"):
        _refuse(scores_of(plan, broken))
    with pytest.raises(ValueError, match="the features of a batch hold values that are not finite"):
        _refuse(scores_of(plan, broken, debug=True))
    with pytest.raises(ValueError, match="the network gives features that are not finite for a random clip"):
        _refuse(scores_of(plan, broken, precision="bf16"))


def test_a_refusal_at_a_later_batch_keeps_its_words(synthetic_shards, weights, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.evaluate.scoring.Scorer", RefusesTheSecond)
    with pytest.raises(ValueError, match=r"^the second batch is refused$"):
        run_evaluate(evaluate_config(synthetic_shards, tmp_path, weights))


class RefusesTheSecond(Scorer):
    """Scores one batch, then finds fault with the next."""

    def _score(self, clip_BSTHWC):
        if hasattr(self, "has_scored"):
            raise ValueError("the second batch is refused")
        self.has_scored = True
        return super()._score(clip_BSTHWC)
