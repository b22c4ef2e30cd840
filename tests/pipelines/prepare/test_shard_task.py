"""Videos of a shard, one by one: prepared, or a reason."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.prepare.listing import list_videos
from pipelines.prepare.make import build_shard_task
from pipelines.prepare.shard_task import ShardCounts, prepare_video
from pipelines.shards.folder import ShardFolder
from t3d_core.datasets.folder import read_folder
from t3d_core.video.guard import DecoderKilledError, GuardedDecoder
from t3d_core.video.storage import encode_segments
from tests.pipelines.prepare.made_videos import (
    config,
    failures_of,
    prepare_and_count,
    write_recording,
    write_video,
    write_videos,
)


@pytest.mark.parametrize(("num_kills", "reason"), [(1, ""), (2, "decoding process killed from outside, twice")])
def test_a_decoder_killed_from_outside_is_tried_once_more(tmp_path, monkeypatch, num_kills, reason):
    write_videos(tmp_path / "videos")
    settings = config(tmp_path / "videos")
    listing = list_videos(settings, output=tmp_path)
    kills = iter(range(num_kills))

    def killed(_, *arguments, **options):
        if next(kills, None) is not None:
            raise DecoderKilledError("decoding process killed from outside")
        return encode_segments(*arguments, **options)

    monkeypatch.setattr(GuardedDecoder, "encode_segments", killed)
    record = listing.records.slice(0, 1).to_pylist()[0]
    outcome = prepare_video(record, build_shard_task(settings, ShardFolder(tmp_path / "out"), listing))
    assert outcome.reason == reason
    assert outcome.source_bytes == (0 if reason else record["listed_bytes"])


def test_doubts_about_a_video_are_noted_in_the_table_of_videos(local_ray, tmp_path):
    write_videos(tmp_path / "videos")
    write_recording(tmp_path / "videos" / "left" / "webcam.mkv", num_frames=30, fps=10, stated_fps=1000)
    write_video(tmp_path / "videos" / "left" / "still.mp4", num_frames=1)
    assert prepare_and_count(config(tmp_path / "videos"), tmp_path / "out") == (6, 0, 6)
    table = pq.read_table(tmp_path / "out" / "videos.parquet", columns=["video_id", "notes", "seconds"])
    videos = {row["video_id"]: row for row in table.to_pylist()}
    assert videos["left/webcam.mkv"]["notes"] == ["10 frames a second by its time stamps"]
    assert videos["left/webcam.mkv"]["seconds"] == pytest.approx(3.0)
    assert videos["left/still.mp4"]["notes"] == ["a single frame, which training repeats"]
    assert videos["left/a.mp4"]["notes"] == []


def test_an_error_that_is_not_of_the_file_is_a_failure_too(local_ray, tmp_path, monkeypatch):
    def read_with_a_bad_interval(file_names, **settings):
        dataset = read_folder(file_names, **settings)
        bad = replace(dataset.records[0], start_seconds=2.0, end_seconds=1.0)
        return replace(dataset, records=(bad, *dataset.records[1:]))

    write_videos(tmp_path / "videos")
    monkeypatch.setattr("pipelines.prepare.listing.read_folder", read_with_a_bad_interval)
    assert prepare_and_count(config(tmp_path / "videos", max_failed_fraction=0.5), tmp_path / "out") == (4, 1, 3)
    [reason] = failures_of(tmp_path / "out").values()
    assert reason.startswith("start_seconds must be")


def test_file_names_that_are_not_utf8_are_prepared_or_fail_as_any_other(local_ray, tmp_path):
    root = tmp_path / "videos"
    write_videos(root)
    try:
        (root / "left" / "a.mp4").rename(os.fsdecode(os.fsencode(root / "left") + b"/\xff.mp4"))
        Path(os.fsdecode(os.fsencode(root / "left") + b"/\xfe.mp4")).write_bytes(b"broken")
    except OSError:
        pytest.skip("this file system keeps UTF-8 names only")
    assert prepare_and_count(config(root, max_failed_fraction=0.5), tmp_path / "out") == (5, 1, 4)
    assert failures_of(tmp_path / "out").keys() == {"left/\\xfe.mp4"}
    videos = pq.read_table(tmp_path / "out" / "videos.parquet").to_pylist()
    assert "left/\\xff.mp4" in {row["path"] for row in videos if row["is_prepared"]}


def test_a_link_out_of_the_data_set_is_a_failure_until_the_file_itself_is_there(local_ray, tmp_path):
    root, output = tmp_path / "videos", tmp_path / "out"
    write_videos(root)
    write_video(tmp_path / "elsewhere.mp4")
    link = root / "left" / "c.mp4"
    link.symlink_to(tmp_path / "elsewhere.mp4")
    assert prepare_and_count(config(root, max_failed_fraction=0.5), output) == (5, 1, 4)
    assert failures_of(output)["left/c.mp4"].startswith(f"leads out of '{root}'")
    link.unlink()
    shutil.copy(tmp_path / "elsewhere.mp4", link)
    assert prepare_and_count(config(root), output) == (5, 0, 5)


def test_the_bar_tells_missing_videos_from_failed_ones():
    counts = ShardCounts(5, 1, 1, 2_000_000, 1_000_000).plus(ShardCounts(5, 2, 0, 1_000_000, 500_000))
    assert counts == (10, 3, 1, 3_000_000, 1_500_000)
    assert counts.describe() == "3 missing, 1 failed, 3 MB read, 2 MB stored"
