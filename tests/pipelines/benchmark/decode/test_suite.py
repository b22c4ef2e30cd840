"""The decode benchmark: which work is measured, that frames are checked, and that nothing absent goes unnamed."""

import sys

import av
import numpy as np
import pytest

from pipelines.benchmark.decode import suite as decode
from pipelines.benchmark.decode.config import DecodeSuiteConfig
from pipelines.benchmark.decode.stored import measure_psnr, store_clip
from pipelines.benchmark.decode.suite import run_suite
from pipelines.benchmark.measuring import peers
from pipelines.benchmark.measuring.clips import find_clips, write_moving_video
from pipelines.benchmark.measuring.peers import source_decoders
from t3d_core.video.cropping import Crop
from t3d_core.video.decoding import decode_frames, probe

SIZE = {"height": 72, "width": 96}
GENERATED = {"generated_num_frames": 40, "generated_height": 72, "generated_width": 96}
TINY = DecodeSuiteConfig(
    clips=("nowhere",), num_frames=8, short_side=64, crop_size=56, num_places=2, clips_per_folder=2, **GENERATED
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "moving.mp4"
    write_moving_video(path, num_frames=40, seed=0, **SIZE)
    return path


@pytest.fixture(scope="module")
def report():
    return run_suite(TINY, repeats=1)


@pytest.fixture
def no_peers(monkeypatch):
    """A machine without decord and torchcodec."""
    monkeypatch.setitem(sys.modules, "decord", None)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)


def rows_of(report, metric):
    return {row.case: row for row in report.rows if row.metric == f"generated.mp4/{metric}"}


def test_the_generated_video_has_one_key_frame_and_moves(clip):
    info = probe(clip)
    assert (info.num_frames, info.height, info.width, info.codec) == (40, 72, 96, "h264")
    with av.open(str(clip)) as container:
        assert [packet.is_keyframe for packet in container.demux(video=0) if packet.size].count(True) == 1
    first, later = decode_frames(clip, [0, 30]).astype(int)
    assert np.abs(first - later).mean() > 5


def test_every_decoder_delivers_the_same_picture(report):
    difference = rows_of(report, "difference_to_plain_loop")
    assert {"ours", "plain loop"} <= set(difference)
    assert difference["plain loop"].value == 0
    assert all(row.value < 3 for row in difference.values())


def test_the_plain_loop_gives_the_frames_asked_for(clip):
    indices = np.array([3, 9, 9, 21])
    found = source_decoders(is_scaled=False)["plain loop"](clip, indices, (72, 96), Crop(8, 20, 56))
    assert np.array_equal(found, decode_frames(clip, indices)[:, 8:64, 20:76])


def test_the_best_peer_is_the_baseline_and_ours_is_compared_with_it(report):
    source = rows_of(report, "source")
    (best,) = [row for row in source.values() if row.baseline is None]
    assert best.value == max(row.value for case, row in source.items() if case != "ours")
    assert source["ours"].baseline == best.case
    assert source["ours"].ratio == pytest.approx(source["ours"].value / best.value)


def test_segments_of_every_encoding_are_read_at_even_and_odd_starts(report):
    for encoding in ("copy", "h264", "jpeg"):
        parts = {row.metric for row in report.rows if row.case == "ours" and f"/{encoding}" in row.metric}
        assert {part.rpartition(" ")[2] for part in parts} == {"bytes", "luma", "rgb", "even", "odd"}, encoding


def test_frames_that_differ_from_a_full_decode_are_counted_and_miss_the_goal(monkeypatch, no_peers):
    def one_frame_off(path, indices, **options):
        return decode_frames(path, np.maximum(indices - 1, 0), **options)

    monkeypatch.setattr(decode, "decode_frames", one_frame_off)
    report = run_suite(TINY, repeats=1)
    assert rows_of(report, "unequal_frames")["ours"].value >= 14
    (line,) = [line for line in report.text.splitlines() if line.startswith("frames that differ")]
    assert line.endswith("missed")


def test_equal_frames_meet_the_goal(report):
    assert rows_of(report, "unequal_frames")["ours"].value == 0


def test_a_missing_peer_is_named_with_the_reason_and_the_rest_is_measured(no_peers):
    report = run_suite(TINY, repeats=1)
    absent = {row.case: row.note for row in report.rows if row.value is None and row.metric == "generated.mp4"}
    assert "decord" in absent["decord, source"]
    assert "torchcodec" in absent["torchcodec, h264 even"]
    assert "not measured: torchcodec, source" in report.text
    assert set(rows_of(report, "source")) == {"ours", "plain loop"}


def test_a_folder_that_is_not_there_is_named(report):
    ((folder, reason),) = [(row.case, row.note) for row in report.rows if row.metric == "video"]
    assert folder.endswith("nowhere")
    assert reason == "not on this machine"
    assert f"{folder}, video: {reason}" in report.text


def test_nothing_to_measure_is_refused():
    with pytest.raises(ValueError, match="give folders with videos"):
        run_suite(TINY.model_copy(update={"generated_num_frames": 0}), repeats=1)


def test_a_crop_larger_than_the_frames_is_refused():
    with pytest.raises(ValueError, match="crop_size"):
        run_suite(TINY.model_copy(update={"crop_size": 65}), repeats=1)


def test_a_folder_gives_videos_spread_over_its_names_and_names_broken_ones(clip, tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    (tmp_path / "b.mp4").write_bytes(b"no video")
    (tmp_path / "notes.txt").write_text("no video either")
    assert [found.path.name for found in find_clips([tmp_path], clips_per_folder=2).clips] == ["a.mp4", "c.mp4"]
    found = find_clips([tmp_path], clips_per_folder=9)
    assert [clip.path.name for clip in found.clips] == ["a.mp4", "c.mp4"]
    assert "b.mp4" in found.left_out


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("start", [0, 1, 24, 25])
def test_a_start_is_moved_to_its_parity_within_the_segment(start, parity):
    moved = decode._at_parity(start + np.arange(8) * 2, parity, 40)
    assert moved[0] % 2 == parity
    assert abs(moved[0] - start) <= 1
    assert moved.max() < 40


def test_a_copy_loses_nothing_and_an_encoding_something(clip):
    stored = store_clip(str(clip), short_side=64)
    assert measure_psnr(str(clip), stored.segments["copy"], short_side=64) == (float("inf"), float("inf"))
    luma, rgb = measure_psnr(str(clip), stored.segments["h264"], short_side=64)
    assert 25 < rgb < luma < 60


def test_peers_are_not_needed_to_import_the_suite(no_peers):
    assert peers.describe_versions().startswith("PyAV")
