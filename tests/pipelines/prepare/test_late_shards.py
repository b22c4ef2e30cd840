"""Videos that came or were repaired later."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.prepare.config import (
    FolderDatasetConfig,
    PrepareConfig,
)
from pipelines.prepare.job import run_prepare
from pipelines.prepare.make import prepare
from pipelines.shards.folder import ShardFolder, describe_shards
from pipelines.shards.index import load_index
from pipelines.shards.schemas import REPORT_SCHEMA
from tests.pipelines.damage import without_fps
from tests.pipelines.prepare.made_videos import (
    config,
    failures_of,
    job_config,
    killed,
    modification_times,
    prepare_and_count,
    rows_of,
    write_video,
    write_videos,
)


def assert_index_is_of_the_shards(output):
    index = load_index([output], fold=1, splits=["train", "test"])
    shards = [pq.read_table(path).to_pylist() for path in index.shard_paths]
    rows = [row for of_shard in shards for row in of_shard]
    assert list(zip(index.shard_N.tolist(), index.row_N.tolist(), strict=True)) == [
        (shard, row) for shard, of_shard in enumerate(shards) for row in range(len(of_shard))
    ]
    for name in ("video_id", "frame_offset", "num_frames"):
        assert getattr(index, f"{name}_N").tolist() == [row[name] for row in rows]
    return [len(of_shard) for of_shard in shards]


def test_the_index_follows_segments_failures_late_and_lost_shards(local_ray, tmp_path):
    root, output = tmp_path / "videos", tmp_path / "out"
    for number in range(8):
        write_video(root / f"{number}.mp4", num_frames=10 * (1 + number % 3), fps=10.0)
    whole = {root / f"{number}.mp4": (root / f"{number}.mp4").read_bytes() for number in (1, 4, 6)}
    for path in whole:
        path.write_bytes(b"broken")
    dataset = FolderDatasetConfig(root=str(root), is_labelled=False)
    settings = PrepareConfig(dataset=dataset, videos_per_shard=4, max_segment_seconds=1.0, max_failed_fraction=1)
    assert prepare_and_count(settings, output) == (8, 3, 10)
    assert sum(assert_index_is_of_the_shards(output)) == 10
    for path, content in whole.items():
        path.write_bytes(content)
    assert prepare_and_count(settings, output) == (8, 0, 15)
    shards = assert_index_is_of_the_shards(output)
    assert (len(shards), sum(shards)) == (3, 15)
    for shard in (1, 2):
        (output / "shards" / f"{shard:06d}.parquet").unlink()
    assert prepare_and_count(settings, output) == (8, 0, 15)
    assert assert_index_is_of_the_shards(output) == shards


def test_rows_of_late_shards_come_with_the_end_of_prepare_and_no_sooner(local_ray, half_there, tmp_path, monkeypatch):
    output = tmp_path / "out"
    prepare(half_there, output)
    before = rows_of(load_index([output], fold=1, splits=["train", "test"]))
    complete(half_there)
    with monkeypatch.context() as patched:
        patched.setattr(ShardFolder, "digest_contents", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(half_there, output)
    assert rows_of(load_index([output], fold=1, splits=["train", "test"])) == before
    prepare(half_there, output)
    assert len(load_index([output], fold=1, splits=["train", "test"])) == len(before) + 2


def complete(settings):
    root = Path(settings.dataset.root)
    write_video(root / "left" / "b.mp4", num_frames=8)
    write_video(root / "right" / "late.mp4", num_frames=8)


def test_repaired_and_late_videos_get_shards_of_their_own_and_others_stay(local_ray, half_there, tmp_path):
    output = tmp_path / "out"
    assert prepare_and_count(half_there, output) == (8, 5, 3)
    index_before = load_index([output], fold=1, splits=["train", "test"])
    rows_before, contents_before = rows_of(index_before), describe_shards(output)["contents"]
    times_before = modification_times(output / "shards")
    complete(half_there)
    assert prepare_and_count(half_there, output) == (8, 3, 5)
    assert set(failures_of(output)) == {"left/late.mp4", "left/never.mp4", "right/never.mp4"}
    times = modification_times(output / "shards")
    assert times.keys() - times_before.keys() == {"000003.parquet"}
    assert {name: times[name] for name in times_before} == times_before
    assert rows_of(index_before) == rows_before, "training that is under way"
    assert describe_shards(output)["contents"] != contents_before, "a run must not go on with other rows"
    prepare(half_there, tmp_path / "at once")
    at_once = rows_of(load_index([tmp_path / "at once"], fold=1, splits=["train", "test"]))
    assert rows_of(load_index([output], fold=1, splits=["train", "test"])) == at_once
    of_shards = ["shard", "shard_bytes", "rows"]
    videos = [
        pq.read_table(folder / "videos.parquet").drop_columns(of_shards) for folder in (output, tmp_path / "at once")
    ]
    assert videos[0].equals(videos[1])
    assert prepare_and_count(half_there, output) == (8, 3, 5)
    assert modification_times(output / "shards") == times


def test_a_late_video_of_an_unlisted_name_is_taken_up(local_ray, tmp_path):
    root, output = tmp_path / "videos", tmp_path / "out"
    write_video(root / "a.mp4", num_frames=8)
    (root / "index.csv").write_text("path,label\na.mp4,left\n.hidden/late.txt,right\n")
    settings = config(root)
    assert prepare_and_count(settings, output) == (2, 1, 1)
    write_video(root / ".hidden" / "late.mp4", num_frames=8)
    (root / ".hidden" / "late.mp4").rename(root / ".hidden" / "late.txt")
    assert prepare_and_count(settings, output) == (2, 0, 2)


@pytest.mark.parametrize("lost", ["dataset.json is of the first time", "a late shard was not made"])
def test_late_shards_that_were_interrupted_are_finished(local_ray, half_there, tmp_path, lost):
    output = tmp_path / "out"
    prepare(half_there, output)
    first_time = (output / "dataset.json").read_bytes(), (output / "videos.parquet").read_bytes()
    complete(half_there)
    prepare(half_there, output)
    (output / "dataset.json").write_bytes(first_time[0])
    (output / "videos.parquet").write_bytes(first_time[1])
    if lost.startswith("a late"):
        (output / "reports" / "000003.parquet").unlink()
    assert prepare_and_count(half_there, output) == (8, 3, 5)
    assert len(list((output / "shards").iterdir())) == 4
    assert len(load_index([output], fold=1, splits=["train", "test"])) == 5


@pytest.mark.parametrize("lost", ["shards/000000", "shards/000001", "shards/000002", "reports/000000", "shards/000003"])
def test_a_lost_shard_is_made_as_it_was_and_doubles_no_late_video(local_ray, half_there, tmp_path, lost):
    output = tmp_path / "out"
    prepare(half_there, output)
    complete(half_there)
    prepare(half_there, output)
    before = {path: pq.read_table(path) for path in (output / "shards").iterdir()}
    videos, contents = pq.read_table(output / "videos.parquet"), describe_shards(output)["contents"]
    (output / f"{lost}.parquet").unlink()
    prepare(half_there, output)
    assert {path: pq.read_table(path) for path in (output / "shards").iterdir()} == before
    assert pq.read_table(output / "videos.parquet") == videos
    assert describe_shards(output)["contents"] == contents


def test_a_file_that_may_not_be_read_is_not_tried_anew_each_time(local_ray, tmp_path):
    root, output = tmp_path / "videos", tmp_path / "out"
    write_videos(root)
    write_video(tmp_path / "elsewhere.mp4")
    (root / "left" / "c.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    settings = config(root, max_failed_fraction=0.5)
    assert prepare_and_count(settings, output) == prepare_and_count(settings, output) == (5, 1, 4)
    assert not list(output.glob("late/*"))


def test_reports_from_before_there_were_notes_are_read(local_ray, half_there, tmp_path):
    output = tmp_path / "out"
    prepare(half_there, output)
    for report in (output / "reports").iterdir():
        pq.write_table(pq.read_table(report).drop_columns(["notes"]), report)
    complete(half_there)
    prepare(half_there, output)
    assert "left/b.mp4" not in failures_of(output)
    assert pq.read_table(output / "videos.parquet").schema.names == REPORT_SCHEMA.names


def test_reports_from_before_there_were_frame_rates_are_read(local_ray, half_there, tmp_path):
    output = tmp_path / "out"
    prepare(half_there, output)
    for report in (output / "reports").iterdir():
        without_fps(report)
    complete(half_there)
    prepare(half_there, output)
    assert "left/b.mp4" not in failures_of(output)
    assert pq.read_table(output / "videos.parquet").schema.equals(REPORT_SCHEMA)
    assert np.isnan(load_index([output], fold=1, splits=["train", "test"]).fps_N).any()
    index = load_index([output], fold=1, splits=["train", "test"], has_fps=True)
    of_shards = [pq.read_table(path, columns=["fps"]).column("fps").to_pylist() for path in index.shard_paths]
    assert index.fps_N.tolist() == [fps for of_shard in of_shards for fps in of_shard]
    assert_index_is_of_the_shards(output)


@pytest.mark.usefixtures("tracking_uri")
def test_what_a_machine_failed_on_is_tried_again_by_the_next_job_and_by_no_training(local_ray, tmp_path):
    root, output = tmp_path / "videos", tmp_path / "out"
    write_videos(root)
    settings = {"dataset": FolderDatasetConfig(root=str(root)), "output": output, "max_failed_fraction": 1}
    run_prepare(job_config(tmp_path, **settings))
    [report_file] = (output / "reports").iterdir()
    reports = pq.read_table(report_file).to_pylist()
    reports[0] |= {"is_prepared": False, "reason": "unreadable: Input/output error", "source_bytes": 0}
    pq.write_table(pa.Table.from_pylist(reports, schema=REPORT_SCHEMA), report_file)
    prepare(PrepareConfig(**settings), output)
    assert not list(output.glob("late/*"))
    run_prepare(job_config(tmp_path, **settings))
    assert len(list(output.glob("late/*"))) == 1
    assert not failures_of(output)
