"""Workers of Ray give the results that one process gives, to the last bit."""

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from ray.exceptions import RayTaskError, WorkerCrashedError

from pipelines.clips.stream import as_row, from_row
from pipelines.networks.config import ScoringComputeConfig
from pipelines.predict import distributed, file_tasks, parts
from pipelines.predict.config import PredictConfig
from pipelines.predict.distributed import ModelWorkers, PartScorer
from pipelines.predict.job import run_predict
from pipelines.predict.outcome import VideoOutcome
from pipelines.predict.parts import PartReader
from pipelines.predict.videos import NamedVideo
from pipelines.prepare.sources import LocalRoot
from pipelines.runtime import pools
from t3d_core.training.checkpoint import load_model, save_weights
from t3d_core.video.clip_reader import WHOLE_VIDEO, ViewSampling
from t3d_core.video.clip_sampling import ClipView
from t3d_core.video.guard import GuardLimits
from tests.pipelines.predict.test_job import predict_config


def lines_of(folder):
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return sorted(map(json.loads, lines), key=lambda row: row["video"])


def test_workers_of_ray_give_what_one_process_gives_and_resume(local_ray, weights, videos, tmp_path, capsys):
    inputs = (videos, tmp_path / "absent.mp4")
    run_predict(predict_config(weights, tmp_path, *inputs, stride_seconds=0.2))
    config = predict_config(
        weights, tmp_path, *inputs, num_workers=1, batch_size=8, stride_seconds=0.2, output=tmp_path / "ray"
    )
    summary = run_predict(config)
    assert len(lines_of(tmp_path / "ray")) == 5
    assert lines_of(tmp_path / "ray") == lines_of(tmp_path / "predicted")
    assert "3 of 5 videos" in summary
    assert "on Ray: 1 model worker" in capsys.readouterr().out

    ledger = tmp_path / "ray" / "predictions.jsonl"
    kept = [line for line in ledger.read_text().splitlines() if "/1.mp4" not in line]
    ledger.write_text("\n".join(kept) + '\n{"video": "killed while it wro')
    shutil.copy(videos / "0.mp4", videos / "broken.mp4")
    summary = run_predict(config.model_copy(update={"timeline": True}))
    rows = {row["video"].rpartition("/")[2]: row for row in lines_of(tmp_path / "ray")}
    assert [rows[name]["status"] for name in sorted(rows)] == ["ok"] * 3 + ["failed", "ok"]
    assert rows["broken.mp4"]["scores"] == rows["0.mp4"]["scores"]
    assert ledger.read_text().count("/0.mp4") == 1  # its timeline is made of the scores that there are
    assert len(list((tmp_path / "ray" / "videos").glob("*/timeline.csv"))) == 4
    assert "4 of 5 videos" in summary


@pytest.mark.heavy
def test_files_and_features_made_on_ray_are_those_of_one_process(local_ray, weights, videos, tmp_path):
    wanted = {"annotate": True, "explain": True, "features": "clip"}
    run_predict(predict_config(weights, tmp_path, videos / "0.mp4", **wanted))
    run_predict(predict_config(weights, tmp_path, videos / "0.mp4", num_workers=1, output=tmp_path / "ray", **wanted))
    here, on_ray = (pq.read_table(tmp_path / name / "features.parquet") for name in ("predicted", "ray"))
    assert on_ray.equals(here)
    assert len(on_ray) == 2
    names = {"annotated.mp4", "explanation.png", "explanation.mp4"}
    made = {path.relative_to(tmp_path / "ray"): path for path in (tmp_path / "ray" / "videos").glob("*/*")}
    assert {path.name for path in made} == names
    for name, path in made.items():
        difference = pixels(path) - pixels(tmp_path / "predicted" / name)
        # The last bits of a gradient depend on the process, and those of a video on the threads of its encoder.
        assert np.abs(difference).mean() < 0.1, name


def pixels(path):
    """A picture, or all frames of a video."""
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"), np.float32)
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(np.float32)


def test_a_video_in_several_parts_gets_the_scores_of_the_whole(local_ray, weights, videos, tmp_path, monkeypatch):
    run_predict(predict_config(weights, tmp_path, videos / "0.mp4", stride_seconds=0.1))
    monkeypatch.setattr(parts, "_MIN_PART_BYTES", 1000)
    monkeypatch.setattr(parts, "_MIN_TASK_BYTES", 0)
    monkeypatch.setattr(parts, "_OPENING_BYTES", 0)
    cut, tasks = parts.cut_into_parts, []
    monkeypatch.setattr(
        distributed, "cut_into_parts", lambda *given, **named: tasks.extend(cut(*given, **named)) or tasks
    )
    run_predict(
        predict_config(weights, tmp_path, videos / "0.mp4", stride_seconds=0.1, num_workers=1, output=tmp_path / "ray")
    )
    assert len(tasks) > 2
    assert lines_of(tmp_path / "ray") == lines_of(tmp_path / "predicted")


def part_scorer(weights, **changes):
    settings = {"compute": ScoringComputeConfig(), "batch_size": 2, "num_threads": 1, "use_gpu": False}
    return PartScorer(load_model(weights), **settings | {"with_features": False} | changes)


def first_row(videos, name):
    sampling = ViewSampling(ClipView(16, 1, crop_size=32, short_side=36, short_video="loop"))
    reader = PartReader(sampling, batch_size=2, limits=GuardLimits(), max_source_bytes=1 << 30)
    return as_row(next(reader.batches([(0, NamedVideo(name, LocalRoot(videos), name), WHOLE_VIDEO)])))


@pytest.mark.heavy
def test_a_model_worker_gives_scores_and_features_without_pixels(weights, videos):
    batch = from_row(part_scorer(weights, with_features=True)(first_row(videos, "0.mp4")))
    assert "clip_BSTHWC" not in batch
    assert batch["score_BK"].sum(axis=1) == pytest.approx([1, 1])
    assert len(batch["feature_BD"]) == 2
    assert "feature_BD" not in part_scorer(weights)(first_row(videos, "0.mp4"))
    assert "score_BK" not in part_scorer(weights)(first_row(videos, "broken.mp4"))  # it ends parts alone


@pytest.mark.heavy
def test_scores_that_are_no_numbers_are_refused(weights, videos, tmp_path):
    net, card = load_model(weights)
    torch.nn.init.constant_(net.classifier.weight, float("nan"))
    save_weights(net, tmp_path / "nan.safetensors", card=card)
    batch = from_row(part_scorer(tmp_path / "nan.safetensors")(first_row(videos, "0.mp4")))
    assert "not finite" in batch["refusal_1"][0]


def nodes(*cpus, pool=None, gpus=0):
    labels = {pools.LABEL: pool} if pool else {}
    return [{"Alive": True, "Labels": labels, "Resources": {"CPU": each, "GPU": gpus}} for each in cpus]


@pytest.mark.parametrize(
    ("cluster", "threads", "changes", "expected"),
    [
        (nodes(2.0), 2, {}, (1, 2, 1.0, 0)),
        (nodes(16.0, 16.0, 16.0, 16.0), 16, {}, (4, 16, 8.0, 0)),
        (nodes(16.0, 16.0, 16.0, 16.0), 16, {"num_workers": 8}, (8, 8, 4.0, 0)),
        (nodes(64.0, pool="train"), 16, {}, (4, 16, 16, 0)),
        (nodes(24.0, 24.0, pool="train"), 16, {}, (2, 16, 16, 0)),  # not three: each lies on one node
        (nodes(4.0, pool="decode"), 16, {}, (1, 16, 16, 0)),  # the nodes that train are still to come
        (nodes(4.0, pool="decode"), 16, {"num_workers": 8}, (8, 16, 16, 0)),
        (nodes(64.0, gpus=4), 16, {}, (4, 1, 1.0, 1)),
        (nodes(64.0, gpus=4), 16, {"use_gpu": False}, (4, 16, 8.0, 0)),
        (nodes(64.0), 16, {"use_gpu": True}, (1, 1, 1.0, 1)),  # refused later: no GPU
    ],
)
def test_workers_are_as_many_as_the_cluster_has_room_for(monkeypatch, cluster, threads, changes, expected):
    monkeypatch.setattr("pipelines.runtime.pools.ray.nodes", lambda: cluster)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert distributed.choose_workers(PredictConfig(**changes)) == ModelWorkers(*expected)


class StubRay:
    """Runs a task when its result is asked for; a machine is lost with that of one video."""

    put = staticmethod(lambda value: value)
    wait = staticmethod(lambda tasks: (tasks[:1], tasks[1:]))

    def __init__(self, error):
        self.error = error

    def remote(self, function):
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *given: partial(function, *given)))

    def get(self, task):
        if task.args[1].name == "lost":
            raise self.error
        return task()


def files_of(names, error, monkeypatch):
    monkeypatch.setattr(file_tasks, "ray", StubRay(error))
    monkeypatch.setattr(pools, "cpus", lambda _: 1)
    monkeypatch.setattr(pools, "selector", lambda _: {})
    monkeypatch.setattr(file_tasks, "_make_files", lambda _, video, scores, __: VideoOutcome((video.name, scores)))
    ledger = SimpleNamespace(folder=Path("out"), prediction_of=lambda name: f"scores of {name}")
    videos = [NamedVideo(name, None, name) for name in names]
    return list(file_tasks.make_files_on_ray(videos, None, None, ledger, PredictConfig()))


def test_a_task_whose_process_dies_leaves_one_video_without_files(monkeypatch):
    first, lost, *others = files_of(["a", "lost", "b", "c"], WorkerCrashedError(), monkeypatch)
    assert (lost.result.video, lost.result.prediction) == ("lost", "scores of lost")
    assert "worker died" in lost.fault
    assert [made.result for made in (first, *others)] == [(name, f"scores of {name}") for name in "abc"]


def test_a_mistake_of_a_task_stops_the_job(monkeypatch):
    with pytest.raises(RayTaskError):
        files_of(["lost"], RayTaskError("_make_files", "traceback", KeyError()), monkeypatch)
