import json
import os
import shutil

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.configs import FolderDatasetConfig, PrepareConfig
from pipelines.prepare import prepare
from pipelines.recipe import JobError
from pipelines.shards import load_index
from t3d_core.video.decoding import decode_frames, probe
from t3d_core.video.storage import encode_video


def write_video(path, *, num_frames=30, fps=10.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    encode_video((np.full((36, 48, 3), 5 * i % 256, np.uint8) for i in range(num_frames)), path=path, fps=fps)


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.fixture
def mixed_folder(tmp_path):
    """Six good videos of two classes, and every kind of bad file."""
    root = tmp_path / "videos"
    for name in ("a", "b", "c"):
        for label in ("left", "right"):
            write_video(root / label / f"{name}.mp4")
    (root / "left" / "empty.mp4").touch()
    (root / "left" / "garbage.mp4").write_bytes(os.urandom(5000))
    whole = (root / "left" / "a.mp4").read_bytes()
    (root / "right" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    write_sound(root / "right" / "sound.mp4")
    return root


def config(root, **settings):
    return PrepareConfig(dataset=FolderDatasetConfig(root=root), videos_per_shard=4, **settings)


def test_bad_files_become_rows_with_reasons_and_the_rest_is_prepared(local_ray, mixed_folder, tmp_path):
    output = tmp_path / "out"
    counts = prepare(config(mixed_folder, max_failed_fraction=0.5), output)
    failures = pq.read_table(output / "failures.parquet").to_pylist()
    assert {os.path.basename(row["path"]) for row in failures} == {"empty.mp4", "garbage.mp4", "cut.mp4", "sound.mp4"}
    assert all(row["reason"] and row["video_id"] for row in failures)
    assert counts == (10, 4, 6)
    videos = pq.read_table(output / "videos.parquet").to_pylist()
    assert len(videos) == 10
    assert sum(row["is_prepared"] for row in videos) == 6


def test_too_many_failures_are_an_error_after_everything_was_written(local_ray, mixed_folder, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(JobError, match=r"4 of 10 videos failed, more than max_failed_fraction 0\.1"):
        prepare(config(mixed_folder), output)
    assert len(pq.read_table(output / "failures.parquet")) == 4
    assert len(load_index([output], fold=1, splits=["train", "val", "test"])) == 6


def test_a_labelled_video_is_one_row_with_every_frame_of_its_source(local_ray, tmp_path):
    write_video(tmp_path / "videos" / "left" / "long.mp4", num_frames=250, fps=10.0)
    write_video(tmp_path / "videos" / "right" / "short.mp4", num_frames=30, fps=10.0)
    prepare(config(tmp_path / "videos"), tmp_path / "out")
    index = load_index([tmp_path / "out"], fold=1, splits=["train", "test"])
    assert sorted(index.num_frames_N) == [30, 250]
    brightness = decode_frames(index.frames(int(np.argmin(index.num_frames_N))), range(30)).mean(axis=(1, 2, 3))
    assert np.allclose(brightness, 5 * np.arange(30), atol=3)


def test_an_unlabelled_video_is_cut_into_segments_of_its_source(local_ray, tmp_path):
    write_video(tmp_path / "videos" / "long.mp4", num_frames=250, fps=10.0)
    dataset = FolderDatasetConfig(root=tmp_path / "videos", is_labelled=False)
    prepare(PrepareConfig(dataset=dataset), tmp_path / "out")
    index = load_index([tmp_path / "out"], fold=1, splits=["train"])
    assert index.num_frames_N.sum() == 250
    assert index.num_frames_N.max() <= 100
    assert len(set(index.source_N)) == 1


def test_preparing_again_makes_only_what_is_missing_and_the_same_rows(local_ray, synthetic_config, tmp_path):
    output = tmp_path / "out"
    prepare(synthetic_config, output)
    shards = sorted((output / "shards").iterdir())
    before = {path: pq.read_table(path) for path in shards}
    times = {path: path.stat().st_mtime_ns for path in shards}
    shards[1].unlink()
    prepare(synthetic_config, output)
    assert shards[1].stat().st_mtime_ns != times.pop(shards[1])
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert all(pq.read_table(path).equals(table) for path, table in before.items())


def test_shards_made_with_other_settings_are_refused_with_both_fingerprints(local_ray, synthetic_config, tmp_path):
    prepare(synthetic_config, tmp_path)
    there = json.loads((tmp_path / "dataset.json").read_text())["fingerprint"]
    other = synthetic_config.model_copy(update={"short_side": 32})
    with pytest.raises(ValueError, match=rf"fingerprint {there[:12]}.*changed: short_side"):
        prepare(other, tmp_path)


def test_a_missing_folder_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        prepare(config(tmp_path / "nowhere"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_shard_is_told_with_the_cure(local_ray, synthetic_shards, tmp_path):
    shutil.copytree(synthetic_shards, tmp_path / "copy")
    (tmp_path / "copy" / "shards" / "000002.parquet").unlink()
    with pytest.raises(ValueError, match=r"000002.parquet is missing: run jobs/prepare.py again"):
        load_index([tmp_path / "copy"], fold=1, splits=["train"])


def test_a_fold_that_does_not_exist_is_refused(synthetic_shards):
    with pytest.raises(ValueError, match=r"data.fold 2 does not exist.*folds 1..1"):
        load_index([synthetic_shards], fold=2, splits=["train"])


def test_the_inner_shards_folder_is_taken_too(synthetic_shards):
    whole = load_index([synthetic_shards], fold=1, splits=["train"])
    inner = load_index([synthetic_shards / "shards"], fold=1, splits=["train"])
    assert whole.video_id_N.tolist() == inner.video_id_N.tolist()


def test_real_videos_keep_their_frames_and_their_official_split(weizmann_shards):
    train = load_index([weizmann_shards], fold=1, splits=["train"])
    val = load_index([weizmann_shards], fold=1, splits=["val"])
    assert (len(train), len(val), len(train.class_names)) == (50, 10, 10)
    assert all("lena" in video_id for video_id in val.video_id_N)
    source = pq.read_table(weizmann_shards / "videos.parquet").to_pylist()[0]
    row = np.flatnonzero(np.concatenate([train.video_id_N, val.video_id_N]) == source["video_id"])[0]
    stored = (train if row < 50 else val).num_frames_N[row if row < 50 else row - 50]
    assert stored == probe(source["path"]).num_frames
