"""Videos become shards: what is written, what is refused, what comes after a kill."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.prepare.config import (
    DataConfig,
    FolderDatasetConfig,
    HMDB51DatasetConfig,
    KineticsDatasetConfig,
    PrepareConfig,
    UCF101DatasetConfig,
)
from pipelines.prepare.make import prepare, prepared_shards
from pipelines.shards.folder import describe_shards
from pipelines.shards.index import load_index
from t3d_core.errors import UserError
from t3d_core.video.decoding import decode_frames, probe
from tests.pipelines.damage import cut_off
from tests.pipelines.prepare.made_videos import (
    config,
    killed,
    modification_times,
    prepare_and_count,
    rows_of,
    write_video,
    write_videos,
)

SHARED_DATA = Path(__file__).parents[4] / "shared" / "data"


def test_bad_files_become_rows_with_reasons_and_the_rest_is_prepared(local_ray, mixed_folder, tmp_path):
    output = tmp_path / "out"
    counts = prepare_and_count(config(mixed_folder, max_failed_fraction=0.5), output)
    failures = pq.read_table(output / "failures.parquet").to_pylist()
    assert {os.path.basename(row["path"]) for row in failures} == {"empty.mp4", "garbage.mp4", "cut.mp4", "sound.mp4"}
    assert all(row["reason"] and row["video_id"] for row in failures)
    assert counts == (10, 4, 6)
    videos = pq.read_table(output / "videos.parquet").to_pylist()
    assert len(videos) == 10
    assert sum(row["is_prepared"] for row in videos) == 6


def test_too_many_failures_are_an_error_after_everything_was_written(local_ray, mixed_folder, tmp_path):
    output = tmp_path / "out"
    with pytest.raises(UserError, match=r"4 of 10 videos failed, more than max_failed_fraction 0\.1"):
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


def test_what_was_passed_over_is_printed_when_shards_are_made(local_ray, tmp_path, capsys):
    write_videos(tmp_path / "videos")
    (tmp_path / "videos" / "left" / "notes.txt").touch()
    for _ in range(2):
        prepare(config(tmp_path / "videos"), tmp_path / "out")
    assert capsys.readouterr().out.count("note: other files not looked at: 1 (1 .txt)") == 1


def test_an_unlabelled_video_is_cut_into_segments_of_its_source(local_ray, tmp_path):
    write_video(tmp_path / "videos" / "long.mp4", num_frames=250, fps=10.0)
    dataset = FolderDatasetConfig(root=str(tmp_path / "videos"), is_labelled=False)
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


def test_a_lost_shard_that_was_made_again_before_a_kill_is_not_taken_for_a_damaged_one(
    local_ray, half_there, tmp_path, monkeypatch
):
    """Its file may be of another length now, as from another version of FFmpeg."""
    output = tmp_path / "out"
    prepare(half_there, output)
    before = rows_of(load_index([output], fold=1, splits=["train", "test"]))
    shard = output / "shards" / "000001.parquet"
    shard.unlink()
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.prepare.make.write_tables", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(half_there, output)
    assert shard.is_file()
    with pytest.raises(ValueError, match=r"is not finished: run jobs/prepare.py again"):
        load_index([output], fold=1, splits=["train", "test"])
    prepare(half_there, output)
    assert rows_of(load_index([output], fold=1, splits=["train", "test"])) == before


@pytest.mark.parametrize("harm", ["damage", "other version"])
def test_a_report_that_cannot_be_read_is_refused_with_the_cure(local_ray, half_there, tmp_path, harm):
    output = tmp_path / "out"
    counts = prepare_and_count(half_there, output)
    before = rows_of(load_index([output], fold=1, splits=["train", "test"]))
    report = output / "reports" / "000001.parquet"
    if harm == "damage":
        cut_off(report)
    else:
        pq.write_table(pq.read_table(report).drop_columns("rows"), report)
    with pytest.raises(
        ValueError, match=r"000001.parquet cannot be read \(.*\): run jobs/prepare.py again after deleting"
    ):
        prepare(half_there, output)
    report.unlink()
    assert prepare_and_count(half_there, output) == counts
    assert rows_of(load_index([output], fold=1, splits=["train", "test"])) == before


def test_videos_that_moved_are_the_same_data_set(local_ray, tmp_path):
    write_videos(tmp_path / "old" / "videos")
    prepare(config(tmp_path / "old" / "videos"), tmp_path / "out")
    before = modification_times(tmp_path / "out" / "shards")
    (tmp_path / "old").rename(tmp_path / "new")
    prepare(config(tmp_path / "new" / "videos"), tmp_path / "out")
    assert modification_times(tmp_path / "out" / "shards") == before
    records = pq.read_table(tmp_path / "out" / "records.parquet").to_pylist()
    assert {row["path"].split(b"/")[0] for row in records} == {b"left", b"right"}


def test_leftovers_of_killed_processes_are_swept(local_ray, synthetic_config, tmp_path):
    prepare(synthetic_config, tmp_path)
    leftovers = [tmp_path / folder / "000000.parquet.0123.partial" for folder in (".", "shards", "reports")]
    for leftover in leftovers:
        leftover.touch()
    (tmp_path / "shards" / "000001.parquet").unlink()
    prepare(synthetic_config, tmp_path)
    assert not any(leftover.exists() for leftover in leftovers)


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


def test_shards_of_another_fingerprint_than_expected_are_refused(synthetic_shards, tmp_path):
    there = describe_shards(synthetic_shards)["fingerprint"]
    expected = {"shards": (synthetic_shards,), "fingerprint": there[:12]}
    assert prepared_shards(DataConfig(**expected), storage=tmp_path, before_work=killed) == [synthetic_shards]
    other = DataConfig(**expected | {"fingerprint": "0123456789ab"})
    with pytest.raises(
        ValueError, match=rf"data.fingerprint 0123456789ab is expected, .*{synthetic_shards}.*{there[:12]}:"
    ):
        prepared_shards(other, storage=tmp_path, before_work=killed)


def test_videos_of_another_fingerprint_than_expected_are_refused_before_any_is_prepared(tmp_path):
    write_videos(tmp_path / "videos")
    data = DataConfig(prepare=config(tmp_path / "videos"), fingerprint="0123456789ab")
    with pytest.raises(ValueError, match=r"data.fingerprint 0123456789ab is expected"):
        prepared_shards(data, storage=tmp_path / "runs", before_work=killed)
    assert not (tmp_path / "runs").exists()


def test_a_cut_off_shard_is_made_anew_once_it_is_deleted(local_ray, synthetic_config, synthetic_shards, tmp_path):
    before = rows_of(load_index([synthetic_shards], fold=1, splits=["train"]))
    shutil.copytree(synthetic_shards, tmp_path / "copy")
    shard = tmp_path / "copy" / "shards" / "000002.parquet"
    cut_off(shard)
    assert len(load_index([tmp_path / "copy"], fold=1, splits=["train"])) < len(before)
    shard.unlink()
    prepare(synthetic_config, tmp_path / "copy")
    assert rows_of(load_index([tmp_path / "copy"], fold=1, splits=["train"])) == before


def test_real_videos_keep_their_frames_and_their_official_split(weizmann_shards):
    train = load_index([weizmann_shards], fold=1, splits=["train"])
    val = load_index([weizmann_shards], fold=1, splits=["val"])
    assert (len(train), len(val), len(train.class_names)) == (50, 10, 10)
    assert all("lena" in video_id for video_id in val.video_id_N)
    source = pq.read_table(weizmann_shards / "videos.parquet").to_pylist()[0]
    row = np.flatnonzero(np.concatenate([train.video_id_N, val.video_id_N]) == source["video_id"])[0]
    stored = (train if row < 50 else val).num_frames_N[row if row < 50 else row - 50]
    assert stored == probe(SHARED_DATA / "weizmann6" / source["path"]).num_frames


def test_not_one_video_at_the_root_is_refused_before_any_work(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "index.csv").write_text("path,label\nvideos/x.mp4,a\nvideos/y.mp4,b\n")
    dataset = FolderDatasetConfig(root=str(tmp_path / "videos"), annotations=tmp_path / "index.csv", test_fraction=0)
    with pytest.raises(ValueError, match=r"not one of the 2 listed videos of videos is below root '.*videos'"):
        prepare(PrepareConfig(dataset=dataset), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_official_ucf101_lists_with_98_clips_present_count_the_rest_as_missing(local_ray, tmp_path):
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real clips are not at {SHARED_DATA}")
    dataset = UCF101DatasetConfig(
        root=str(SHARED_DATA / "ucf101_mixed"), annotations=SHARED_DATA / "annotations" / "ucfTrainTestlist"
    )
    coverage = prepare(PrepareConfig(dataset=dataset, videos_per_shard=1500), tmp_path / "out")
    assert coverage.total == (13320, 98, 98, 98)
    listed = {key: counts.listed for key, counts in coverage.per_split.items()}
    assert [listed[fold, "test"] for fold in (1, 2, 3)] == [3783, 3734, 3696]
    assert [listed[fold, "train"] + listed[fold, "val"] for fold in (1, 2, 3)] == [9537, 9586, 9624]
    assert len(coverage.per_class) == 101
    assert set(coverage.encodings) == {"copy"}


def test_the_official_kinetics_list_with_one_clip_present_counts_the_rest_as_missing(local_ray, tmp_path):
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real clips are not at {SHARED_DATA}")
    clip = tmp_path / "videos" / "abseiling" / "0wR5jVB-WPk_000417_000427.mp4"
    clip.parent.mkdir(parents=True)
    shutil.copy(SHARED_DATA / "single_clips" / "abseiling_k400.mp4", clip)
    lists = (SHARED_DATA / "annotations" / "kinetics" / "kinetics-400_val.csv",)
    dataset = KineticsDatasetConfig(root=str(tmp_path / "videos"), annotations=lists, name="kinetics400")
    coverage = prepare(PrepareConfig(dataset=dataset, videos_per_shard=5000), tmp_path / "out")
    assert coverage.total == (19906, 1, 1, 1)
    assert coverage.per_split == {(1, "val"): (19906, 1, 1, 1)}
    assert len(coverage.per_class) == 400


def test_the_official_hmdb51_lists_with_one_clip_present_count_the_rest_as_missing(local_ray, tmp_path):
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real clips are not at {SHARED_DATA}")
    write_video(tmp_path / "videos" / "April_09_brush_hair_u_nm_np1_ba_goo_0.mp4")
    dataset = HMDB51DatasetConfig(
        root=str(tmp_path / "videos"), annotations=SHARED_DATA / "annotations" / "hmdb51_testTrainMulti_7030_splits"
    )
    coverage = prepare(PrepareConfig(dataset=dataset, videos_per_shard=2000), tmp_path / "out")
    assert coverage.total == (6766, 1, 1, 1)
    listed = {key: counts.listed for key, counts in coverage.per_split.items()}
    for fold in (1, 2, 3):
        assert listed[fold, "train"] + listed[fold, "val"] == 3570
        assert (listed[fold, "test"], listed[fold, "unused"]) == (1530, 1666)
    assert describe_shards(tmp_path / "out")["official_overlaps"] == [133, 149, 144]
