import json
import os
import re
import shlex
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from PIL import Image

from pipelines.prepare.config import (
    DataConfig,
    FolderDatasetConfig,
    GuardConfig,
    HMDB51DatasetConfig,
    KineticsDatasetConfig,
    PrepareConfig,
    PrepareJobConfig,
    UCF101DatasetConfig,
)
from pipelines.prepare.job import run_prepare
from pipelines.prepare.listing import list_videos
from pipelines.prepare.make import build_shard_task, prepare, prepared_shards
from pipelines.prepare.plan import format_plan, plan_prepare
from pipelines.prepare.shard_task import ShardCounts, prepare_video
from pipelines.runtime.files import whole_file
from pipelines.shards.folder import ShardFolder, describe_shards
from pipelines.shards.index import load_index
from pipelines.shards.schemas import REPORT_SCHEMA
from pipelines.tracking.config import TrackingConfig
from t3d_core.datasets.folder import read_folder
from t3d_core.errors import UserError
from t3d_core.video.decoding import decode_frames, probe
from t3d_core.video.guard import DecoderKilledError, GuardedDecoder
from t3d_core.video.storage import encode_segments, encode_video
from tests.pipelines.damage import cut_off

SHARED_DATA = Path(__file__).parents[4] / "shared" / "data"


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
    return PrepareConfig(dataset=FolderDatasetConfig(root=str(root)), videos_per_shard=4, **settings)


def job_config(tmp_path, **settings):
    return PrepareJobConfig(tracking=TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"), **settings)


def prepare_and_count(settings, output):
    """Give the listed videos, those that were not prepared, and the rows."""
    coverage = prepare(settings, output)
    return coverage.total.listed, coverage.total.listed - coverage.total.prepared, coverage.num_segments


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


def failures_of(output):
    return {row["video_id"]: row["reason"] for row in pq.read_table(output / "failures.parquet").to_pylist()}


def modification_times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def write_videos(root):
    for label in ("left", "right"):
        for name in ("a", "b"):
            write_video(root / label / f"{name}.mp4", num_frames=8)


@pytest.fixture
def half_there(tmp_path):
    """Settings for eight listed videos, of which three are there and one is broken."""
    root = tmp_path / "videos"
    write_videos(root)
    lines = [f"{label}/{name}.mp4,{label}" for label in ("left", "right") for name in ("a", "b", "late", "never")]
    (root / "index.csv").write_text("\n".join(["path,label", *lines]))
    (root / "left" / "b.mp4").write_bytes(b"broken")
    return PrepareConfig(dataset=FolderDatasetConfig(root=str(root)), videos_per_shard=3, max_failed_fraction=1)


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


def killed(*_):
    raise KeyboardInterrupt


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
def test_a_report_that_cannot_be_read_is_told_with_the_cure(local_ray, half_there, tmp_path, harm):
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


def complete(settings):
    root = Path(settings.dataset.root)
    write_video(root / "left" / "b.mp4", num_frames=8)
    write_video(root / "right" / "late.mp4", num_frames=8)


def rows_of(index):
    """(video, its bytes) of every row, sorted: what is there twice is here twice."""
    return sorted((name, index.frames(place)) for place, name in enumerate(index.video_id_N))


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


@pytest.mark.parametrize("lost", ["dataset.json is of the first time", "a late shard was not made"])
def test_late_shards_that_were_cut_off_are_finished(local_ray, half_there, tmp_path, lost):
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


def test_whether_clips_are_trimmed_belongs_to_the_settings(tmp_path):
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\na,xxxxxxxxxxx,1,2\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "xxxxxxxxxxx.mp4").touch()
    dataset = KineticsDatasetConfig(root=str(tmp_path / "videos"), annotations=(tmp_path / "train.csv",))
    prints = {
        list_videos(
            PrepareConfig(dataset=dataset.model_copy(update={"is_trimmed": is_trimmed})), output=tmp_path
        ).description["fingerprint"]
        for is_trimmed in (True, False)
    }
    assert len(prints) == 2


def test_test_videos_without_labels_stay_whole(tmp_path):
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end\nxxxxxxxxxxx,1,2\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "xxxxxxxxxxx_000001_000002.mp4").touch()
    dataset = KineticsDatasetConfig(root=str(tmp_path / "videos"), annotations=(tmp_path / "test.csv",))
    description = list_videos(PrepareConfig(dataset=dataset), output=tmp_path).description
    assert description["class_names"] == []
    assert description["max_segment_seconds"] is None


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


def test_a_file_that_cannot_be_finished_leaves_nothing_and_keeps_the_former_one(tmp_path):
    def write_half():
        with whole_file(tmp_path / "file") as partial:
            partial.write_text("half")
            raise RuntimeError("disk")

    (tmp_path / "file").write_text("former")
    with pytest.raises(RuntimeError, match="disk"):
        write_half()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["former"]


def test_an_unfinished_prepare_is_told_with_the_cure(synthetic_shards, tmp_path):
    shutil.copytree(synthetic_shards, tmp_path / "copy")
    (tmp_path / "copy" / "videos.parquet").unlink()
    with pytest.raises(ValueError, match=r"is not finished: run jobs/prepare.py again"):
        load_index([tmp_path / "copy"], fold=1, splits=["train"])


@pytest.mark.parametrize(("is_labelled", "job"), [(True, "train"), (False, "transfer")])
def test_the_summary_names_the_job_that_can_use_the_shards(local_ray, tmp_path, is_labelled, job):
    write_videos(tmp_path / "videos")
    dataset = FolderDatasetConfig(root=str(tmp_path / "videos"), is_labelled=is_labelled)
    output = tmp_path / "my shards"
    settings = job_config(tmp_path, dataset=dataset, output=output)
    lines = run_prepare(settings).splitlines()
    [line] = [s for s in lines if "next:" in s]
    assert shlex.split(line) == ["next:", "python", f"jobs/{job}.py", "--data.shards", str(output)]
    assert f"settings: {describe_shards(output)['fingerprint'][:12]}, for --data.fingerprint" in lines


def test_a_shard_has_a_row_group_a_row_so_that_readers_touch_only_theirs(synthetic_shards):
    shard = pq.ParquetFile(synthetic_shards / "shards" / "000000.parquet")
    assert shard.num_row_groups == shard.metadata.num_rows == 10


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
    assert stored == probe(SHARED_DATA / "weizmann6" / source["path"]).num_frames


def test_a_job_tells_mlflow_what_became_of_the_videos_and_shows_some(local_ray, mixed_folder, tmp_path, capsys):
    output = tmp_path / "out"
    there = [path.relative_to(mixed_folder) for path in mixed_folder.rglob("*.mp4")]
    lines = ["path,label", *(f"{path},{path.parent}" for path in there), "left/absent.mp4,left"]
    (mixed_folder / "index.csv").write_text("\n".join(lines))
    dataset = FolderDatasetConfig(root=str(mixed_folder), test_fraction=0)
    run_prepare(job_config(tmp_path, dataset=dataset, output=output, max_failed_fraction=0.5))
    printed = capsys.readouterr().out
    assert "10 of 11 listed videos found" in printed
    assert re.search(r"fold 1 train +11 +10 +6 +6", printed)
    assert re.search(r"1 x not found +left/absent.mp4", printed)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    assert run.info.status == "FINISHED"
    counts = {name: run.data.metrics[f"videos/{name}"] for name in ("listed", "found", "decoded", "prepared")}
    assert counts == {"listed": 11, "found": 10, "decoded": 6, "prepared": 6}
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert logged >= {"contact_sheet.png", "coverage.csv", "failures.parquet", "recipe.yaml"}
    assert Image.open(output / "contact_sheet.png").width > 800


def test_a_job_that_fails_ends_its_mlflow_run_as_failed(local_ray, mixed_folder, tmp_path):
    settings = job_config(tmp_path, dataset=FolderDatasetConfig(root=str(mixed_folder)), output=tmp_path / "out")
    with pytest.raises(UserError, match=r"4 of 10 videos failed"):
        run_prepare(settings)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("t3d").experiment_id])
    assert run.info.status == "FAILED"
    assert not (tmp_path / "out" / "mlflow_run.json").exists()


def test_a_dry_run_tells_what_the_whole_would_take_and_writes_nothing(mixed_folder, tmp_path):
    for bad in ("empty.mp4", "garbage.mp4"):
        (mixed_folder / "left" / bad).unlink()
    settings = job_config(
        tmp_path, dataset=FolderDatasetConfig(root=str(mixed_folder)), output=tmp_path / "out", dry_run=True
    )
    told = run_prepare(settings)
    assert "8 of 8 found videos prepared in memory, 2 of them failed; no shard was written" in told
    assert re.search(r"rows +6\.000", told)
    assert not (tmp_path / "out").exists()


def test_a_forecast_scales_its_sample_to_all_that_is_found(tmp_path):
    root = tmp_path / "videos"
    for place in range(40):
        write_video(root / "walk" / f"{place}.mp4", num_frames=30 if place % 2 else 10)
    settings = config(root)
    listing = list_videos(settings, output=tmp_path)
    task = build_shard_task(settings, ShardFolder(tmp_path / "out"), listing)
    whole, sample = (plan_prepare(task, listing, num_videos=n, seed=0) for n in (40, 10))
    assert whole.seconds.value == pytest.approx(40 * 2.0)
    assert (whole.num_segments.value, whole.num_shards, whole.num_failed) == (40, 10, 0)
    assert whole.source_bytes.value == sum(path.stat().st_size for path in root.rglob("*.mp4"))
    assert sample.num_sampled == 10
    assert sample.num_segments.value == 40
    assert abs(sample.seconds.value - 80) <= 4 * sample.seconds.error
    lines = format_plan(whole, free_bytes=10**9).splitlines()
    assert any(re.match(r"video +0\.022 +\+- 0\.0\d+ hours", line) for line in lines)
    hours = {int(m[1]): float(m[2]) for line in lines if (m := re.match(r" +(\d+) +cores: ([\d.]+) hours", line))}
    assert hours.keys() == {8, 64, 512}


def test_the_bar_tells_missing_videos_from_failed_ones():
    counts = ShardCounts(5, 1, 1, 2_000_000, 1_000_000).plus(ShardCounts(5, 2, 0, 1_000_000, 500_000))
    assert counts == (10, 3, 1, 3_000_000, 1_500_000)
    assert counts.describe() == "3 missing, 1 failed, 3 MB read, 2 MB stored"


def test_a_failed_video_is_tried_again_on_request(local_ray, tmp_path):
    root, output = tmp_path / "videos", tmp_path / "out"
    write_video(root / "left" / "a.mp4", num_frames=30)
    write_video(root / "right" / "b.mp4", num_frames=30)
    settings = {"dataset": FolderDatasetConfig(root=str(root)), "output": output, "max_failed_fraction": 1}
    run_prepare(job_config(tmp_path, **settings, guard=GuardConfig(output_gib=1e-6)))
    assert all(reason.startswith("gives more than ") for reason in failures_of(output).values())
    assert len(failures_of(output)) == 2
    run_prepare(job_config(tmp_path, **settings))
    assert len(failures_of(output)) == 2
    run_prepare(job_config(tmp_path, **settings, retry_failed=True))
    assert not failures_of(output)


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


def test_a_folder_that_another_process_writes_to_is_refused_by_a_job_and_awaited_by_a_stage(tmp_path):
    folder, order = ShardFolder(tmp_path), []

    def wait():
        with folder.locked(is_patient=True):
            order.append("second")

    with folder.locked(is_patient=False):
        with (
            pytest.raises(ValueError, match=rf"another prepare \(process {os.getpid()} on .*\) is writing"),
            folder.locked(is_patient=False),
        ):
            pass
        second = threading.Thread(target=wait)
        second.start()
        second.join(timeout=0.3)
        order.append("first")
    second.join()
    assert order == ["first", "second"]


def test_videos_that_turn_out_untrimmed_are_the_same_data_set(tmp_path):
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\na,xxxxxxxxxxx,1,2\nb,yyyyyyyyyyy,1,2\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "xxxxxxxxxxx_000001_000002.mp4").touch()
    settings = PrepareConfig(
        dataset=KineticsDatasetConfig(
            root=str(tmp_path / "videos"), annotations=(tmp_path / "train.csv",), is_trimmed=False
        )
    )
    before = list_videos(settings, output=tmp_path)
    (tmp_path / "videos" / "yyyyyyyyyyy.mp4").touch()
    after = list_videos(settings, output=tmp_path)
    assert (before.is_found().sum(), after.is_found().sum()) == (1, 2)
    assert sorted(after.records.column("start_seconds").to_pylist(), key=str) == [1.0, None]
    assert before.description["fingerprint"] == after.description["fingerprint"]
