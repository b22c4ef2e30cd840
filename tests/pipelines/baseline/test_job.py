"""Baselines on videos where the right answer is known, and what they leave behind."""

import contextlib
import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.baseline import job
from pipelines.baseline.job import run_baseline
from pipelines.shards.index import load_index
from pipelines.train.config import TrainDataConfig
from pipelines.train.stage import rows_to_train_on
from tests.pipelines.evaluate.small_network import replace_frames


def metrics_of(config):
    return json.loads((config.storage / config.name / "test" / "metrics.json").read_text())


@pytest.mark.parametrize(("data", "kind"), [("lengths", "shape_and_length"), ("colours", "teacher")])
def test_what_tells_the_classes_apart_is_found(data, kind, request, config_of):
    config = config_of(request.getfixturevalue(data), kind=kind)
    summary = run_baseline(config)
    assert "video_top1 1.000" in summary
    assert "learned from 11 videos" in summary  # a tenth of the twelve sources is held out, as in training
    metrics = metrics_of(config)
    assert (metrics["video_top1"], metrics["num_videos"], metrics["coverage"]) == (1.0, 4, 1.0)


def test_a_teacher_of_single_frames_does_not_see_how_long_a_video_is(lengths, config_of):
    config = config_of(lengths, target="mean_std")
    run_baseline(config)
    assert metrics_of(config)["video_top1"] <= 0.5


def test_it_is_recorded_as_a_test_and_is_not_made_twice(colours, config_of, tmp_path, monkeypatch):
    config = config_of(colours)
    summary = run_baseline(config, run_name="teacher, seed 0", tags={"point": "teacher"})
    table = pq.read_table(tmp_path / "runs" / "mine" / "test" / "scores.parquet")
    index = load_index([colours], fold=1, splits=["test"])
    assert table.column("video_id").to_pylist() == index.video_id_N.tolist()
    assert table.column("source").to_pylist() == index.source_names[index.source_N].tolist()
    np.testing.assert_allclose(np.stack(table.column("scores").to_numpy()).sum(axis=1), 1, rtol=1e-6)
    monkeypatch.setattr(job, "linear_scores", lambda *_, **__: pytest.fail("it is fitted again"))
    assert run_baseline(config) == summary
    client = mlflow.MlflowClient(config.tracking.uri)
    [run] = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    assert (run.info.run_name, run.info.status) == ("teacher, seed 0", "FINISHED")
    assert {name: run.data.tags[name] for name in ("stage", "point")} == {"stage": "baseline", "point": "teacher"}
    assert (run.data.metrics["video_top1"], run.data.params["data.split"]) == (1.0, "test")
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["videos"]
    assert "scores.parquet" in {file.path for file in client.list_artifacts(run.info.run_id)}
    with pytest.raises(ValueError, match="was made with other settings or shards"):
        run_baseline(config_of(colours, target="mean_std"))


def test_every_seed_gives_the_same_scores(colours, config_of):
    tables = []
    for seed in (0, 7):
        config = config_of(colours, seed=seed, name=f"seed{seed}")
        run_baseline(config)
        tables.append(pq.read_table(config.storage / config.name / "test" / "scores.parquet"))
    assert tables[0].equals(tables[1])


def test_a_video_that_cannot_be_decoded_is_counted_and_not_guessed(colours, config_of, tmp_path):
    shards = shutil.copytree(colours, tmp_path / "copy", ignore=shutil.ignore_patterns("features"))
    for split in ("train", "test"):
        index = load_index([shards], fold=1, splits=[split])
        replace_frames(Path(index.shard_paths[index.shard_N[0]]), int(index.row_N[0]), b"noise" * 99)
    config = config_of(shards)
    summary = run_baseline(config)
    metrics = metrics_of(config)
    assert (metrics["num_videos"], metrics["num_failed"], metrics["coverage"]) == (3, 1, 0.75)
    assert f"such as {index.video_id_N[0]}" in summary
    failures = pq.read_table(tmp_path / "runs" / "mine" / "test" / "failures.parquet")
    assert failures.column("video_id").to_pylist() == [index.video_id_N[0]]


@pytest.mark.parametrize("part", [{"class_share": 0.5, "holdout_seed": 3}, {"num_sources": 5}])
def test_it_learns_from_the_rows_that_training_learns_from(part, colours, config_of, monkeypatch):
    seen = []
    scores = job.linear_scores
    monkeypatch.setattr(job, "linear_scores", lambda *args, **kw: (seen.append(args[1]), scores(*args, **kw))[1])
    data = {"shards": (colours,), **part}
    with contextlib.suppress(ValueError):  # so few sources may be of one class alone
        run_baseline(config_of(colours, data=data))
    index = load_index([colours], fold=1, splits=["train"])
    nothing = index.select(np.zeros(len(index), bool))
    expected, _ = rows_to_train_on(TrainDataConfig(**data), [colours], index, nothing)
    assert seen[0].tolist() == expected.label_N.tolist()
    assert len(seen[0]) == 5


def test_a_split_without_videos_is_refused(colours, config_of):
    with pytest.raises(ValueError, match="no row of split val in fold 1"):
        run_baseline(config_of(colours, data={"shards": (colours,), "split": "val"}))
